"""The folder as large as OpenImages, half a thousandth of it: what is made is a data set that every stage takes."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks.retinanet.openimages import OPENIMAGES_MLPERF
from measuring import openimages


def test_every_stage_takes_what_is_made(tmp_path: Path) -> None:
    openimages.make(tmp_path, 0.0005)
    assert openimages.convert(tmp_path).startswith(f"{int(OPENIMAGES_MLPERF.splits[0].images * 0.0005):,} images, ")
    assert openimages.read(tmp_path).endswith(" boxes")
    openimages.check(tmp_path)
    assert openimages.torch_reader(tmp_path).startswith("585 images, ")
    assert len(openimages.fingerprint(tmp_path)) == 64


def test_a_peak_is_of_the_stage_and_not_of_what_started_it(tmp_path: Path) -> None:
    ballast = b"1" * (300 << 20)
    found = openimages.in_a_process(openimages.libraries, tmp_path)
    assert found["stage"] == "libraries" and 10 < found["peak_mb"] < len(ballast) >> 20


def test_a_stage_that_breaks_ends_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        openimages.in_a_process(openimages.read, tmp_path)
    assert ended.value.code == 5 and capfd.readouterr().err.endswith("error: read ended with 1\n")


def test_a_folder_is_made_once_and_is_nobody_else_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second share measured the first one's pictures, and converting wrote over the boxes of a true data set."""
    (other := tmp_path / "data").mkdir()
    (other / "a.jpg").touch()
    with pytest.raises(ValueError, match="has not made"):
        openimages.make(other, 0.0005)
    made, whole, rows = tmp_path / "made", tmp_path / "whole", openimages._rows
    monkeypatch.setattr(openimages, "_rows", lambda *_: 1 / 0)  # broken off behind the first pictures
    with pytest.raises(ZeroDivisionError):
        openimages.make(made, 0.0001)
    monkeypatch.setattr(openimages, "_rows", rows)
    for folder in (made, made, whole):
        openimages.make(folder, 0.0001)
    for split in OPENIMAGES_MLPERF.splits:
        pictures, files = ({each.name for each in (of / split.pictures).iterdir()} for of in (made, whole))
        assert pictures == files and len(files) == int(split.images * 0.0001)
        assert openimages.csv(made, split).read_bytes() == openimages.csv(whole, split).read_bytes()
    with pytest.raises(ValueError, match=r"made with --share 0\.0001, not 0\.0005"):
        openimages.make(made, 0.0005)


@pytest.mark.parametrize("text", ["0", "-1", "1.1", "nan", "0.00001", "half"])
def test_a_share_that_is_none(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        openimages.share(text)
    assert openimages.share("1") == 1


def test_the_least_share_that_is_named_is_one() -> None:
    with pytest.raises(argparse.ArgumentTypeError) as told:
        openimages.share("0")
    assert 0 < openimages.share(str(told.value).split(" from ")[1].split()[0]) < 0.0001
