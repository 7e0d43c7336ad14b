"""The files of a package that tell reviewers how one system ran: README, three scripts, and the implementation's data sheet."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.names import plain
from harness.names import result as result_name
from harness.results.checking.kept import Opinion
from harness.results.record import RunRecord
from harness.results.score import four_decimals, minutes_of, score
from harness.results.series import Series

README = "README.md"

_SHELL = """#!/usr/bin/env bash
# {purpose}
set -euo pipefail
script=$(readlink -f -- "${{BASH_SOURCE[0]}}")
for each in DATADIR LOGDIR HARNESS_INITIAL_WEIGHTS; do # as they are meant here, and not among the sources
    [[ ${{!each:-/}} == /* ]] || export "$each=$PWD/${{!each}}"
done
cd "${{script%/*}}/../{implementation}"
{command}
"""

# The one such file, as `prepare` leaves it beside the data; --backbone-path is what published recipes call the option
_WEIGHTS = """if [[ -z ${HARNESS_INITIAL_WEIGHTS:-} && " $*" != *" --initial-weights"* && " $*" != *" --backbone-path"* ]]; then
    files=()
    [[ -z ${DATADIR:-} ]] || files=("$DATADIR"/*.pth)
    if [[ ${#files[@]} == 1 && -f ${files[0]} ]]; then
        set -- --initial-weights "${files[0]}" "$@"
    else
        echo "the run needs --initial-weights FILE: DATADIR names no folder with one file *.pth in it" >&2
    fi
fi
"""


def system_files(series: Series, system: str, sources: Path, ruleset: str) -> dict[str, str]:
    """By name: README.md, setup.sh, init_datasets.sh, run_and_time.sh, and the configuration."""
    record, implementation = series.first, sources.name
    arguments = "".join(f"--build-arg {shlex.quote(each)} " for each in build_arguments(record, sources) or ())
    benchmark = record.configuration.get("benchmark")
    of_benchmark = f"--benchmark {shlex.quote(benchmark)} " if isinstance(benchmark, str) else ""
    configuration = record.configuration_name or ""
    files = {}
    if (
        record.configuration
    ):  # as it was resolved, with --target and the like: its own file may lie anywhere, and say otherwise
        name = f"{plain(configuration or system)}.toml"
        files[name] = toml(record.configuration)
        configuration = f"../{system}/{name}"
    run = (
        f'exec ./run_and_time.sh {shlex.quote(configuration)} "$@"' if configuration else 'exec ./run_and_time.sh "$@"'
    )
    scripts = {
        "setup.sh": (
            "Once: the container image. Without Docker run_and_time.sh makes its own virtual environment.",
            f'docker build -t {shlex.quote(str(record.benchmark))} {arguments}"$@" .',
        ),
        "init_datasets.sh": (
            "Once: the data set and the initial weights, downloaded and verified. DATADIR names their folder.",
            ". ./requirements/set_up.sh\n"
            'set_up "$(lock_of_environment)"\n'
            f'exec "$python" -m harness prepare {of_benchmark}--data-dir "${{DATADIR:?name the folder of the data}}" "$@"',
        ),
        "run_and_time.sh": (
            "One timed run. Its options are passed on: see ./run_and_time.sh --help",
            (_WEIGHTS if _initial_weights(record) else "") + run,
        ),
    }
    files |= {
        name: _SHELL.format(purpose=purpose, implementation=implementation, command=command)
        for name, (purpose, command) in scripts.items()
    }
    return {README: readme(series, system, sources, ruleset), **files}


def build_arguments(record: RunRecord, sources: Path) -> list[str] | None:
    """Of the Dockerfile, for the image that ran, by the lock that it was built of; None where the log does not tell it."""
    said, base = record.image.get("lock_sha256"), record.image.get("base_image")
    locks = (sources / "requirements").glob("*.lock")
    lock = next((path.name for path in locks if hashlib.sha256(path.read_bytes()).hexdigest() == said), "")
    if lock == "run.lock":
        return [f"ACCELERATOR={'cuda13' if record.hardware.get('accelerators') else 'cpu'}"]
    if lock == "cuda12.lock":
        return ["ACCELERATOR=cuda12"]
    if lock == "vendor.lock" and isinstance(base, str):
        return ["ACCELERATOR=vendor", f"BASE_IMAGE={base}"]
    return None


def toml(table: Mapping[str, Any]) -> str:
    """A configuration as a file, without the keys that have no value."""
    return "\n".join(["# As it was in force, defaults included", *_toml_lines(table, ())]) + "\n"


def _toml_lines(table: Mapping[str, Any], at: tuple[str, ...]) -> Iterator[str]:
    yield from (
        f"{_key(key)} = {_toml(value)}" for key, value in table.items() if not isinstance(value, Mapping | None)
    )
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from ("", f"[{'.'.join(map(_key, (*at, key)))}]")
            yield from _toml_lines(value, (*at, key))


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(key)} = {_toml(each)}' for key, each in value.items() if each is not None)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace(
        "\x7f", "\\u007f"
    )  # numbers, texts and truth are written alike


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)


def implementation_json(record: RunRecord) -> dict[str, str]:
    """Weights and data types, in the words of the v0.7 submission rules."""
    unnamed = "not logged" if _initial_weights(record) else "none"
    return {
        "Starting weights filename?": record.text("initial_weights") or unnamed,
        "Weight transformations?": "none",
        "Weight data type(s)": f"fp32 master weights, computed in {record.precision or 'fp32'}",
        "Input data type(s)": record.precision or "fp32",
        "Retraining": "no",
    }


def _initial_weights(record: RunRecord) -> bool:
    """Whether training began with those of a file."""
    model = record.configuration.get("model")
    return isinstance(model, dict) and model.get("initial_weights") == "imagenet"


def readme(series: Series, system: str, sources: Path, ruleset: str, opinion: Opinion | None = None) -> str:
    """`opinion`: what MLPerf's tools say of the series, once they were asked."""
    record, result = series.first, score(series, ruleset, opinion)
    minutes = "no score" if result.exact_minutes is None else f"{four_decimals(result.exact_minutes)} minutes"
    scaled = (
        ""
        if result.factor == 1
        else f", multiplied by {result.factor:.4f} as they converged sooner than the reference's"
    )
    runs = "\n".join(
        f"| {result_name(index)} | {'-' if each.run_ms is None else minutes_of(each)} "
        f"| {'-' if each.epochs_run is None else f'{each.epochs_run:g}'} "
        f"| {'-' if each.accuracy is None else f'{each.accuracy:.4f}'} | {', '.join(map(str, each.seeds))} | {each.sha256} |"
        for index, each in enumerate(series.records)
    )
    untold = (
        ""
        if build_arguments(record, sources) is not None
        else "\nThe log does not tell which image ran: give setup.sh `--build-arg ACCELERATOR=...` where it is another than\n"
        "the Dockerfile's default.\n"
    )
    weights = (
        "\nInitial weights are the one file *.pth in DATADIR; where there are more, name theirs with --initial-weights FILE.\n"
        if _initial_weights(record)
        else ""
    )
    return f"""# {record.platform}: {record.benchmark}, ruleset {ruleset}

Score: {minutes} (mean of the runs without the fastest and the slowest{scaled}) on {result.accelerators} accelerators, global
batch {record.global_batch_size}.

## Steps to run

    ./setup.sh                                  # once: builds the image
    DATADIR=/data ./init_datasets.sh            # once: downloads and verifies the data
    DATADIR=/data ./run_and_time.sh             # one timed run
{weights}{untold}
The source is in ../{sources.name}, its README says more: preprocessing, traversal order, model, initialization, optimizer,
evaluation. This system is described in systems/{system}.json.

## Runs

| log | minutes | epochs | {result.metric} | seed | SHA-256 |
|---|---|---|---|---|---|
{runs}

## What ran

- commit {record.commit or "not logged"}, configuration {record.configuration_name or "not logged"}
  (SHA-256 {record.configuration_sha256 or "not logged"})
- precision {record.precision or "not logged"}, data fingerprint {record.data_fingerprint or "not logged"}
- hyperparameters: `{json.dumps(record.hyperparameters)}`
- software: `{json.dumps(_plain(record.software))}`
- image: `{json.dumps(_plain(record.image))}`
"""


def _plain(table: Any) -> dict[str, Any]:
    return {str(key): value for key, value in dict(table).items()}
