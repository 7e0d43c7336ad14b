"""What MLPerf's own tools say of a series, for its score: as `check` keeps their last answer, so that no other verb waits.

They refuse, and they multiply: the mean of runs that converged sooner than the reference's becomes longer by as much (RCP). The
factor is theirs; of logs that others published it is the scaling.json beside them, which MLCommons's reviewers left there.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness import outside
from harness.results.checking import checker, official
from harness.results.checking.official import Job, OfficialVerdict
from harness.results.checking.package import is_package
from harness.results.checking.series import one_failure
from harness.results.series import Series
from harness.rules import rules_for


@dataclass(frozen=True)
class Opinion:
    """MLPerf's verdict on exactly these logs by exactly these tools."""

    accepted: bool | None  # None: nobody has asked, or they have nothing to say
    said: str  # for people
    factor: float = 1.0  # by which the score is multiplied, as far as is known
    broke: bool = False  # they were asked and gave no answer

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Opinions:
    """Of the series of one command; a package is looked at once for all of its series."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self._asked: dict[Job, list[OfficialVerdict] | RuntimeError] = {}
        self._packages: dict[tuple[Path, str], list[OfficialVerdict] | None] = {}

    def ask(
        self,
        all_series: Sequence[Series],
        ruleset: str | None,
        *,
        workers: int = 1,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """Have an answer for each series: those that nobody has asked for are asked for now, a second or two each."""
        jobs = [job for each in all_series if (job := checker.job_of(each, ruleset)) is not None]
        answers = official.ask(jobs, cache=self._cache, workers=workers, progress=progress)
        self._asked |= zip(jobs, answers, strict=True)

    def of(self, series: Series, ruleset: str | None) -> Opinion:
        """As `check` sees the series, alone or in the package that it lies in. An unreadable cache has nothing in it."""
        found, scaled = self._told(series, ruleset), _left_beside(series)
        return found if scaled is None else replace(found, factor=scaled)

    def _told(self, series: Series, ruleset: str | None) -> Opinion:
        job = checker.job_of(series, ruleset)
        if job is None:
            return Opinion(None, checker.why_no_job(series))
        verdicts = self._asked.get(job) or official.kept(job, self._cache)
        if isinstance(verdicts, RuntimeError):
            return Opinion(None, str(verdicts), broke=True)
        if verdicts is None:
            verdicts = self._in_package(series.folder.resolve(), job.ruleset)
        if verdicts is None:
            asking = f"python -m harness check {shlex.quote(str(series.folder))}"
            return Opinion(None, f"MLPerf's tools were not asked yet: {asking}")
        failed = one_failure(series, rules_for(series.first.benchmark, job.ruleset))
        return _opinion(verdicts, None if failed is None else Path(failed.path).name)

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


def factor_in(verdicts: Iterable[OfficialVerdict]) -> float:
    """By which the score of the series that these are of is multiplied."""
    return next((each.value for each in verdicts if each.tool == "RCP checker" and each.value is not None), 1.0)


def _opinion(verdicts: Sequence[OfficialVerdict], may_fail: str | None) -> Opinion:
    """`may_fail`: the log of the run that need not comply, as `check` has it and MLPerf's package checker."""
    factor = factor_in(verdicts)
    tools = f"MLPerf's tools (mlperf-logging {official.version()})"
    refused = [
        each
        for each in verdicts
        if each.passed is False and not (each.tool == "compliance checker" and Path(each.about).name == may_fail)
    ]
    if not refused:
        return Opinion(True, f"{tools} accept it", factor)
    first, more = refused[0], len(refused) - 1
    why = first.reasons[0][1] if first.reasons else official.gist(first.quote)
    said = f"{tools} refuse it: {first.tool}, {Path(first.about).name}: {why}"[:400]
    return Opinion(False, said + (f"; and {more} more" if more else ""), factor)


def _left_beside(series: Series) -> float | None:
    """The factor that lies beside logs which are not this harness's own: beside ours it can only be an earlier answer."""
    if series.first.configuration_sha256:
        return None
    try:
        found = outside.read_json(series.folder / "scaling.json")
    except (OSError, ValueError):
        return None
    factor = found.get("scaling_factor") if isinstance(found, dict) else None
    return float(factor) if isinstance(factor, int | float) and 1 <= factor < 10 else None
