"""One tar that a driver's vendor can be sent: the verdict, the environment of each arm, logs and telemetry, redacted.

What is taken out is redaction.py's, and the submitter; runs are called by arm and number, whatever their folders are called.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import names, whole
from harness.comparison.comparison import Comparison, of_runs
from harness.comparison.reporting import documents
from harness.comparison.reporting.redaction import Redaction, of_this_machine
from harness.comparison.runs import NAMES, ComparedRun


def write(found: Comparison, target: Path) -> None:
    """The tar, whole or not at all; compressed where its name ends in gz. ValueError where it cannot be written."""
    places = {run.record.path: _place(run, index) for index, run in enumerate(found.runs)}
    # folders are called by people, too
    runs = [replace(run, alias=places[run.record.path]) for run in found.runs]
    told = of_runs(runs, found.question, found.floor)
    content = documents.as_json(told)
    for table in (*content["runs"], *content["invalid"]):
        table["log"] = places[table["log"]]
    logs = {places[run.record.path]: Path(run.record.path) for run in runs}
    for run in runs:
        if run.telemetry is not None and not run.telemetry.problem:
            logs[f"{places[run.record.path].removesuffix('.txt')}_telemetry.jsonl"] = Path(run.telemetry.path)
    redact = Redaction(
        [*(("submitter", str(run.record.org)) for run in runs if run.record.org not in (None, "unnamed"))]
    )
    redact.learn(of_this_machine())
    for log in logs.values():
        redact.learn_from(_text(log))
    files = {
        "README.md": documents.markdown(told, redact),  # escaped, lab_node is lab\_node and no word that is known
        "comparison.json": json.dumps(content, indent=1, ensure_ascii=False),
        "environment.json": json.dumps(_environments(runs, places), indent=1, ensure_ascii=False),
    }
    mode = "w:gz" if target.name.endswith("gz") else "w"
    try:
        with (
            whole.replacing(target) as file,
            tarfile.open(fileobj=file, mode=mode) as archive,  # type: ignore[call-overload]
        ):
            for name, text in files.items():
                _add(archive, name, redact(text))
            for name, log in logs.items():
                _add(archive, name, redact(_text(log)))
    except OSError as error:
        raise ValueError(f"{target}: cannot be written: {error.strerror}") from error


def _place(run: ComparedRun, index: int) -> str:
    """A/03_result_1.txt: in the order of time, whatever people have called it."""
    log = Path(run.record.path)
    return f"{NAMES[run.arm]}/{index:03}_{log.name if names.number(log) is not None else 'log.txt'}"


def _environments(runs: Sequence[ComparedRun], places: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "log": places[run.record.path],
            "software": run.record.software,
            "hardware": run.record.hardware,
            "device_uuids": run.record.device_uuids,
            "environment": run.record.environment,
            "image": run.record.image,
            "commit": run.record.commit,
            "configuration": run.record.configuration,
        }
        for run in runs
    ]


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode("utf-8", "replace")
    member = tarfile.TarInfo(f"comparison/{name}")
    member.size = len(content)
    member.mode = 0o644
    archive.addfile(member, io.BytesIO(content))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
