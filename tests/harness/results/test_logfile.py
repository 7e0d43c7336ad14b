"""The log parser: every dialect, any bytes, no wrong success, bounded memory."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.results import by_rules
from harness.results.lines import LINE_LIMIT, Scanner
from harness.results.logfile import KEY_LIMIT, PROBLEM_LIMIT, LogReader, read
from harness.results.record import RunRecord
from harness.results.timeline import KEEP_LIMIT
from harness.rules import rules_for
from tests.harness.results.logs import Event, changed, event, events, text, without, write


def parsed(content: str | bytes) -> RunRecord:
    reader = LogReader()
    reader.feed(content.encode() if isinstance(content, str) else content)
    return reader.record(final=True)


# --- real logs ---


def test_a_real_log_is_read_in_full(test_data: Path) -> None:
    folder = test_data / "mlperf-results/v0.7/NVIDIA/results/dgxa100_ngc20.06_pytorch/ssd"
    record = read(folder / "result_0.txt")
    assert (record.outcome, record.problems, record.ruleset) == ("success", (), "0.7.0")
    assert (record.benchmark, record.org, record.platform) == ("ssd", "NVIDIA", "1xNVIDIA DGX A100")
    assert (record.division, record.status, record.seeds) == ("closed", "onprem", (4267030341,))
    assert (record.ranks, record.accelerators, record.global_batch_size) == (8, 8, 912)
    assert (record.train_samples, record.eval_samples, record.lines, record.events) == (117266, 4952, 1085, 141)
    assert record.minutes == pytest.approx(10.21405, abs=1e-4)
    assert record.init_seconds == pytest.approx(36.651)
    assert [(each.epoch, each.accuracy) for each in record.evaluations] == [
        (40, 0.18160128391367117),
        (50, 0.23333818699997438),
    ]
    assert len(record.epochs) == 51 and record.epochs[-1].seconds is None
    assert record.epochs[0].seconds == pytest.approx(13.280)
    assert [(each.first_epoch, each.epoch_count) for each in record.blocks] == [(1, 40), (41, 10), (51, 5)]
    assert record.hyperparameters["opt_learning_rate_decay_boundary_epochs"] == [44, 55]


def test_a_newer_round_and_its_extra_keys(test_data: Path) -> None:
    folder = test_data / "mlperf-results/v1.1/NVIDIA/results/dgxa100_ngc21.09_mxnet/ssd"
    record = read(folder / "result_0.txt")
    assert (record.outcome, record.ruleset, record.ruleset_is_guess) == ("success", "1.1.0", True)
    assert (record.epochs_run, len(record.evaluations), len(record.tensors)) == (55, 11, 119)
    assert record.epochs[0].throughput == pytest.approx(11845.43)
    assert record.epochs[0].loss == pytest.approx(14.2004)


# --- dialects and prefixes ---


def test_ranks_and_colours_before_the_mark() -> None:
    lines = text(events()).splitlines()
    prefixed = "\n".join(f"[1,{index}]<stdout>:\x1b[32m {line}" for index, line in enumerate(lines))
    assert parsed(prefixed + "\n").outcome == "success"


def test_ruleset_0_6_lines() -> None:
    log = ""
    for each in events():
        content = json.dumps({"value": each["value"], "metadata": each["metadata"]})
        log += f":::MLL {each['time_ms'] / 1000:.3f} {each['key']}: {content}\n"
    record, new = parsed(log), parsed(text(events()))
    assert (record.dialect, record.ruleset, record.outcome) == ("0.6", "0.6.0", "success")
    assert record.minutes == pytest.approx(new.minutes)
    assert [each.accuracy for each in record.evaluations] == [0.16, 0.2301]


@pytest.mark.parametrize("mark", [":::MLPv0.5.0", ":::MLLv0.5.0"])
def test_round_0_5_lines(mark: str) -> None:
    record = parsed(
        f"{mark} ssd 1541786264.09 (train.py:411) run_start\n"
        f'{mark} ssd 1541787423.2 (train.py:219) eval_accuracy: {{"epoch": 47, "value": 0.2124}}\n'
        f'{mark} ssd 1541787464.09 (train.py:300) run_stop: {{"success": true}}\n'
    )
    assert (record.outcome, record.dialect, record.minutes, record.problems) == (
        "success",
        "0.5",
        pytest.approx(20),
        (),
    )
    assert (record.epochs_run, record.accuracy) == (47, 0.2124)
    assert (record.benchmark, record.ruleset) == ("ssd", "0.5.0")
    told = parsed(f'{mark} ssd 1.5 (t.py:1) run_start\n{mark} ssd 61.5 (t.py:1) run_stop: {{"success": "true"}}\n')
    assert (told.outcome, told.minutes) == ("success", 1)
    failed = parsed(f'{mark} ssd 1.5 (t.py:1) run_start\n{mark} ssd 61.5 (t.py:1) run_stop: {{"success": false}}\n')
    assert failed.outcome == "aborted"


def test_logs_without_epoch_lines_have_their_speed_from_blocks() -> None:
    log = [each for each in events() if not each["key"].startswith("epoch_")]
    start = next(each["time_ms"] for each in log if each["key"] == "run_start")
    log[-1:-1] = [
        event(start, "block_start", first_epoch_num=1, epoch_count=40),
        event(start + 400_000, "block_stop", first_epoch_num=1),
    ]
    assert parsed(text(log)).images_per_s == pytest.approx(117266 / 10)


def test_an_epoch_of_our_own_is_what_its_batches_hold() -> None:
    """What is left over is not trained on; others count all of the data set, as MLPerf does."""
    ours = {"configuration_sha256": "c" * 64}
    for own, images in (({}, 117266), (ours, 128 * 912), ({**ours, "steps_per_epoch": 129}, 117266)):
        record = parsed(text(events(own=own)))
        assert record.epoch_samples == images
        assert record.images_per_s == pytest.approx(images / (record.epoch_seconds or 0))
        assert by_rules.images_per_s(record, rules_for("ssd", "0.7.0")) == record.images_per_s
    for odd in (0, -912, 1_000_000):
        batch = changed(events(own=ours), "global_batch_size", lambda each, odd=odd: each.update(value=odd))  # type: ignore[misc]
        assert parsed(text(batch)).epoch_samples == 117266


def test_a_thousand_copies_of_every_line() -> None:
    content = "".join(line * 1024 for line in text(events(ranks=1), noise="").splitlines(keepends=True)[:40])
    record = parsed(content)
    assert (record.ranks, record.copies, record.accelerators) == (1, 1024, None)
    assert len(record.epochs) == len({each.number for each in record.epochs})


def test_evaluations_after_run_stop_do_not_count() -> None:
    """Some submitters' loops run on after the target is met, or was never met in time."""
    log = events(evaluations=((40, 0.1), (50, 0.2)))
    end = log[-1]["time_ms"]
    record = parsed(text([*log, event(end + 5_000, "eval_accuracy", 0.25, epoch_num=55)]))
    assert (record.outcome, record.epochs_run, record.accuracy, record.reached(0.23)) == ("success", 50, 0.2, False)
    assert len(record.evaluations) == 3


