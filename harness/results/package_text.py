"""The files of a package that tell reviewers how one system ran: README, three scripts, and the implementation's data sheet."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from harness.names import plain
from harness.names import result as result_name
from harness.results.checking.kept import Opinion
from harness.results.record import RunRecord
from harness.results.score import four_decimals, score
from harness.results.series import Series

README = "README.md"

_SHELL = """#!/usr/bin/env bash
# {purpose}
set -euo pipefail
script=$(readlink -f -- "${{BASH_SOURCE[0]}}")
cd "${{script%/*}}/../{implementation}"
{command}
"""


def system_files(series: Series, system: str, implementation: str, ruleset: str) -> dict[str, str]:
    """By name: README.md, setup.sh, init_datasets.sh, run_and_time.sh, and the configuration."""
    record = series.first
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
            f"docker build -t {shlex.quote(str(record.benchmark))} .",
        ),
        "init_datasets.sh": (
            "Once: the data set and the initial weights, downloaded and verified. DATADIR names their folder.",
            ". ./requirements/set_up.sh\n"
            "set_up requirements/run.lock\n"
            'exec "$python" -m harness prepare --data-dir "${DATADIR:?name the folder of the data}" "$@"',
        ),
        "run_and_time.sh": ("One timed run. Its options are passed on: see ./run_and_time.sh --help", run),
    }
    files |= {
        name: _SHELL.format(purpose=purpose, implementation=implementation, command=command)
        for name, (purpose, command) in scripts.items()
    }
    return {README: readme(series, system, implementation, ruleset), **files}


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
    model = record.configuration.get("model")
    weights = model.get("initial_weights") if isinstance(model, dict) else None
    return {
        "Starting weights filename?": str(weights or "none"),
        "Weight transformations?": "none",
        "Weight data type(s)": f"fp32 master weights, computed in {record.precision or 'fp32'}",
        "Input data type(s)": record.precision or "fp32",
        "Retraining": "no",
    }


def readme(series: Series, system: str, implementation: str, ruleset: str, opinion: Opinion | None = None) -> str:
    """`opinion`: what MLPerf's tools say of the series, once they were asked."""
    record, result = series.first, score(series, ruleset, opinion)
    minutes = "no score" if result.exact_minutes is None else f"{four_decimals(result.exact_minutes)} minutes"
    scaled = (
        ""
        if result.factor == 1
        else f", multiplied by {result.factor:.4f} as they converged sooner than the reference's"
    )
    runs = "\n".join(
        f"| {result_name(index)} | {'-' if each.run_ms is None else four_decimals(each.run_ms / 60_000)} "
        f"| {'-' if each.epochs_run is None else f'{each.epochs_run:g}'} "
        f"| {'-' if each.accuracy is None else f'{each.accuracy:.4f}'} | {', '.join(map(str, each.seeds))} | {each.sha256} |"
        for index, each in enumerate(series.records)
    )
    return f"""# {record.platform}: {record.benchmark}, ruleset {ruleset}

Score: {minutes} (mean of the runs without the fastest and the slowest{scaled}) on {result.accelerators} accelerators, global
batch {record.global_batch_size}.

## Steps to run

    ./setup.sh                                  # once: builds the image
    DATADIR=/data ./init_datasets.sh            # once: downloads and verifies the data
    DATADIR=/data ./run_and_time.sh             # one timed run

The source is in ../{implementation}, its README says more: preprocessing, traversal order, model, initialization, optimizer,
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
