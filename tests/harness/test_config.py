"""Configurations: every mistake is an error that names file, key and what is allowed; every shipped file is right."""

from __future__ import annotations

import copy
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from harness import config, config_files
from harness.config_files import ConfigError
from harness.contract import Context
from tests.toy.configuration import write

GPU_FILES = (
    "DGX1_1x8x120",
    "DGXA100_1x8x114",
    "A100_1x1x128",
    "H100_1x1x256",
    "H200_1x1x456",
    "BI-V100_1x8x24",
    "DGXA100_2x8x56",
)


@pytest.fixture
def content() -> dict[str, Any]:
    """Of a shipped file, its recipe written out."""
    found = config.load(config_files.FOLDER / "ssd" / "DGXA100_1x8x114.toml")
    raw = tomllib.loads((config_files.FOLDER / "ssd" / "DGXA100_1x8x114.toml").read_text())
    del raw["optimizer"]["recipe"]
    written = ("learning_rate", "weight_decay", "warmup_steps", "decay_epochs")
    return {**raw, "optimizer": raw["optimizer"] | {key: found.resolved["optimizer"][key] for key in written}}


def changed(content: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    """The content with one dotted key set; None takes it away."""
    result = copy.deepcopy(content)
    *tables, last = key.split(".")
    table = result
    for name in tables:
        table = table.setdefault(name, {})
    if value is None:
        del table[last]
    else:
        table[last] = value
    return result


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "optimizer.batchsize",
            4,
            r"optimizer\.batchsize: unknown key; did you mean batch_size\? \(known: batch_size, ",
        ),
        ("optimiser", {"a": 1}, r"optimiser: unknown key; did you mean optimizer\?"),
        ("run.epoch", 4, r"run\.epoch: unknown key; did you mean epochs\?"),
        ("optimizer.learning_rate", None, r"optimizer\.learning_rate: missing; needed: a number > 0"),
        ("run", None, r"run: missing"),
        ("benchmark", None, r"benchmark: missing"),
        ("benchmark", "sssd", r'benchmark = "sssd": there is no package benchmarks\.sssd; there are: .*ssd'),
        (
            "optimizer.batch_size",
            0,
            r"optimizer\.batch_size = 0: not allowed; allowed: a whole number >= 2: batch norm needs",
        ),
        ("optimizer.batch_size", "120", r'optimizer\.batch_size = "120": not allowed; allowed: a whole number'),
        ("optimizer.batch_size", 1.5, r"optimizer\.batch_size = 1\.5: not allowed; allowed: a whole number"),
        (
            "compute.precision",
            "fp8",
            r'compute\.precision = "fp8": not allowed; allowed: "auto" \| "fp32" \| "bf16" \| "fp16"',
        ),
        ("compute.compile", 1, r"compute\.compile = 1: not allowed; allowed: true or false"),
        (
            "run.ruleset",
            "0.8.0",
            r'run\.ruleset = "0\.8\.0": not allowed; allowed: "0\.7\.0" \| "1\.0\.0" \| "1\.1\.0"',
        ),
        ("run.device", "gpu", r'run\.device = "gpu": not allowed; allowed: "cpu" \| "accelerator" \| .*"cuda"'),
        ("run.target", 0.2, r"run\.target = 0\.2: the closed division of 0\.7\.0 fixes it at 0\.23"),
        ("run.target", float("nan"), r"run\.target = nan: a finite number is needed"),
        ("optimizer.weight_decay", 10**23, r"optimizer\.weight_decay = 10{23}: a number of at most 64 bits is needed"),
        ("run.evaluate_after_epochs", [50, 40, 80], r"evaluate_after_epochs = \[50, 40, 80\] must ascend"),
        ("run.evaluate_after_epochs", [40, 90], r"evaluate_after_epochs ends at 90, beyond epochs = 80"),
        ("run.evaluate_after_epochs", [40], r"the epochs after it would train for nothing"),
        (
            "run.evaluate_after_epochs",
            [40, 47, 50, 55, 60, 65, 70, 75, 80],
            r"= \[40, 47, .*the closed division of 0\.7\.0 evaluates after \[40, 50, .*80\] of 80 epochs",
        ),
        ("run.evaluate_after_epochs", [40, 80], r"the closed division of 0\.7\.0 evaluates after \[40, 50, .*80\]"),
        ("submission.division", "Closed", r'submission\.division = "Closed": not allowed; allowed: "open" \| "closed"'),
        ("submission.org", "", r"submission\.org = \"\": not allowed; allowed: a text, not empty"),
        ("submission.org", "a\nRESULT", r"submission\.org: 'a\\nRESULT': one line of printable characters is needed"),
        ("submission.org", "a\u2028b", r"submission\.org: 'a\\u2028b': one line of printable"),
        ("submission.org", "a\u202eb", r"submission\.org: 'a\\u202eb': one line of printable"),
        ("submission.platform", "8x\0", r"submission\.platform: '8x\\x00': one line of printable"),
        *(
            ("benchmark", each, 'benchmark = "[^"]*": no package can be called that; there are')
            for each in ("../ssd", ".", ".ssd", "ssd.", "a..b", "a/b", "a\\b", "a\0b")
        ),
        ("model.steps_px", [8, 16], r"steps_px has 2 entries; 5 extra blocks ask for 6"),
        ("model.image_px", 40, r"extra block \d has no cell left"),
        (
            "augmentation.flip_probability",
            1.5,
            r"flip_probability = 1\.5: not allowed; allowed: a number >= 0 and <= 1",
        ),
        ("augmentation.contrast", [1.5, 0.5], r"contrast = \[1\.5, 0\.5\] must not descend"),
        ("optimizer.decay_epochs", [55, 44], r"decay_epochs = \[55, 44\] must ascend"),
    ],
)
def test_mistakes(content: dict[str, Any], key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)some/file\.toml: .*{message}"):
        config.parse(changed(content, key, value), name="file", source="some/file.toml")


