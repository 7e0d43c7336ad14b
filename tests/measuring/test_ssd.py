"""The profile: it measures what trains, in turns, after checks that can fail; its baselines compute the same."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks.detection.data_path.pictures import read
from benchmarks.detection.data_set import annotation_file
from benchmarks.detection.found import Detections
from benchmarks.detection.quality import coco
from benchmarks.ssd import detections
from benchmarks.ssd import loss as plain_loss
from benchmarks.ssd.benchmark import BENCHMARK
from benchmarks.ssd.boxes import decode
from benchmarks.ssd.data import Source
from harness import config_files
from harness.contract import Context
from measuring import measure
from measuring.ssd import accuracy, baselines, checks, command, options, power, report, sections, setup
from measuring.ssd import run as run_itself
from tests.conftest import CHECKOUT
from tests.harness.execution.runs import events
from tests.ssd import small
from tests.ssd.test_data import BOXES, PX
from tests.ssd.test_detections import like_a_network, ssd300
from tests.toy.configuration import write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("configuration"), small.content(), "small")


@pytest.fixture(scope="module")
def in_bf16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = small.content(compute={"precision": "bf16"}, model=small.OF_32_PX)
    return write(tmp_path_factory.mktemp("in_bf16"), content, "small")


def run(configuration: Path, folder: Path, out: Path, *more: str, device: str = "cpu") -> int:
    where = [
        "--data-dir",
        str(folder),
        "--device",
        device,
        "--json",
        str(out / "p.json"),
        "--chart",
        str(out / "p.png"),
    ]
    return command.main(
        [str(configuration), *where, "--threads", "1", "--rounds", "2", "--max-steps", "2", "--evaluate", "6", *more]
    )


@pytest.mark.long
@pytest.mark.timeout(1800)  # 70 s of processor time, and a machine may be busy
def test_one_command_leaves_table_chart_and_samples(
    in_bf16: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], device: str
) -> None:
    options = ("--evaluator", "20", "--accuracy", "3", "--choices")
    assert run(in_bf16, folder, tmp_path, *options, device=device) == 0
    found = json.loads((tmp_path / "p.json").read_text())
    assert all(check["passed"] for check in found["checks"]) and len(found["checks"]) == 6
    compared = {each["what"]: each for each in found["comparisons"]}
    step = compared["training step, bf16 channels_last"]
    on_cpu = device == "cpu"
    assert step["goal"] == (3.5 if on_cpu and "amx_bf16" in found["machine"]["vector_units"] else None)
    assert (on_cpu and step["goal"] is None) == ("no AMX" in step["note"])
    assert compared["decode and NMS, a batch"]["goal"] == (5 if on_cpu else None)
    assert compared["data path, processor time an image"]["goal"] == 1.6
    assert compared["data path without DALI, processor time an image"]["ours"]["what"] == "torch"
    graphs = "data path, processor time an image: " if on_cpu else "data path, time an image: "
    assert sum(what.startswith(graphs) for what in compared) == (4 if on_cpu else 16)
    for each in compared.values():
        assert each["n"] == len(each["ours"]["samples"]) == 2 and each["ratio"] > 0
        assert each["quartiles"][0] <= each["ratio"] <= each["quartiles"][1]
    figures = {figure["what"]: figure for figure in found["figures"]}
    for what in ("end to end: JPEG to optimizer", "data alone", "step alone", "loss alone, forward and backward"):
        assert figures[what]["unit"] == "images/s" and figures[what]["median"] > 0
    assert len(figures["loss of bf16 against fp32"]["samples"]) == 1
    assert [len(curve) for curve in found["losses"].values()] == [3, 3, 3]
    assert sum(kernel["share"] for kernel in found["kernels"]) > (0.8 if on_cpu else 0.3)
    assert found["machine"]["device"] == ("cpu" if on_cpu else torch.cuda.get_device_name(device))
    assert found["machine"]["cores"] >= 1 and found["configuration"]["model"]["image_px"] == 32
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "ratio" in printed and "correct?" in printed


def test_one_command_on_a_gpu(in_bf16: Path, folder: Path, tmp_path: Path, gpu: str) -> None:
    assert run(in_bf16, folder, tmp_path, device=gpu) == 0
    found = json.loads((tmp_path / "p.json").read_text())
    assert all(check["passed"] for check in found["checks"]) and len(found["checks"]) == 6
    assert {"end to end: JPEG to optimizer", "step alone"} <= {figure["what"] for figure in found["figures"]}
    assert found["machine"]["device"] == torch.cuda.get_device_name(gpu)


def test_nothing_is_measured_where_the_loss_is_wrong(
    configuration: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = plain_loss.detection_loss
    monkeypatch.setattr(plain_loss, "detection_loss", lambda *tensors: 1.001 * right(*tensors))
    assert run(configuration, folder, tmp_path) == 1
    found = json.loads((tmp_path / "p.json").read_text())
    assert [check["what"] for check in found["checks"] if not check["passed"]] == [
        "loss (plain) against float64, relative"
    ]
    assert not found["comparisons"] and len(found["figures"]) == 1 and not (tmp_path / "p.png").exists()


def out_of_memory(*_: object, **__: object) -> None:
    raise RuntimeError("out of memory")


def terminated(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)


@pytest.mark.long
@pytest.mark.parametrize("late", [out_of_memory, terminated], ids=lambda late: late.__name__)
def test_what_was_measured_is_kept_when_a_later_part_breaks(
    configuration: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: Callable[..., None]
) -> None:
    monkeypatch.setattr(sections, "evaluation", late)
    before = signal.getsignal(signal.SIGTERM)
    asked = ("--only", "detection,evaluation")
    assert run(configuration, folder, tmp_path, *asked) == (130 if late is terminated else 5)
    assert signal.getsignal(signal.SIGTERM) is before
    found = json.loads((tmp_path / "p.json").read_text())
    assert "decode and NMS, a batch" in {each["what"] for each in found["comparisons"]}
    assert [each["what"] for each in found["figures"]] == ["warm-up in init"]


def test_only_what_was_asked_for_and_the_most_important_first(
    configuration: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    done: list[str] = []
    monkeypatch.setattr(command, "_measure", lambda name, *_: done.append(name))
    assert run(configuration, folder, tmp_path, "--only", "kernels,step,detection") == 0
    assert done == ["step", "detection", "kernels"]
    assert run(configuration, folder, tmp_path, "--only", "kernels,constants,plans") == 0
    assert done[3:] == ["kernels"], "others are not lost for what a CPU does not have"
    assert "constants is left out: of the kernels" in capsys.readouterr().out
    assert json.loads((tmp_path / "p.json").read_text())["left_out"] == ["constants", "plans"]


def test_the_budget_ends_it_with_what_there_is(
    configuration: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def slow(name: str, asked: object, found: report.Report, *_: object) -> None:
        if name == "data":
            signal.setitimer(signal.ITIMER_REAL, 0.01)  # the budget's clock, wound on
            time.sleep(60)
        found.figures.append(measure.Figure(name, "s", [1.0]))

    monkeypatch.setattr(command, "_measure", slow)
    assert run(configuration, folder, tmp_path, "--only", "step,data,kernels", "--budget", "900") == 0
    assert "are over before: data, kernels" in capsys.readouterr().out
    found = json.loads((tmp_path / "p.json").read_text())
    assert found["left_out"] == ["data", "kernels"]
    assert [each["what"] for each in found["figures"]] == ["warm-up in init", "step"]
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def over(*_: object, **__: object) -> None:
    raise command.OutOfTime


@pytest.mark.parametrize("late", ["checks", "the first section"])
def test_a_budget_that_is_over_before_anything_is_measured_is_no_success(
    configuration: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    # on a GPU its power is known all the same
    monkeypatch.setattr(power, "drawn", lambda *_: [measure.Figure("power, while step was measured", "W", [700.0])])
    (tmp_path / "p.png").touch()  # an earlier profile's
    monkeypatch.setattr(*((checks, "of_data") if late == "checks" else (command, "_measure")), over)
    assert run(configuration, folder, tmp_path, "--only", "step", "--budget", "900") == 5
    # of one whose checks were not done nothing is left, nor taken
    assert ((tmp_path / "p.json").exists(), (tmp_path / "p.png").exists()) == (late != "checks", late == "checks")


def test_a_check_that_failed_is_said_though_the_budget_is_over_before_the_others(
    configuration: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "of_data", lambda *_: [checks.Check("boxes", found=2.0, bound=1.0)])
    monkeypatch.setattr(checks, "of_computation", over)
    assert run(configuration, folder, tmp_path, "--only", "step", "--budget", "900") == 1


def test_a_disk_that_is_full_at_the_end_costs_no_table(
    configuration: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "p.json")

    monkeypatch.setattr(command, "_measure", lambda *_: None)
    monkeypatch.setattr(report.study, "put", full)
    assert run(configuration, folder, tmp_path, "--only", "step") == 6
    shown = capsys.readouterr()
    assert "correct?" in shown.out and shown.err == "error: p.json: cannot be written: No space left on device\n"


def test_a_detection_that_is_missing_fails_the_check() -> None:
    network, anchors = like_a_network(1, ssd300(), 2, 81, 5), ssd300()
    assert checks.of_detections(network, anchors).passed
    right = detections.detect

    def without_the_last(*tensors: Any) -> Detections:
        found = right(*tensors)
        return found[torch.arange(len(found) - 1)]

    detections.detect = without_the_last
    try:
        assert not checks.of_detections(network, anchors).passed
    finally:
        detections.detect = right
    logits = torch.zeros(1, len(anchors), 81)
    logits[..., 0] = 9
    assert not checks.of_detections((logits, network[1][:1]), anchors).passed, "no detections are no proof"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (["none.toml"], 2),
        (["nothing"], 2),
        (["--data-dir", "nowhere"], 2),
        (["--only", "constants,plans", "--device", "cpu"], 2),
        (["--json", "/proc/nowhere/p.json"], 2),
        (["--chart", "/proc"], 2),
        (["--device", "cuda"], 6),
    ],
)
def test_what_cannot_be_run(
    given: list[str], code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if code == 6 and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(setup, "session", lambda *_: pytest.fail("it was said after minutes"))
    assert command.main(given) == code
    said = capsys.readouterr().err
    assert "error: " in said
    assert code != 6 or "--device cuda:0" in said, "a run's word: plans and streams are kept by the number"


OURS = [name for name, path in config_files.available().items() if path.parent.name == "ssd"]


@pytest.mark.parametrize("name", OURS)
def test_every_configuration_can_be_measured_without_a_gpu(name: str) -> None:
    """The default is one for an H100: what only a GPU can do is taken out of it on a CPU."""
    BENCHMARK.check(command.fitted(options.arguments([name]), "cpu"), Context(device="cpu"))
    assert options.arguments([]).configuration in OURS


@pytest.mark.parametrize(
    "given",
    [
        *(["--rounds", "0"], ["--batch-size", "1"], ["--only", "steps"], ["--budget", "0"], ["--no-such"]),
        *(["--only", "step", more] for more in ("--variants", "--choices", "--evaluator", "--accuracy=3", "--all")),
    ],
)
def test_usage(given: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        command.main(given)
    assert exit_.value.code == 2


def test_as_many_forms_as_are_measured_are_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The ninth ran uncompiled, under the name of a compiled one: the sessions of a process share what is compiled."""
    compiled: list[object] = []

    class Session:
        def __init__(self, form: str) -> None:
            self.form = form

        def loss(self, x: Tensor) -> Tensor:
            return x * 2 if self.form else x

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        compiled.append(graph)
        return graph.forward

    def measure(*_: object) -> None:
        for form in "abcdefghi":
            torch.compile(Session(form).loss, backend=backend)(torch.ones(1))
        assert len(compiled) == 9
        monkeypatch.setattr(command, "FORMS", 9)
        with command._every_form_compiled(), pytest.raises(Exception, match="recompile_limit"):
            torch.compile(Session("j").loss, backend=backend)(torch.ones(1))

    monkeypatch.setattr(command, "measure", measure)
    out = ["--json", str(tmp_path / "p.json"), "--chart", str(tmp_path / "p.png")]
    assert command.main(["--device", "cpu", *out]) == 0


