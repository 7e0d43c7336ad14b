"""What a configuration reaches after each of its evaluations, seed by seed: from this a demonstration's target is set.

    .venv/bin/python -m measuring.seeds embedded --out seeds.json [--seeds 1 2 3 ...]

Every run goes on to the last epoch, towards a target that it cannot reach, so that all of its evaluations are seen. The file is
written after each run, whole, and a seed that is in it already is not run again: a study that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import scipy.stats

from harness import ROOT, config, config_files, exit_codes, names
from harness.results import logfile
from measuring import arguments, study

OUT_OF_REACH = 0.99
SHARE, CONFIDENCE = 0.95, 0.95  # of runs that shall meet a target, and how sure that is


def run(configuration: str, seed: int, folder: Path) -> dict[str, Any]:
    """One run's evaluations, read from its log. SystemExit where it did not spend its epochs."""
    command = [sys.executable, "-m", "harness", "run", configuration]
    command += ["--seed", str(seed), "--target", str(OUT_OF_REACH), "--out", str(folder), "--number", str(seed)]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    log = folder / names.result(seed)
    record = logfile.read(log) if log.exists() else None
    # a crash ends with the same code
    if code != exit_codes.EPOCHS_SPENT or record is None or not record.reason.startswith(exit_codes.OF_EPOCHS):
        sys.stderr.write(
            f"error: seed {seed} did not spend its epochs: it ended with {code}, its last words are above\n"
        )
        known = (exit_codes.USAGE, exit_codes.NOT_SUITABLE, exit_codes.INTERRUPTED)
        sys.exit(code if code in known else exit_codes.BROKEN)
    assert record.monotonic_s is not None
    return {
        "seed": seed,
        "precision": record.precision,
        "seconds": round(record.monotonic_s, 1),
        "reached": {
            str(each.epoch): round(each.accuracy, 4) for each in record.evaluations if each.accuracy is not None
        },
    }


def least_of_most_runs(reached: list[float]) -> float:
    """What SHARE of all runs reach, with CONFIDENCE: a one-sided tolerance bound (normal; two values or more)."""
    n = len(reached)
    factor = scipy.stats.nct.ppf(CONFIDENCE, n - 1, scipy.stats.norm.ppf(SHARE) * math.sqrt(n)) / math.sqrt(n)
    return statistics.fmean(reached) - float(factor) * statistics.stdev(reached)


def summary(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each evaluated epoch, over its seeds."""
    found = {}
    for epoch in runs[0]["reached"]:
        values = [each["reached"][epoch] for each in runs if epoch in each["reached"]]
        found[epoch] = {"n": len(values), "least": min(values)}
        found[epoch] |= {"mean": round(statistics.fmean(values), 4), "most": max(values)}
        if len(values) > 1:
            found[epoch]["least_of_19_in_20_runs"] = round(least_of_most_runs(values), 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configuration", help="name under configs, or a path")
    parser.add_argument("--out", type=arguments.file, required=True, help="file of all runs, in JSON")
    parser.add_argument("--seeds", type=arguments.at_least(0), nargs="+", default=list(range(1, 11)),
        help="(default: 1 to 10)")  # fmt: skip
    asked = parser.parse_args()
    sha256 = config.load(config_files.find(asked.configuration)).sha256
    found = {"made_by": "measuring.seeds", "configuration_sha256": sha256, **_earlier(asked.out, sha256)}
    for seed in asked.seeds:
        if any(each["seed"] == seed for each in found["runs"]):
            continue
        with tempfile.TemporaryDirectory() as folder:
            found["runs"].append(run(asked.configuration, seed, Path(folder)))
        sys.stdout.write(f"{json.dumps(found['runs'][-1])}\n")  # before a disk that is full meanwhile has it or not
        sys.stdout.flush()
        study.keep({**found, "by_epoch": summary(found["runs"])}, asked.out)
    sys.stdout.write(json.dumps(summary(found["runs"]), indent=1) + "\n")


def _earlier(out: Path, sha256: str) -> dict[str, Any]:
    """What a file holds that such a study left. ValueError where it holds anything else."""
    if not out.is_file() or not out.stat().st_size:
        return {"runs": []}
    try:
        found: dict[str, Any] = json.loads(out.read_bytes())
        same = found["configuration_sha256"] == sha256
        if not all(isinstance(each["seed"], int) and isinstance(each["reached"], dict) for each in found["runs"]):
            raise TypeError
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{out} holds something else than a study of seeds: name a new file") from error
    if not same:
        raise ValueError(f"{out} holds another configuration's runs: name a new file")
    return found


if __name__ == "__main__":
    sys.exit(study.ended(main))