def test_submission_lines_without_a_time() -> None:
    """Some append them with a stamp of 0."""
    log = events()
    for each in log[:5]:
        each["time_ms"] = 0
    record = parsed(text([*log[5:], *log[:5]]))
    assert (record.outcome, record.problems) == ("success", ())


def test_the_round_is_told_by_keys_and_date() -> None:
    log = [*events(ruleset="1.0.0"), event(1_592_669_905_000, "weights_initialization", None, tensor="a")]
    assert parsed(text(log)).ruleset == "1.0.0"
    for each in log:
        each["time_ms"] += 40_000_000_000  # to September 2021
    assert parsed(text(log)).ruleset == "1.1.0"


@pytest.mark.parametrize("stamp", [253_402_300_800_000, 999_999_999_999_999])
def test_a_stamp_that_no_calendar_has_is_no_time(stamp: int) -> None:
    """The year 10000 and later: every verb that shows a date ended over it, for all logs."""
    log = events()
    for each in log:
        each["time_ms"] += stamp - log[0]["time_ms"] if each is not log[0] else 0
    record = parsed(text([log[0], *changed(log[1:], "seed", lambda e: e.update(time_ms=stamp))]))
    assert (record.run_start_s, record.outcome) == (None, "unfinished") and record.malformed_count > 0
    old = parsed(f":::MLL {stamp // 1000}.000 run_start: {{}}\n:::MLPv0.5.0 ssd {stamp // 1000}.5 (a.py:1) run_stop\n")
    assert (old.run_start_s, old.run_stop_s, old.malformed_count) == (None, None, 2)