def test_importing_it_does_nothing_and_help_needs_no_device() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", "import measuring.ssd.command"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout == finished.stderr == ""


def test_the_run_finds_what_the_profile_compiled(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling once more is 40 s of a rented GPU, and its init would be called compiled before."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    done: list[list[str]] = []

    def run(command: list[str], **_: object) -> Any:
        done.append(command)
        raise KeyboardInterrupt

    monkeypatch.setattr(run_itself.subprocess, "run", run)
    few = setup.changed(setup.read(str(write(tmp_path, small.content(), "small"))), optimizer={"batch_size": 4})
    with pytest.raises(KeyboardInterrupt):
        list(run_itself.end_to_end(few, "cpu", folder, tmp_path / "run", 2))
    (command,) = done
    assert f"TORCHINDUCTOR_CACHE_DIR={tmp_path / 'inductor'}" in command
    assert f"TRITON_CACHE_DIR={tmp_path / 'triton'}" in command


@pytest.mark.timeout(50)  # what is left behind lives for 60 s
def test_what_a_run_leaves_behind_is_not_waited_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (python := tmp_path / "python").write_text("#!/bin/sh\nsetsid sleep 60 &\necho what is wrong\nexit 2\n")
    python.chmod(0o755)
    few = setup.read(str(write(tmp_path, small.content(), "small")))
    monkeypatch.setattr(run_itself.sys, "executable", str(python))
    with pytest.raises(run_itself.RunBroke, match="what is wrong"):
        list(run_itself.end_to_end(few, "cpu", folder, tmp_path / "run", 2))


def test_a_triton_that_tells_no_place_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3.3.1, of requirements/cuda12.lock, has no module knobs: the run that was to be measured did not begin."""
    (older := ModuleType("triton")).__path__ = []
    monkeypatch.setitem(sys.modules, "triton", older)
    monkeypatch.delitem(sys.modules, "triton.knobs", raising=False)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert run_itself.compiled_here() == {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}


def test_constants_are_of_kernels_alone_that_the_configuration_has() -> None:
    asked = options.arguments(["H100_1x1x256", "--only", "constants"])
    config = setup.read(asked.configuration)
    for fused, left_out in (["loss"], False), (["weights"], True), ([], True):
        chosen = setup.changed(config, compute={"fused": fused})
        assert ("constants" in command.unsuited(asked, chosen, "cuda:0")) is left_out


@pytest.mark.long
def test_end_to_end_is_the_run_itself(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says is what the harness's log says; a run that breaks is not measured."""
    few = setup.changed(setup.read(str(write(tmp_path, small.content(), "small"))), optimizer={"batch_size": 4})
    found = {figure.what: figure for figure in run_itself.end_to_end(few, "cpu", folder, tmp_path / "run", 2)}
    logged = events(tmp_path / "run/out/result_0.txt")
    speeds = [event["value"]["throughput"] for event in logged if event["key"] == "tracked_stats"]
    assert len(speeds) == 2 and found["end to end: JPEG to optimizer"].samples == speeds[1:]
    assert [e["value"] for e in logged if e["key"] == "max_steps"] == [2]
    assert found["time waiting for data"].samples[0] >= 0
    assert 0 < found["init in the run, compiled before"].median < 300
    with pytest.raises(run_itself.RunBroke, match="complete the folder or correct the configuration"):
        wrong = setup.changed(few, data={"train_samples": 13})
        list(run_itself.end_to_end(wrong, "cpu", folder, tmp_path / "wrong", 2))
    # a time that is over before the run is: what stood in the log by then
    whole = (tmp_path / "run/out/result_0.txt").read_text().splitlines(keepends=True)
    until = [n for n, line in enumerate(whole) if '"tracked_stats"' in line][-1]

    def over(words: list[str], **_: object) -> Any:
        out = Path(words[words.index("--out") + 1])
        out.mkdir()
        (out / "result_0.txt").write_text("".join(whole[: until + 1])[:-7])
        raise command.OutOfTime

    monkeypatch.setattr(run_itself.subprocess, "run", over)
    kept = []
    with pytest.raises(command.OutOfTime):
        for figure in run_itself.end_to_end(few, "cpu", folder, tmp_path / "cut", 2):
            kept.append(figure)
    assert [(each.what, each.samples) for each in kept] == [
        ("init in the run, compiled before", found["init in the run, compiled before"].samples),
        ("end to end: JPEG to optimizer", speeds[:1]),
    ]
    assert kept[1].note == run_itself.FIRST and not found["end to end: JPEG to optimizer"].note


# --- measuring -------------------------------------------------------------------------------------------------------


def test_candidates_take_turns_in_alternating_order() -> None:
    order: list[str] = []

    def candidate(name: str) -> measure.Measure:
        def once() -> float:
            order.append(name)
            return float(len(order))

        return once

    found = measure.interleaved({"a": candidate("a"), "b": candidate("b")}, 3)
    assert "".join(order) == "ab" + "abbaab"
    assert found == {"a": [3, 6, 7], "b": [4, 5, 8]}


def test_the_ratio_is_of_each_turn() -> None:
    """A machine that was busy in the second turn slows both; the ratio of medians would be off."""
    compared = measure.Comparison(
        "x", measure.Figure("a", "s", [1.0, 10.0, 1.0]), measure.Figure("b", "s", [2.0, 30.0, 2.0])
    )
    assert compared.ratios == [2, 3, 2] and compared.ratio == 2
    assert measure.quartiles([1.0, 2.0, 3.0]) == (1, 3)
    assert measure.quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2, 4)


