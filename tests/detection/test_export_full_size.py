"""Networks of full size as ONNX files: large here is what is small in other tests, anchors, categories, the file itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.detection.data_path.normalisation import preprocessing
from benchmarks.detection.detector import as_anywhere
from harness import config, config_files
from harness.contract import Context
from harness.execution import checkpoint
from harness.execution.checkpoint import Checkpoint
from tests.harness.execution.trained.models import harness

for package in ("onnxruntime", "onnxscript"):
    pytest.importorskip(package, reason="of requirements/export.lock, is not installed")


def untrained(name: str, folder: Path) -> Path:
    """A checkpoint of a configuration's network of random weights, whose classes stand out enough to be found.

    And no more than that: of boxes that all have a score of 1 to the last bit, any may be the best.
    """
    configuration = config.load(config_files.find(name))
    tables: Any = as_anywhere(configuration.tables, "fp32")
    benchmark: Any = configuration.benchmark
    torch.manual_seed(3)
    session = benchmark.session(tables, Context(device="cpu", seed=3, data_dir=Path()))
    with torch.no_grad():
        model = session.model.eval()
        if hasattr(model, "heads"):  # SSD's
            logits, _ = model(torch.randn(1, 3, tables.model.image_px, tables.model.image_px))
            factor = 2 / logits.std()
        else:
            factor = torch.tensor(4.0)
            # some 165,000 scores above the threshold: of all 32 million, sorting alone would take 10 s
            model.head.classification_head.cls_logits.bias.fill_(-5)
        for path, values in model.named_parameters():
            if "head" in path and values.dim() == 4:
                values.mul_(factor)
    state = {
        "model": session.model.state_dict(),
        "categories": [{"id": 3 * at, "name": f"class {at}"} for at in range(1, tables.model.categories + 1)],
        "preprocessing": preprocessing(tables.model.image_px, tables.antialias),
        "precision": "fp32",
    }
    resolved = configuration.resolved
    checkpoint.save(folder, Checkpoint(1, 3, configuration.sha256, state, resolved, name, "mAP", 0.1, 0.1))
    return folder


@pytest.mark.long
@pytest.mark.parametrize(("name", "side"), [("DGXH100_1x8x32", 800), ("vgg_voc512", 512), ("H100_1x1x256", 300)])
def test_what_onnx_runtime_finds_is_what_the_network_finds(
    name: str, side: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one picture: with several, one by one and together, it is tried on small networks."""
    out, picture = tmp_path / "full.onnx", tmp_path / "1.jpg"
    benchmark: Any = config.load(config_files.find(name)).benchmark
    picture.write_bytes(benchmark.pictures(1)[0])
    code, said, errors = harness(capsys, "export", untrained(name, tmp_path / "kept"), out, "--check", picture)
    assert (code, errors) == (0, ""), errors
    assert f"images (B, 3, {side}, {side}) uint8 RGB" in said and out.stat().st_size > 75_000_000
    found = int(said.partition("checked with ONNX Runtime: ")[2].split()[0])
    assert found > 20, said