def test_one_rank_does_not_say_how_many_accelerators() -> None:
    log = events(ranks=1)
    assert parsed(text(log)).accelerators is None
    log[10:10] = [event(1_592_669_905_000, "d_batch_size", 114)]
    assert parsed(text(log)).accelerators == 8


# --- no wrong success ---


@pytest.mark.parametrize(
    ("spoil", "outcome", "reason"),
    [
        (lambda log: without(log, "run_start"), "invalid", "without run_start"),
        (lambda log: without(log, "run_stop"), "unfinished", "no run_stop"),
        (lambda log: [log[-1], *log[:-1]], "invalid", "after run_stop"),
        (lambda log: changed(log, "run_stop", lambda e: e["metadata"].pop("status")), "invalid", "no metadata.status"),
        (
            lambda log: changed(log, "run_stop", lambda e: e["metadata"].update(status="aborted", reason="nan")),
            "aborted",
            "nan",
        ),
        (lambda log: changed(log, "run_stop", lambda e: e["metadata"].update(status="Success")), "aborted", "Success"),
        (
            lambda log: changed(log, "run_stop", lambda e: e.update(time_ms=1_592_000_000_000)),
            "invalid",
            "stamped before",
        ),
        (lambda log: [*log, *log], "invalid", "more than one run"),
        (lambda log: [*log, event(log[-1]["time_ms"], "run_stop", status="aborted")], "aborted", "aborted"),
        (lambda log: [], "empty", "no line"),
    ],
)
def test_what_is_no_success(spoil, outcome: str, reason: str) -> None:  # type: ignore[no-untyped-def]
    record = parsed(text(spoil(events())))
    assert record.outcome == outcome
    assert reason in record.reason


@settings(deadline=None)
@given(st.binary(max_size=3_000))
def test_any_bytes(content: bytes) -> None:
    assert parsed(content).outcome == "empty" or b":::ML" in content


_PIECES = st.one_of(
    st.sampled_from(
        [each.encode() for each in text(events(evaluations=((40, 0.2), (50, 0.24)))).splitlines(keepends=True)]
    ),
    st.sampled_from(
        [
            b":::MLLOG ",
            b":::MLL 1.5 run_stop: ",
            b":::MLPv0.5.0 ",
            b"\n",
            b"{",
            b"}",
            b"NaN",
            b"1e999",
            b"\xff\xfe",
            b"\x00",
        ]
    ),
    st.sampled_from([b'"\\ud800"', b"[" * 2000, b'{"key": "run_stop", "time_ms": 1e400}', b'"status": "success"']),
    st.binary(max_size=40),
)