def test_background_work_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(measure, "QUIET_S", 1.0)  # a thread that gets no processor for 100 ms is busy all the same

    def burn() -> None:
        end = time.thread_time() + 0.2
        while time.thread_time() < end:
            pass

    spent = measure.processor_time_of_background_work(lambda: threading.Thread(target=burn).start())
    assert spent >= 0.2


# --- baselines -------------------------------------------------------------------------------------------------------


def test_the_encoder_finds_its_own_boxes_again(test_data: Path) -> None:
    where = test_data / "coco256"
    source = Source(
        where / "val2017", where / "annotations/instances_val2017.json", PX, 1, 1, "cpu", 0, 1, skip_empty=True
    )
    path = baselines.PilPath(PX, checks.AS_IT_IS, BOXES, np.random.default_rng(0))
    for picture in read(source)[:10]:
        image, labels, offsets = path.sample(picture)
        assert image.shape == (3, PX, PX)
        ltrb, wanted = torch.from_numpy(picture.ltrb), torch.from_numpy(picture.labels)
        positive = labels > 0
        assert positive.sum() >= 1 and (offsets[~positive] == 0).all()
        found = decode(offsets, BOXES)[positive]
        distance = (found[:, None] - ltrb[None]).abs().amax(dim=2)
        nearest = distance.argmin(dim=1)
        assert distance.min(dim=1).values.max() < 1e-4
        assert torch.equal(labels[positive], wanted[nearest]) or len(ltrb) > len(ltrb.unique(dim=0))


