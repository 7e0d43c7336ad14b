"""How fast the verbs that train nothing are, each beside a baseline in the same run and in turns with it. Asserts nothing.

.venv/bin/python -m tests.speed [ROUNDS]

reading logs       harness.results' record of a log against MLPerf's own parser, which finds the lines and no more
a page             the leaderboard of 200 series against its logs read by MLPerf's parser
starting           `harness status --help` against a Python that imports typer and ends
comparing          `harness compare` of 2 x 50 runs, 10,000 bootstraps, against a Python that imports scipy.stats
history            `harness history` of 200 series that were read before, against a Python that imports ruptures
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from mlperf_logging.compliance_checker import mlp_parser

from harness.results import logfile
from harness.results.reporting import report
from measuring.measure import Comparison, Figure, Measure, interleaved
from tests.conftest import CHECKOUT
from tests.harness.comparison import arms
from tests.harness.results import synthetic_logs
from tests.harness.results.synthetic_logs import Made

SERIES = 200
NOISE = "0: epoch 3 step 200 loss 3.14159 of a rank that talks\n" * 1500  # 80 kB a log, as the published ones have


def seconds(action: Callable[[], object]) -> Measure:
    def measure() -> float:
        begun = time.perf_counter()
        action()
        return time.perf_counter() - begun

    return measure


def parsed(paths: list[Path]) -> Callable[[], object]:
    return lambda: [mlp_parser.parse_file(str(path), ruleset="0.7.0") for path in paths]


def started(*words: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *words], cwd=CHECKOUT, check=True, capture_output=True)


def compared(what: str, ours: Callable[[], object], baseline: Callable[[], object], rounds: int) -> Comparison:
    found = interleaved({"ours": seconds(ours), "baseline": seconds(baseline)}, rounds)
    return Comparison(what, Figure("ours", "s", found["ours"]), Figure("baseline", "s", found["baseline"]))


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for index in range(SERIES):
            synthetic_logs.series(folder, Made(system=f"s{index:03}", batch=128 + index // 8))
        logs = sorted(folder.rglob("result_*.txt"))
        for path in logs[:100]:
            path.write_text(path.read_text() + NOISE)

        def page() -> None:
            report.write(report.gather([folder], generated=datetime.now(UTC)), folder / "page")

        for each in (
            compared(
                "reading 100 logs", lambda: [logfile.read(path) for path in logs[:100]], parsed(logs[:100]), rounds
            ),
            compared(f"a page of {SERIES} series", page, parsed(logs), rounds),
            compared("starting", started("-m", "harness", "status", "--help"), started("-c", "import typer"), rounds),
            compared(
                "comparing 2 x 50 runs",
                started("-m", "harness", "compare", *map(str, arms.in_turns(folder / "arms", 50))),
                started("-c", "import scipy.stats"),
                rounds,
            ),
            compared(
                f"history of {SERIES} series",
                started("-m", "harness", "history", "--from", str(folder)),
                started("-c", "import ruptures"),
                rounds,
            ),
        ):
            sys.stdout.write(
                f"{each.what:24} {each.ours.median:7.3f} s, baseline {each.baseline.median:7.3f} s, "
                f"{each.ratio:5.2f} times as fast (n {rounds}, {min(each.ratios):.2f} to {max(each.ratios):.2f})\n"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