@settings(deadline=None)
@example(pieces=[b"\xff\xfe"], size=1)
@given(st.lists(_PIECES, max_size=60), st.integers(1, 400))
def test_torn_logs_never_crash_and_never_make_a_success(pieces: list[bytes], size: int) -> None:
    content = b"".join(pieces)
    record = parsed(content)
    if record.outcome == "success":  # then its own lines say so, read by other means
        starts = [m.start() for m in re.finditer(rb'"?run_start"?', content)]
        stops = [m.start() for m in re.finditer(rb'"?run_stop"?[^\n]*success', content)]
        assert starts and stops and min(starts) < max(stops)
        assert record.minutes is not None and record.minutes >= 0
    json.dumps([each.text for each in record.problems], allow_nan=False).encode()
    json.dumps({key: each.value for key, each in record.entries.items()}, allow_nan=False).encode()
    # the same record however the bytes arrive
    reader = LogReader()
    for at in range(0, len(content), size):
        reader.feed(content[at : at + size])
    assert reader.record(final=True) == record


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
_EVENTS = st.builds(event, st.integers(0, 10**13), st.text("abc_", min_size=1, max_size=6), _VALUES)


@settings(deadline=None)
@given(st.lists(_EVENTS, max_size=6), st.text("ab: {}\n", max_size=20))
def test_what_is_read_is_what_mlperfs_parser_reads(log: list[Event], noise: str) -> None:
    from mlperf_logging.compliance_checker.mlp_parser import ruleset_070

    content = "".join(f"{noise}\n3: :::MLLOG {json.dumps(each)}\n" for each in log)
    theirs, failed = ruleset_070.parse_generator(content.splitlines(keepends=True))
    found = list(Scanner().feed(content.encode()))
    assert failed == []
    assert [(each.key, each.time_ms, each.value) for each in found] == [
        (each.key, each.timestamp, each.value["value"]) for each in theirs
    ]


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.integers(0, 6_000), st.integers(-200, 0)))
def test_a_log_cut_anywhere_is_a_success_only_when_whole(cut: int) -> None:
    content = text(events(evaluations=((1, 0.1), (2, 0.24)))).encode()
    end = content.rindex(b"}") + 1
    cut = cut if cut > 0 else len(content) + cut
    record = parsed(content[:cut])
    assert (record.outcome == "success") == (cut >= end)


def stop(status: str = "aborted") -> str:
    return text([event(events()[-1]["time_ms"] + 1, "run_stop", status=status)], noise="")


@pytest.mark.parametrize(
    "added",
    [
        stop()[:-25],  # torn within it
        stop()[:30],  # torn before its key
        stop().replace(":::MLLOG", ":::mllog"),
        stop().replace("aborted", "aborted" + "x" * LINE_LIMIT),
        stop().replace('"status": "aborted"', '"status": "aborted", "status": "success"'),
        stop().replace('"run_stop"', '"key\\u0000", "key": "run_stop"'),
        ":::MLLOG " * 3_000 + stop(),
        ":::MLLOG " + "[" * 100_000 + "\n",
        ":::MLLOG {" + "1" * 5_000 + "\n",
    ],
)
def test_what_cannot_be_read_and_may_be_an_end_makes_no_success(added: str) -> None:
    record = parsed(text(events()) + added + "\n")
    assert record.outcome == "invalid", record.outcome
    assert "cannot be read and may be a run_stop" in record.reason


def test_what_cannot_be_read_and_is_no_end_leaves_the_success() -> None:
    torn = text([event(events()[-1]["time_ms"], "throughput", 1.0, epoch_num=50)], noise="")[:-20]
    record = parsed(text(events()) + torn + "\n")
    assert (record.outcome, record.malformed_count) == ("success", 1)


@pytest.mark.parametrize("end", ["\r", "\r\n", "\f", "\v", "\u2028"])
def test_other_ends_of_lines(end: str) -> None:
    """The order of what one line holds counts, and MLPerf's parser takes CR for an end of line."""
    record = parsed(text(events(), noise="").replace("\n", end))
    assert (record.outcome, record.accuracy, record.epochs_run) == ("success", 0.2301, 50), record.reason
    assert (record.problems == ()) == (end[0] == "\r")