def test_pixels_and_matches_of_both_data_paths(test_data: Path, tmp_path: Path) -> None:
    config = setup.read("H100_1x1x256")
    (few,) = setup.repeated(config, test_data / "coco256", {tmp_path: (8, 8)})
    found = list(checks.of_data(few, tmp_path, ssd300()))
    assert [check.passed for check in found] == [True, True], found


def test_detection_in_loops_is_the_batched_one() -> None:
    anchors = ssd300()
    network = like_a_network(2, anchors, images=2, classes=81, objects=6)
    one, other = (baselines.rows(f(*network, anchors)) for f in (detections.detect, baselines.detect_in_loops))
    assert len(one) > 50
    np.testing.assert_array_equal(one[:, :2], other[:, :2])
    np.testing.assert_allclose(one, other, atol=1e-6)
    nothing = torch.zeros(1, len(anchors), 81)
    nothing[..., 0] = 9
    assert len(baselines.detect_in_loops(nothing, network[1][:1], anchors)) == 0


def test_a_folder_repeated_is_read_by_the_graph(folder: Path, tmp_path: Path) -> None:
    content = small.content(model={"categories": 5})
    config = setup.read(str(write(tmp_path, content, "five")))
    (longer,) = setup.repeated(config, folder, {tmp_path / "again": (30, 7)})
    session = setup.session(longer, "cpu", tmp_path / "again")
    assert (session.load_data().train_samples, session.evaluation.batches.samples) == (30, 7)
    assert len(session.evaluation.ground_truth.category_ids) == 5, "the network keeps its size"
    assert sum(len(batch["images"]) for batch in session.train_data) == 28
    with pytest.raises(ValueError, match="has 3 categories"):
        setup.repeated(setup.changed(config, model={"categories": 2}), folder, {tmp_path / "no": (1, 1)})


