"""A request says itself again: by argv, by environment, to ranks, trials and containers."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import UnionType
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.main import get_command

from harness import cli, options, request
from harness.cli import environment
from harness.request import Engine, Reach, Request

WORD = st.text("aZ09 _.,:=+-äß天'\"$", min_size=1, max_size=12).filter(
    lambda text: text[0] not in "-" and text.strip() == text
)
VALUES: dict[type, st.SearchStrategy[Any]] = {
    str: WORD,
    Path: WORD.map(Path),
    int: st.integers(1, request.MOST_TRIALS),
    float: st.floats(0, allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    Engine: st.sampled_from(Engine),
}


SOME: dict[type, Any] = {str: "x", Path: Path("x"), int: 7, float: 0.25, bool: True, Engine: Engine.DOCKER}


def kind_of(option: Any) -> type:
    kind, *_ = typing.get_args(option.annotation)
    kinds = typing.get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return next(each for each in kinds if each is not type(None))  # type: ignore[no-any-return]


def strategy(option: Any) -> st.SearchStrategy[Any]:
    return st.just(option.default) | VALUES[kind_of(option)]


REQUESTS = st.fixed_dictionaries({option.name: strategy(option) for option in request.FIELDS}).map(
    lambda values: Request(**values)
)


def parsed(*words: str) -> tuple[Request, frozenset[str]]:
    found = []

    def run(asked: Request, named: frozenset[str]) -> None:
        found.append((asked, named))

    app = typer.Typer(add_completion=False)
    app.command()(options.verb(Request, run))
    app(args=list(words), standalone_mode=False)
    return found[0]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    def only(variables: dict[str, str]) -> None:
        for name in request.VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    only({})
    return only


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=REQUESTS)
def test_every_request_comes_back_by_argv_and_by_environment(bare: Any, asked: Request) -> None:
    bare({})
    verb, *words = asked.argv()
    assert verb == "run"
    found, named = parsed(*words)
    assert found == asked
    assert named == {option.name for option in request.FIELDS if getattr(asked, option.name) != option.default}
    bare(asked.environment())
    assert parsed() == (asked, frozenset())


def test_every_option_of_run_is_a_field_and_every_field_an_option() -> None:
    run = get_command(cli.build()).commands["run"]  # type: ignore[attr-defined]
    there = {each.name for each in run.params} - {"help"}
    assert there == {field.name for field in dataclasses.fields(Request)}
    assert {each.envvar for each in run.params if each.name != "help"} == set(request.VARIABLES)


def test_the_command_line_wins_over_the_environment(bare: Any) -> None:
    bare({"SEED": "1", "HARNESS_MAX_STEPS": "5", "CLEAR_CACHES": "0"})
    found, named = parsed("--seed", "2")
    assert (found.seed, found.max_steps, found.clear_caches, named) == (2, 5, False, {"seed"})


def test_published_recipes_name_the_weights_otherwise(bare: Any) -> None:
    assert parsed("--backbone-path", "x.pth") == parsed("--initial-weights", "x.pth")


# By their kinds alone, so that a new option is tried without a line here
FULL = dataclasses.replace(
    Request(**{option.name: SOME[kind_of(option)] for option in request.FIELDS}),
    data_dir=Path("data"),
    initial_weights=Path("w/r34.pth"),
    cache_dir=Path("cache"),
)


def test_ranks_trials_and_containers_are_told_what_is_theirs(tmp_path: Path) -> None:
    assert all(getattr(FULL, option.name) != option.default for option in request.FIELDS), "a full request has all"

    def told(asked: Request) -> set[str]:
        return {option.name for option in request.FIELDS if getattr(asked, option.name) != option.default}

    by_reach = {reach: {option.name for option in request.FIELDS if option.note(Reach) is reach} for reach in Reach}
    ranks = FULL.of_ranks(8)
    assert told(ranks) == by_reach[Reach.ALL] | by_reach[Reach.ONE] - {"number"}
    assert ranks.seed == 8
    trial = FULL.of_trial(2, tmp_path, 9)
    assert told(trial) == by_reach[Reach.ALL] | {"number"}
    assert (trial.number, trial.out, trial.seed, trial.data_dir) == (2, tmp_path, 9, Path.cwd() / "data")
    inside, mounts = trial.inside(PurePosixPath("/c/toy.toml"), PurePosixPath("/results"))
    assert told(inside) == by_reach[Reach.ALL] | {"number"}
    assert {path: (seen.of(path), seen.writable) for path, seen in mounts} == {
        Path.cwd() / "data": (PurePosixPath("/data"), False),
        Path.cwd() / "w/r34.pth": (PurePosixPath("/weights/r34.pth"), False),
        Path.cwd() / "cache": (PurePosixPath("/cache"), True),
    }
    assert (inside.data_dir, inside.initial_weights) == (Path("/data"), Path("/weights/r34.pth"))
    assert not [word for word in inside.argv() if str(Path.cwd()) in word], "no path of the host is left"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--watchdog", "5"), "--watchdog has no effect without --trials, --image or --engine"),
        (("--system", "x"), "--system has no effect without --trials, --image or --engine"),
        (("--no-clear-caches",), "--no-clear-caches has no effect without --trials, --image or --engine"),
        (("--clear-caches",), "--clear-caches has no effect without --trials, --image or --engine"),
        (("--trials", "2", "--gpus", "0"), "--gpus has no effect without --image"),
        (("--shm-size", "8g"), "--shm-size has no effect without --image"),
        (("--engine", "process", "--gpus", "0"), "--gpus is for --engine docker, not for process"),
        (
            ("--engine", "process", "--image", "x"),
            "--image is for --engine docker or kubernetes or slurm, not for process",
        ),
        (("--engine", "slurm", "--gpus", "0"), "--gpus is for --engine docker, not for slurm"),
        (("--trials", "2", "--slurm-options", "-p x"), "--slurm-options is for --engine slurm, not for process"),
        (("--engine", "docker"), "--engine docker needs --image"),
        (("--engine", "kubernetes"), "--engine kubernetes needs --image"),
        (
            ("--engine", "kubernetes", "--image", "x", "--clear-caches"),
            "--clear-caches is for --engine docker or process or",
        ),
        (
            ("--engine", "kubernetes", "--image", "x", "--cache-dir", "y"),
            "--cache-dir is for --engine docker or process or",
        ),
        (("--image", "x", "--data-claim", "coco"), "--data-claim is for --engine kubernetes, not for docker"),
        (("--trials", "2", "--number", "1"), "--number is for a single run"),
        (("--trials", "2", "--checkpoint-dir", "x"), "--checkpoint-dir is for a single run"),
        (("--resume",), "--resume goes on with a series: say --trials, --image or --engine too"),
        (("--from-checkpoint",), "--from-checkpoint needs --checkpoint-dir"),
    ],
)
def test_what_has_no_effect_is_refused_by_name(bare: Any, words: tuple[str, ...], said: str) -> None:
    asked, named = parsed(*words)
    with pytest.raises(typer.BadParameter, match=said):
        asked.as_meant(named)


def test_what_a_shell_says_to_every_run_is_left_out_with_a_word(bare: Any) -> None:
    bare({"CLEAR_CACHES": "0", "HARNESS_GPUS": "1"})
    asked, left_out = parsed()[0].as_meant(frozenset())
    assert asked == Request()
    assert left_out == [
        "the environment variable CLEAR_CACHES is not read here: it has no effect without --trials, --image or --engine",
        "the environment variable HARNESS_GPUS is not read here: it has no effect without --image",
    ]


def test_resume_means_the_series_and_its_old_meaning_is_understood_where_it_can_mean_nothing_else(bare: Any) -> None:
    asked, named = parsed("--resume", "--trials", "3")
    assert asked.as_meant(named)[0] == Request(trials=3, resume=True)
    asked, named = parsed("--resume", "--checkpoint-dir", "x")
    assert asked.as_meant(named)[0] == Request(checkpoint_dir=Path("x"), from_checkpoint=True)


def test_children_inherit_nothing_that_asks_for_something() -> None:
    asks = dict.fromkeys((*request.VARIABLES, *request.RANK), "x")
    assert environment.of_children({**asks, "PATH": os.environ["PATH"]}) == {"PATH": os.environ["PATH"]}