@pytest.mark.parametrize("org", ["\u7cfb\u3000\u90e8", "Soci\u00e9t\u00e9\u00a0X"])
def test_a_space_of_another_writing_is_printable(content: dict[str, Any], org: str) -> None:
    """They were refused, also where the configuration of an older checkpoint has them."""
    assert config.parse(changed(content, "submission.org", org), name="file", source="file").submission.org == org


def test_the_range_s_end_is_a_target_too(content: dict[str, Any]) -> None:
    """As in rules.toml: the closed division of a benchmark with such a target could not be run."""
    opened = changed(content, "submission.division", "open")
    assert config.parse(changed(opened, "run.target", 1.0), name="file", source="file").run.target == 1
    with pytest.raises(
        ConfigError, match=r"run\.target = 1\.1: not allowed; allowed: a number > 0 and <= 1, as mAP is"
    ):
        config.parse(changed(opened, "run.target", 1.1), name="file", source="file")


def test_all_mistakes_at_once(content: dict[str, Any]) -> None:
    broken = changed(changed(content, "optimizer.batch_size", 0), "run.epochs", -1)
    with pytest.raises(ConfigError) as raised:
        config.parse(broken, name="file", source="file")
    assert len(str(raised.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "optimizer.decay_epochs",
            [4, 55],
            r"decay after epoch 4 is step 512, before the end of warm-up at optimizer\.warmup_steps = 650",
        ),
        (
            "optimizer.batch_size",
            20_000,
            r"batch_size = 20000 on 8 accelerators is more than data\.train_samples = 117266",
        ),
        (
            "model.initial_weights",
            "imagenet",
            r"needs torchvision's resnet34 file: give its path with --initial-weights",
        ),
    ],
)
def test_what_the_schema_alone_cannot_see(content: dict[str, Any], key: str, value: object, message: str) -> None:
    found = config.parse(changed(content, key, value), name="file", source="file")
    with pytest.raises(ValueError, match=message):
        found.benchmark.check(found.tables, Context(device="cpu", world_size=8))


