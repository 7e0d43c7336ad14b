"""What MLPerf's own tools said of a series when `check` asked them last: read from its cache, so that no other verb waits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.results.checking import checker, official
from harness.results.checking.official import Job, OfficialVerdict
from harness.results.checking.package import is_package
from harness.results.series import Series


@dataclass(frozen=True)
class Opinion:
    """MLPerf's verdict on exactly these logs by exactly these tools."""

    accepted: bool | None  # None: nobody has asked, or they have nothing to say
    said: str  # for people

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Opinions:
    """Of the series of one command; a package is looked at once for all of its series."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self._packages: dict[tuple[Path, str], list[OfficialVerdict] | None] = {}

    def of(self, series: Series, ruleset: str | None) -> Opinion:
        """As `check` sees the series, alone or in the package that it lies in. An unreadable cache has nothing in it."""
        job = checker.job_of(series, ruleset)
        if job is None:
            return Opinion(None, "MLPerf's tools have no rules for it")
        verdicts = official.kept(job, self._cache)
        if verdicts is None:
            verdicts = self._in_package(series.folder.resolve(), job.ruleset)
        if verdicts is None:
            return Opinion(None, f"MLPerf's tools were not asked yet: python -m harness check {series.folder}")
        tools = f"MLPerf's tools (mlperf-logging {official.version()})"
        refused = [each for each in verdicts if each.passed is False]
        if not refused:
            return Opinion(True, f"{tools} accept it")
        first, more = refused[0], len(refused) - 1
        why = first.reasons[0][1] if first.reasons else official.gist(first.quote)
        said = f"{tools} refuse it: {first.tool}, {Path(first.about).name}: {why}"[:400]
        return Opinion(False, said + (f"; and {more} more" if more else ""))

    def _in_package(self, folder: Path, ruleset: str) -> list[OfficialVerdict] | None:
        """What was said of the package's logs in this folder, and of their system's description."""
        if len(folder.parents) < 3 or not is_package(package := folder.parents[2]):
            return None
        asked = package, ruleset
        if asked not in self._packages:
            self._packages[asked] = official.kept(Job(ruleset, package=package), self._cache)
        verdicts = self._packages[asked]
        place, description = folder.relative_to(package).as_posix(), f"systems/{folder.parent.name}.json"
        about = [
            each for each in verdicts or [] if each.about.startswith(f"{place}/") or each.about in (place, description)
        ]
        return about or None
