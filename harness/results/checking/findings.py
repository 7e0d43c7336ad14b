"""One thing wrong with a result: where, by which rule, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from harness.results.record import RunRecord
from harness.rules import Rules

Severity = Literal["error", "warning"]
COLUMNS = ("", "file", "key", "line", "rule", "found", "what to do")
FIGURES = ("line",)
PLACEHOLDER_LIMIT = 1_000  # characters of a text in which one is looked for

# What people leave in when they copy another's files; `FILL IN` is what our own sysinfo writes.
_PLACEHOLDER = re.compile(
    r"placeholder|fill[ _-]?in|\btodo\b|\bfixme\b|\btbd\b|\bxxx+\b|<[^<>]*>|\byour[ _-]|changeme|change[ _-]me|\$\{?\w+"
    r"|\bsubmission_(?:org|platform)\b|reference_implementation",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a file, or may be."""

    severity: Severity
    file: str
    key: str  # of the log or the JSON; empty where it is about the whole file
    line: int | None
    rule: str  # a stable name, a few words
    found: str
    fix: str

    def row(self) -> list[str]:
        line = "" if self.line is None else str(self.line)
        return [self.severity, self.file, self.key, line, self.rule, self.found, self.fix]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def softened(self, why: str) -> Finding:
        """The same as a warning, because a rule lets it pass."""
        return replace(self, severity="warning", fix=f"{why}; {self.fix}")


def is_placeholder(text: str) -> bool:
    return bool(_PLACEHOLDER.search(text[:PLACEHOLDER_LIMIT]))


@dataclass(frozen=True)
class Log:
    """What a check looks at."""

    file: str  # as the report names it
    record: RunRecord
    rules: Rules

    def found(
        self, rule: str, text: str, fix: str, *, key: str = "", line: int | None = None, severity: Severity = "error"
    ) -> Finding:
        if line is None and key in self.record.entries:
            line = self.record.entries[key].line
        return Finding(severity, self.file, key, line, rule, text, fix)

    @property
    def closed(self) -> bool:
        return (self.record.division or "").lower() == "closed"

    @property
    def strict(self) -> Severity:
        """The closed division must, the open one should."""
        return "error" if self.closed else "warning"