def test_a_clock_that_was_set_during_the_run() -> None:
    log = changed(events(), "run_stop", lambda e: e["metadata"].update(monotonic_s=3.8))
    record = parsed(text(log))
    assert record.clock_was_set and record.monotonic_s == 3.8
    took = (record.run_ms or 0) / 1000
    for near in (took - 0.05, took * 1.0005):
        changed(log, "run_stop", lambda e, near=near: e["metadata"].update(monotonic_s=near))
        assert not parsed(text(log)).clock_was_set


def test_minutes_are_never_negative() -> None:
    record = parsed(text(changed(events(), "run_stop", lambda e: e.update(time_ms=1_592_000_000_000))))
    assert (record.outcome, record.minutes, record.run_ms) == ("invalid", None, None)


@pytest.mark.parametrize("part", ["init", "epoch", "block", "eval"])
def test_what_is_stamped_to_stop_before_it_starts_has_no_seconds(part: str) -> None:
    log = events()
    if part == "block":
        at = next(n for n, each in enumerate(log) if each["key"] == "epoch_start")
        log.insert(at, event(log[at]["time_ms"], "block_start", first_epoch_num=1, epoch_count=3))
        log.insert(at + 7, event(log[at + 6]["time_ms"], "block_stop", first_epoch_num=1))
    record = parsed(text(changed(log, f"{part}_stop", lambda e: e.update(time_ms=e["time_ms"] - 60_000))))
    parts = {"epoch": record.epochs, "block": record.blocks, "eval": record.evaluations}
    first = record.init_seconds if part == "init" else parts[part][0].seconds
    assert first is None
    assert all(each.seconds is None or each.seconds > 0 for several in parts.values() for each in several)
    named = {"init": "", "epoch": "epoch 1", "block": "the block in line ", "eval": "the evaluation in line "}
    assert record.backwards.startswith(named[part]) and bool(record.backwards) == (part != "init")


def test_every_line_twice() -> None:
    lines = text(events(), noise="").splitlines(keepends=True)
    for doubled in (
        "".join(line * 2 for line in lines),
        "".join([*lines[:30], *lines[:30]]) + "".join(line * 2 for line in lines[30:]),
    ):
        record = parsed(doubled)
        assert (record.ranks, record.copies, record.accelerators) == (8, 2, 8)
    assert parsed(text(events())).copies == 1


def test_many_malformed_lines_and_marks_are_read_in_linear_time() -> None:
    """Each of these took minutes where the work grew with the square of their length."""
    for content in (
        ":::MLLOG" * 130_000,
        ":::MLx" * 40_000,
        ":::MLLOG {" * 26_000,
        "<" * 200_000,
        ":::MLLOG {\n" * 100_000,
    ):
        assert parsed(text(events()) + content + "\n").events == parsed(text(events())).events


# --- what cannot be read is told, with its line ---


def test_problems_have_their_lines() -> None:
    good = text(events(), noise="").splitlines()
    good[3] = good[3][:-5]  # torn
    good[6] += "  12%|#2   | 3/25"  # a progress bar on the same line
    good[8] = ":::MLLOG [1, 2]"
    good[9] = ':::MLLOG {"key": "seed", "time_ms": "soon"}'
    good[10] = good[10] + good[11]
    record = parsed("\n".join(good) + "\n")
    assert [(each.line, each.kind) for each in record.problems] == [
        (4, "malformed"),
        (7, "trailing"),
        (9, "malformed"),
        (10, "malformed"),
        (11, "trailing"),
    ]
    assert record.malformed_count == 3
    progress, another = (each.text for each in record.problems if each.kind == "trailing")
    assert progress == "text after the record, which MLPerf's parser rejects: 12%|#2   | 3/25"
    assert another == "another record after this one: MLPerf's parser takes the last of a line alone", (
        "it rejects nothing"
    )


