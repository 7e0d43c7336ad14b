"""What a study cannot do is said before it has measured for minutes."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.early


def test_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, words, said in (
        ("retinanet", ["--out", "/nowhere/x.json"], "/nowhere/x.json: cannot be written: No such file or directory"),
        ("retinanet", ["--rounds", "0"], "0: a whole number from 1 on is needed"),
        ("retinanet", ["--image-px", "-5"], "a whole number from 64 on is needed"),
        ("retinanet", ["--device", "banana"], "--device banana: "),
        ("retinanet", ["--only", "data", "--data-dir", str(tmp_path)], "has no annotations/instances_train2017.json"),
        ("ssd.broken", ["--out", str(tmp_path / "b.json"), "--epochs", "0"], "0: a whole number from 1 on is needed"),
        ("seeds", ["nothing", "--out", str(tmp_path / "s.json")], "error: there is no configuration nothing"),
        ("seeds", ["retinanet_embedded", "--out", str(tmp_path)], f"{tmp_path}: cannot be written: Is a directory"),
        ("scaling", ["--out", os.devnull], f"{os.devnull}: cannot be written into: File exists"),
        ("openimages", [str(tmp_path / "made"), "--out", "/nowhere/x.json"], "cannot be written"),
    ):
        monkeypatch.setattr(sys, "argv", [module, *words])
        with pytest.raises(SystemExit) as ended:  # here: a process of its own takes four seconds to import PyTorch
            runpy.run_module(f"measuring.{module}", run_name="__main__")
        assert ended.value.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    from measuring import arguments

    there, new = tmp_path / "there.json", tmp_path / "new.json"
    there.write_text("{}")
    assert (arguments.file(str(there)), there.read_text()) == (there, "{}")
    assert arguments.file(str(new)) == new and not new.exists()
    there.write_text("")
    (link := tmp_path / "link.json").symlink_to(there)
    os.mkfifo(pipe := tmp_path / "pipe")
    for kept in (there, link, pipe, Path(os.devnull)):
        assert arguments.file(str(kept)) == kept and os.path.lexists(kept)
    with pytest.raises(Exception, match="a whole number from 1 on"):
        arguments.at_least(1)("1.5")