def test_scratch_does_not_leave_a_backbone_file_unused(content: dict[str, Any]) -> None:
    own = changed(changed(content, "model.initial_weights", "scratch"), "submission.division", "open")
    found = config.parse(own, name="file", source="file")
    with pytest.raises(ValueError, match=r"would leave --initial-weights weights\.pth unused"):
        found.benchmark.check(found.tables, Context(device="cpu", world_size=8, initial_weights=Path("weights.pth")))


def test_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("a = = 1")
    with pytest.raises(ConfigError, match=r"broken\.toml: not valid TOML"):
        config.load(path)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"a = " + b"[" * 5_000 + b"]" * 5_000, "not valid TOML"),
        (b"a = " + b"[" * 100 + b"]" * 100, "nested deeper"),
        (b"a = " + b"9" * 5_000, "not valid TOML"),
        ("a = 1".encode("utf-16"), "UTF-16: save it as UTF-8"),
        (b"a = '\xff'", "not UTF-8"),
        (b"# " + b"x" * (2 << 20), "bytes, at most"),
    ],
)
def test_files_that_are_no_toml(tmp_path: Path, raw: bytes, says: str) -> None:
    path = tmp_path / "odd.toml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=says) as raised:
        config.load(path)
    assert str(raised.value).startswith(str(path))


def test_an_editor_s_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "marked.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\r\n")
    assert config_files.read_toml(path) == {"a": 1}


def test_resolved_has_every_key_and_reads_back_the_same(content: dict[str, Any]) -> None:
    found = config.parse(content, name="file", source="file")
    again = config.parse(found.resolved, name="other", source="other")
    assert found.resolved["augmentation"]["flip_probability"] == 0.5, "defaults are there too"
    assert (again.resolved, again.sha256) == (found.resolved, found.sha256)
    different = config.parse(changed(content, "optimizer.weight_decay", 1e-4), name="file", source="file")
    assert different.sha256 != found.sha256


@pytest.mark.parametrize("name", sorted(config_files.available()))
def test_shipped_files(name: str) -> None:
    found = config.load(config_files.available()[name])
    comment = config_files.available()[name].read_text().split("\n\n")[0].split("benchmark =")[0]
    # run_and_time.sh would put run.lock's torch over a maker's own
    command = "python -m harness run" if "Needs the vendor's build" in comment else "./run_and_time.sh"
    assert comment.startswith(f"# {command} {name}"), "the command comes first"
    for path in re.findall(r"--initial-weights (\S+)", comment):
        assert Path(path).is_absolute(), "`prepare` puts them with the data, not into the current folder"
    for said in ("Expected time: ", "Expected mAP: ", "Measured by this project: "):
        assert said in comment, said
    weights = Path("some.pth") if getattr(found.tables, "model").initial_weights == "imagenet" else None  # noqa: B009
    device = "cuda:0" if found.run.device == "cuda" else "cpu"
    found.benchmark.check(
        found.tables, Context(device=device, world_size=found.run.world_size, initial_weights=weights)
    )