def test_a_data_set_s_boxes_are_read_once(
    configuration: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reading of COCO's was 15 s, and a dictionary of each box, of the 8 images of the checks too."""
    loads: list[str] = []
    documents: list[set[int]] = []
    load, document = annotation_file.read, annotation_file.Annotations.document

    def read_once(path: Path) -> annotation_file.Annotations:
        loads.append(path.name)
        return load(path)

    def of(annotations: annotation_file.Annotations) -> dict[str, Any]:
        documents.append(set(annotations.images.tolist()))
        return document(annotations)

    monkeypatch.setattr(annotation_file, "read", read_once)
    monkeypatch.setattr(annotation_file.Annotations, "document", of)
    monkeypatch.setattr(setup, "session", lambda *_: _interrupt())
    monkeypatch.setattr(command, "FEW", 2)
    assert run(configuration, folder, tmp_path) == 130
    tables = setup.read(str(configuration)).data
    assert loads == [Path(tables.train_annotations).name, Path(tables.eval_annotations).name]
    assert [len(each) <= 2 for each in documents[::2]] == [True, True], "of the few images alone"


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_evaluators_that_disagree_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    *_, [found] = sections.evaluators(10, 1)
    assert isinstance(found, measure.Comparison) and found.ratio > 0
    right = coco._by_hotcoco
    monkeypatch.setattr(coco, "_by_hotcoco", lambda truth, rows, ids: right(truth, rows[1:], ids))
    with pytest.raises(RuntimeError, match="disagree"):
        list(sections.evaluators(10, 1))


def test_parts_of_an_evaluation_that_are_not_the_whole_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    *_, [found] = sections.evaluation_of_ranks(10, 1, ranks=4)
    assert isinstance(found, measure.Comparison) and found.ratio > 0
    right = coco.matched
    monkeypatch.setattr(coco, "matched", lambda parts: right(parts[1:]))
    with pytest.raises(RuntimeError, match="not the whole"):
        list(sections.evaluation_of_ranks(10, 1, ranks=4))


def test_accuracy_is_told_beside_the_spread_between_seeds() -> None:
    flat = [2.0] * 20
    found = accuracy.figures({"fp32": flat, "bf16": [2.02] * 20, "fp32, another seed": [1.9] * 20})
    assert [figure.samples for figure in found] == [pytest.approx([1.0, 1.0]), pytest.approx([5.0, 5.0])]


def test_the_chart_shows_ratios_and_curves_or_either_alone(tmp_path: Path) -> None:
    ratio = measure.Comparison("a", measure.Figure("x", "ms", [1.0, 2.0]), measure.Figure("y", "ms", [3.0, 5.0]), 2.0)
    curves = {"fp32": [2.0] * 12, "bf16": [2.1] * 12, "fp32, another seed": [1.9] * 12}
    heights = []
    for comparisons, losses in (([ratio], {}), ([], curves), ([ratio], curves)):
        found = report.Report({}, {}, {}, comparisons=comparisons, losses=losses)
        report.draw(found, "title", tmp_path / "chart.png")
        with Image.open(tmp_path / "chart.png") as picture:
            heights.append(picture.height)
    assert heights[2] == pytest.approx(heights[0] + heights[1], abs=2)


def test_there_is_no_second_training_loop_or_graph() -> None:
    source = (CHECKOUT / "measuring/ssd").glob("*.py")
    assert not [path.name for path in source if "pipeline_def" in path.read_text() or "backward()" in path.read_text()]
