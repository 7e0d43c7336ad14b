"""One tar that a driver's vendor can be sent: the verdict, the environment of each arm, logs and telemetry, redacted.

Redacted is what names people, places or single parts: GPU UUIDs, serial numbers, host and user names, home folders,
addresses, the submitter. The same original has the same stand-in in every file, so that runs of one GPU are still seen to
be of one GPU.
"""

from __future__ import annotations

import getpass
import hashlib
import io
import json
import os
import platform
import re
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.comparison import documents
from harness.comparison.comparison import Comparison
from harness.comparison.runs import NAMES, ComparedRun

PATTERNS = (
    (re.compile(r"\b(?:GPU|MIG)-[0-9a-fA-F]{4,}(?:-[0-9a-fA-F]{2,})*"), "gpu"),
    (re.compile(r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?=[:/\s\"',])(?<!\d\.\d\.\d\.\d\d\.)"), "address"),
    (re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.-]+\b"), "mail"),
    (
        re.compile(r"(?<=[\s\"'=:,(])(?:/home|/root|/Users|/mnt|/data|/raid|/scratch|/gpfs|/lustre)/?[^\s\"',;:)]*"),
        "path",
    ),
)
SERIAL = re.compile(r'("(?:serial|board_serial|hostname|host|user)"\s*:\s*")([^"]+)(")')


class Redaction:
    """Replaces words for good; the same word by the same stand-in."""

    def __init__(self, words: Sequence[tuple[str, str]] = ()) -> None:
        """`words`: (word, kind) to be replaced wherever they stand as a whole word."""
        self._words = [(word, kind) for word, kind in words if len(word) > 2]
        self._patterns = [
            *((re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])"), kind) for word, kind in self._words),
            *PATTERNS,
        ]

    def __call__(self, text: str) -> str:
        for pattern, kind in self._patterns:
            text = pattern.sub(self._replace(kind), text)
        return SERIAL.sub(lambda found: f"{found[1]}{_stand_in(found[2], 'redacted')}{found[3]}", text)

    @staticmethod
    def _replace(kind: str) -> Callable[[re.Match[str]], str]:
        return lambda found: _stand_in(found[0], kind)


def _stand_in(word: str, kind: str) -> str:
    if re.fullmatch(rf"{kind}-[0-9a-f]{{8}}", word):
        return word
    return f"{kind}-{hashlib.sha256(word.encode()).hexdigest()[:8]}"


def write(found: Comparison, target: Path) -> None:
    """The tar, whole or not at all; compressed where its name ends in gz. ValueError where it cannot be written."""
    orgs = {run.record.org for run in found.runs if run.record.org not in (None, "unnamed")}
    redact = Redaction(
        [
            *((str(org), "submitter") for org in sorted(map(str, orgs))),
            (platform.node(), "host"),
            *(((user, "user"),) if (user := _user()) not in ("root", "") else ()),
        ]
    )
    names = {run.record.path: _place(run, index) for index, run in enumerate(found.runs)}
    content = documents.as_json(found)
    for table in (*content["runs"], *content["invalid"]):
        table["log"] = names[table["log"]]
    files = {
        "README.md": documents.markdown(found),
        "comparison.json": json.dumps(content, indent=1),
        "environment.json": json.dumps(_environments(found.runs, names), indent=1),
    }
    mode = "w:gz" if target.name.endswith("gz") else "w"
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            temporary = Path(file.name)
            with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
                for name, text in files.items():
                    _add(archive, name, redact(text))
                for run in found.runs:
                    _add(archive, names[run.record.path], redact(_text(Path(run.record.path))))
                    if run.telemetry is not None:
                        place = Path(names[run.record.path])
                        name = str(place.with_name(f"{place.stem}_telemetry.jsonl"))
                        _add(archive, name, redact(_text(Path(run.telemetry.path))))
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise ValueError(f"{target}: cannot be written: {error.strerror}") from error


def _place(run: ComparedRun, index: int) -> str:
    """A/03_result_1.txt: in the order of time, whatever the folders were called."""
    return f"{NAMES[run.arm]}/{index:03}_{Path(run.record.path).name}"


def _environments(runs: Sequence[ComparedRun], names: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "log": names[run.record.path],
            "software": run.record.software,
            "hardware": run.record.hardware,
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


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return str(os.getuid())