def test_half_a_line_at_the_end() -> None:
    content = text(events())
    record = parsed(content + ':::MLLOG {"namespace": "", "ti')
    assert (record.outcome, [each.kind for each in record.problems]) == ("invalid", ["partial"]), "it may be a run_stop"
    named = parsed(content + ':::MLLOG {"key": "data_fingerprint", "val')
    assert (named.outcome, [each.kind for each in named.problems]) == ("success", ["partial"])
    assert parsed(content + "half a line of no log").problems == ()
    whole_but_for_its_newline = parsed(content.rstrip("\n"))
    assert (whole_but_for_its_newline.outcome, whole_but_for_its_newline.problems) == ("success", ())


def test_numbers_that_json_does_not_have() -> None:
    log = text(changed(events(), "eval_accuracy", lambda e: e.update(value=float("nan"))))
    record = parsed(log)
    assert "NaN" in log
    assert [each.accuracy for each in record.evaluations] == [None, 0.2301]


def test_time_that_runs_backwards() -> None:
    record = parsed(text(changed(events(), "run_start", lambda e: e.update(time_ms=1_592_600_000_000))))
    assert [(each.kind, "run_start" in each.text) for each in record.problems] == [("order", True)]


def set_back(since: str, by_ms: int = 3_600_000) -> list[Event]:
    """A log whose clock is set back when the first line of this key is written."""
    log = events()
    first = next(index for index, each in enumerate(log) if each["key"] == since)
    return [{**each, "time_ms": each["time_ms"] - by_ms * (index >= first)} for index, each in enumerate(log)]


@pytest.mark.parametrize(("since", "kind"), [("init_stop", "order in init"), ("epoch_start", "order")])
def test_a_clock_that_is_set_back_is_said_once(since: str, kind: str) -> None:
    """It was of each later line: 505 errors; and before the run, whose time is right, no error at all."""
    record = parsed(text(set_back(since)))
    assert [(each.kind, each.text.split()[0]) for each in record.problems] == [(kind, since)]
    assert (record.outcome == "success") == (kind == "order in init")


def test_a_run_start_that_is_stamped_late_is_said_once() -> None:
    (began,) = (each["time_ms"] for each in events() if each["key"] == "run_start")
    for late_ms in (1_500, 30_000):
        record = parsed(text(changed(events(), "run_start", lambda e, at=began + late_ms: e.update(time_ms=at))))
        assert [each.kind for each in record.problems] == ["order"], late_ms


def test_a_run_start_moved_behind_the_first_epoch_is_no_clock_set_in_init() -> None:
    log = events()
    start = next(each for each in log if each["key"] == "run_start")
    stop = next(index for index, each in enumerate(log) if each["key"] == "epoch_stop")
    log.remove(start)
    log.insert(stop, start)
    assert [each.kind for each in parsed(text(log)).problems] == ["order"]


def test_a_clock_that_was_set_in_init_does_not_stretch_it() -> None:
    told = {"monotonic_s": 9.5, "wall_ahead_s": 3600.0}
    record = parsed(text(changed(events(), "init_stop", lambda e: e["metadata"].update(told))))
    assert (record.init_seconds, record.init_ahead_s, record.clock_was_set) == (9.5, 3600.0, "")
    assert parsed(text(events())).init_ahead_s == 0


def test_a_clock_that_was_set_and_set_right_again() -> None:
    log = events()
    took_s = (parsed(text(log)).run_ms or 0) / 1000
    changed(log, "run_stop", lambda e: e["metadata"].update(monotonic_s=took_s, wall_ahead_s=-0.9))
    assert "-0.900 s" in parsed(text(log)).clock_was_set
    changed(log, "run_stop", lambda e: e["metadata"].update(monotonic_s=took_s, wall_ahead_s=0.0009 * took_s))
    assert not parsed(text(log)).clock_was_set, "as much as drift may be"


def test_an_accuracy_in_percent_reaches_nothing() -> None:
    record = parsed(text(events(evaluations=((40, 20.0), (50, 23.5)))))
    assert not record.reached(0.23)


