"""RetinaNet's parts against torchvision's: what is known is kept, whatever comes after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from measuring import retinanet
from measuring.measure import Comparison, Figure


def test_what_is_measured_is_kept_when_a_later_part_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def detection(*_: Any, **__: Any) -> list[Comparison]:
        return [Comparison("detections", Figure("batched", "ms", [1.0]), Figure("loop", "ms", [6.0]))]

    def step(*_: Any, **__: Any) -> list[Comparison]:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(retinanet, "detection", detection)
    monkeypatch.setattr(retinanet, "step", step)
    out = tmp_path / "r.json"
    monkeypatch.setattr("sys.argv", ["retinanet", "--only", "step", "detection", "--out", str(out)])
    with pytest.raises(RuntimeError, match="out of memory"):
        retinanet.main()
    found = json.loads(out.read_text())
    assert [(each["what"], each["ratio"]) for each in found["rows"]] == [("detections", 6.0)]
    assert capsys.readouterr().out.startswith("detections: ratio 6.000")
    assert found["machine"]["device"] == "cpu" and found["machine"]["processor"]


@pytest.mark.parametrize("error", [RuntimeError, AssertionError], ids=["no device", "a PyTorch without CUDA"])
def test_a_gpu_has_its_number(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a run: what is kept for a stream or a device is kept by it."""

    def zeros(*_: Any, device: str) -> None:
        raise error(f"asked for {device}")

    monkeypatch.setattr("sys.argv", ["retinanet", "--device", "cuda"])
    monkeypatch.setattr(retinanet.torch, "zeros", zeros)
    with pytest.raises(SystemExit):
        retinanet.main()
    assert "asked for cuda:0" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["meta", "xpu", "hpu"])
def test_a_device_whose_work_the_clock_does_not_wait_for(
    device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["retinanet", "--device", device])
    with pytest.raises(SystemExit):
        retinanet.main()
    assert f"--device {device}: cpu or cuda:N" in capsys.readouterr().err


def test_detections_and_a_step_are_torchvision_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = ["--image-px", "64", "--batch", "1", "--rounds", "1", "--forms", "fp32", "--out", str(tmp_path / "r.json")]
    monkeypatch.setattr("sys.argv", ["retinanet", "--only", "step", "detection", *few])
    retinanet.main()
    found = json.loads((tmp_path / "r.json").read_text())
    rows = found["rows"]
    assert found["commit"] and found["software"]["driver"], "figures of nobody knows which code, driver and libraries"
    assert [each["what"] for each in rows] == ["detections", "step, fp32 channels_last"]
    assert all(each["n"] == 1 and each["ratio"] > 0 for each in rows)
