"""Which data set a message offers to download: the one that the configuration at hand reads, or none."""

from __future__ import annotations

import pytest

from benchmarks.detection.download.full_coco import COCO_2017
from benchmarks.detection.download.full_voc import VOC_0712
from benchmarks.retinanet.openimages import OPENIMAGES_MLPERF
from harness import config, config_files

# By the number of pictures to train on, which is no other's
OFFERED = {
    117266: "--benchmark ssd",
    16551: "--benchmark ssd --dataset voc",
    1170301: "--benchmark retinanet",
}


@pytest.mark.parametrize("name", sorted(config_files.available()))
def test_a_configuration_is_offered_what_it_reads(name: str) -> None:
    """COCO's 20 GB were, to who trains on Pascal VOC, and to who has photographs of blood that nobody downloads."""
    read = config.load(config_files.available()[name])
    data = read.tables.data  # type: ignore[attr-defined]
    of_its_own = data.source == "embedded" or name.endswith("bccd")
    assert read.prepared_by == (None if of_its_own else OFFERED[data.train_samples])


def test_the_files_are_those_that_are_downloaded() -> None:
    offered = {**config.find_benchmark("ssd").published_data, **config.find_benchmark("retinanet").published_data}  # type: ignore[attr-defined]
    train = (COCO_2017.splits[0].annotations, VOC_0712.halves[0].annotations, OPENIMAGES_MLPERF.splits[0].annotations)
    assert tuple(path for path, _ in offered) == train