# --- our own keys ---


def test_own_keys() -> None:
    own = {
        "configuration_name": "DGXA100_1x8x114",
        "configuration": {"run": {"ruleset": "1.0.0", "nodes": 2, "accelerators_per_node": 8}},
        "configuration_sha256": "ab" * 32,
        "software": {"torch": "2.14.1", "driver": "none"},
        "hardware": {"accelerators": ["NVIDIA A100"]},
        "commit": "unknown",
        "tree_dirty": False,
        "precision": "bf16",
        "demonstration": True,
        "quality_target": 0.4,
        "resumed_from_epoch": 3,
    }
    log = events(own=own)
    log[-1:-1] = [event(log[-1]["time_ms"], "data_wait_share", 0.25, epoch_num=2)]
    record = parsed(text(log))
    assert (record.ruleset, record.ruleset_is_guess, record.accelerators) == ("1.0.0", False, 16)
    assert (record.configuration_name, record.configuration_sha256) == ("DGXA100_1x8x114", "ab" * 32)
    assert (record.software["torch"], record.hardware["accelerators"]) == ("2.14.1", ["NVIDIA A100"])
    assert (record.commit, record.tree_dirty, record.precision, record.demonstration) == (
        "unknown",
        False,
        "bf16",
        True,
    )
    assert (record.quality_target, record.resumed_from_epoch, record.epochs[1].data_wait_share) == (0.4, 3, 0.25)


# --- bounds ---


def test_memory_is_bounded_by_what_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "result_0.txt"
    log = text(events())
    with path.open("w") as file:
        file.write(log[: len(log) // 2].rsplit("\n", 1)[0] + "\n")
        noise = "".join(f"{index}: loss 3.14159\n" for index in range(50_000))
        for _ in range(40):  # about 40 MB, two million lines
            file.write(noise)
        file.write("no end of line " * 400_000)
    tracemalloc.start()
    record = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert record.lines > 2_000_000
    assert peak < 12 << 20


def test_what_is_kept_is_bounded() -> None:
    time_ms = 1_592_669_895_000
    many = [event(time_ms, "epoch_start", epoch_num=number) for number in range(KEEP_LIMIT + 50)]
    many += [event(time_ms, f"key_{number}") for number in range(KEY_LIMIT + 50)]
    content = text(many, noise="") + ":::MLLOG {\n" * (PROBLEM_LIMIT + 50)
    content += ":::MLLOG " + "x" * (LINE_LIMIT + 10) + "\n" + text([event(time_ms, "run_start")], noise="")
    record = parsed(content)
    assert len(record.epochs) == KEEP_LIMIT
    assert len(record.problems) == PROBLEM_LIMIT
    assert record.problem_count == PROBLEM_LIMIT + 50 + 3
    assert {"limit"} <= {each.kind for each in record.problems}
    assert record.run_start_s is not None


def test_a_last_line_counts_as_soon_as_it_is_whole() -> None:
    """`status --follow` waited for ever for the end of a finished log's last line, which score counted."""
    content, reader = text(events()).encode(), LogReader()
    told = []
    for piece in (content[:-20], content[-20:-1], b"\n"):
        reader.feed(piece)
        record = reader.record(final=False)
        told.append((record.outcome, record.problem_count))
    assert told == [("unfinished", 0), ("success", 0), ("success", 0)]
    once = parsed(content.decode())
    assert (record.events, record.lines, record.run_ms) == (once.events, once.lines, once.run_ms)


def test_a_growing_log_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "result_0.txt", events())
    content, reader = path.read_bytes(), LogReader()
    states = []
    for at in range(0, len(content), 3_000):
        reader.feed(content[at : at + 3_000])
        states.append(reader.record(final=False).outcome)
    assert set(states[:-1]) <= {"empty", "unfinished"}
    assert states[-1] == "success"
    assert reader.record(final=True).sha256 == read(path).sha256