@pytest.mark.parametrize(
    ("name", "learning_rate", "weight_decay", "warmup_steps", "global_batch"),
    [
        # v0.7's PyTorch submissions made of their --lr an integer multiple of 2.5e-3 near lr * batch / 32
        ("DGX1_1x8x120", 35 * 2.5e-3, 1.6e-4, 650, 960),
        ("DGXA100_1x8x114", 36 * 2.5e-3, 1.3e-4, 650, 912),
        ("A100_1x1x128", 0.0114, 1.6e-4, 4809, 128),
        ("H100_1x1x256", 0.025256, 1.3e-4, 2290, 256),
        ("H200_1x1x456", 0.0449873, 1.3e-4, 1285, 456),
        ("BI-V100_1x8x24", 7 * 2.5e-3, 1.6e-4, 3054, 192),
    ],
)
def test_published_recipes(
    name: str, learning_rate: float, weight_decay: float, warmup_steps: int, global_batch: int
) -> None:
    found = config.load(config_files.find(name))
    tables: Any = found.tables
    assert tables.optimizer.learning_rate == pytest.approx(learning_rate)
    assert (tables.optimizer.weight_decay, tables.optimizer.warmup_steps) == (weight_decay, warmup_steps)
    assert list(tables.optimizer.decay_epochs) == [44, 55]
    nodes, accelerators, batch = (int(part) for part in name.rsplit("_", 1)[1].split("x"))
    assert (found.run.nodes, found.run.accelerators_per_node) == (nodes, accelerators)
    assert tables.optimizer.batch_size == batch and batch * found.run.world_size == global_batch
    assert found.submission.division == "closed" and found.run.target == 0.23
    assert found.run.evaluate_after_epochs == [40, 50, 55, 60, 65, 70, 75, 80]


def test_names_and_paths() -> None:
    assert config_files.find("H100_1x1x256") == config_files.find(
        str(config_files.FOLDER / "ssd" / "H100_1x1x256.toml")
    )
    with pytest.raises(ConfigError, match=r"there is no configuration DGXA100_1x8x144; did you mean DGXA100_1x8x114\?"):
        config_files.find("DGXA100_1x8x144")
    with pytest.raises(
        ConfigError, match=r"there is no configuration H100; did you mean H100_1x2x64 or H100_1x1x256\?"
    ):
        config_files.find("H100")
    with pytest.raises(ConfigError, match=r"none/such\.toml: no such file"):
        config_files.find("none/such.toml")
    with pytest.raises(ConfigError, match=r"~nosuchuser/x\.toml: no such file"):  # Path's own is a RuntimeError
        config_files.find("~nosuchuser/x.toml")


def test_without_a_name() -> None:
    assert config_files.find_default([]).stem == "embedded"
    with pytest.raises(ConfigError) as raised:
        config_files.find_default(["NVIDIA H100 80GB HBM3"] * 2)
    text = str(raised.value)
    assert "this machine has 2x NVIDIA H100 80GB HBM3: name the configuration to run" in text
    assert all(name in text for name in GPU_FILES)
    assert next(line for line in text.splitlines() if "this machine's" in line).split()[0] == "H100_1x1x256"
    assert "or embedded, which runs on the CPU" in text


def test_a_benchmark_that_lacks_a_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "halfway.py").write_text("class B:\n    name = 'x'\nBENCHMARK = B()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no package benchmarks\.halfway"):
        config.find_benchmark("halfway")
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "halfway.py").write_text((tmp_path / "halfway.py").read_text())
    with pytest.raises(ConfigError, match=r"bench\.halfway\.BENCHMARK lacks config_type, .*see harness/contract\.py"):
        config.find_benchmark("bench.halfway")


def test_written_and_read(tmp_path: Path, content: dict[str, Any]) -> None:
    assert config.load(write(tmp_path, content)).resolved["optimizer"]["batch_size"] == 114


def test_what_is_no_file_stops_no_other(tmp_path: Path) -> None:
    """A link that leads to itself, a folder, a pipe, a file of zeros: `configs` and `run` go on without them."""
    (tmp_path / "ssd").mkdir()
    good = tmp_path / "ssd" / "good.toml"
    good.write_text((config_files.FOLDER / "ssd" / "embedded.toml").read_text())
    (tmp_path / "ssd" / "loop.toml").symlink_to("loop.toml")
    (tmp_path / "ssd" / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "ssd" / "pipe.toml")
    (tmp_path / "ssd" / "zeros.toml").write_bytes(bytes(2 << 20))
    found, broken = config_files.readable(tmp_path)
    assert [*found] == ["good"] and {*broken} == {"loop", "folder", "pipe", "zeros"}
    assert "Too many levels of symbolic links" in str(broken["loop"])
    assert config_files.find("good", tmp_path) == good and config_files.find_default([], tmp_path) == good
