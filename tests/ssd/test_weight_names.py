"""Our parameters map one to one onto the 119 names that ruleset 1.1.0's checker lists."""

from __future__ import annotations

import re
from pathlib import Path

import mlperf_logging.compliance_checker
import pytest

from benchmarks.ssd.model import SSD
from benchmarks.ssd.weight_names import mllog_names


def listed() -> list[str]:
    """Read off the checker's own file, so that a change upstream shows."""
    folder = Path(mlperf_logging.compliance_checker.__file__).parent
    return re.findall(r'"(ssd0_\w+)"', (folder / "training_1.1.0/closed_ssd.yaml").read_text())


def test_one_to_one_onto_the_checkers_list() -> None:
    model = SSD("resnet34", 81, (4, 6, 6, 6, 4, 4))
    parameters = dict(model.named_parameters())
    names = mllog_names(parameters)
    assert len(listed()) == 119
    assert sorted(names.values()) == sorted(listed())
    assert list(names) == list(parameters)


def test_each_name_stands_for_the_tensor_of_its_kind_and_size() -> None:
    model = SSD("resnet34", 81, (4, 6, 6, 6, 4, 4))
    shape = {
        name: tuple(model.get_parameter(ours).shape)
        for ours, name in mllog_names(dict(model.named_parameters())).items()
    }
    assert shape["ssd0_resnetmlperf0_conv0_weight"] == (64, 3, 7, 7)
    assert shape["ssd0_resnetmlperf0_stage1_conv5_weight"] == (64, 64, 3, 3)
    assert shape["ssd0_resnetmlperf0_stage2_conv0_weight"] == (128, 64, 3, 3)
    assert shape["ssd0_resnetmlperf0_stage2_conv2_weight"] == (128, 64, 1, 1)  # the downsampling
    assert shape["ssd0_resnetmlperf0_stage3_conv3_weight"] == (256, 256, 3, 3)
    assert shape["ssd0_resnetmlperf0_stage3_batchnorm12_beta"] == (256,)
    assert shape["ssd0_expand_trans_conv0_weight"][2:] == (1, 1)
    assert shape["ssd0_expand_conv0_weight"][2:] == (3, 3)
    assert all(len(size) == (4 if name.endswith("_weight") else 1) for name, size in shape.items())


def test_a_parameter_without_a_name() -> None:
    with pytest.raises(ValueError, match=r"backbone\.7\.0\.conv1\.weight has no name"):
        mllog_names(["backbone.7.0.conv1.weight"])
