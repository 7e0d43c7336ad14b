"""What a configuration reaches after each of its evaluations, seed by seed: from this a demonstration's target is set.

    .venv/bin/python -m measuring.seeds embedded --out seeds.json [--seeds 1 2 3 ...]

Every run goes on to the last epoch, towards a target that it cannot reach, so that all of its evaluations are seen. The file is
written after each run, and a seed that is in it already is not run again: a study that was interrupted goes on.
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
from measuring import arguments

OUT_OF_REACH = 0.99
SHARE, CONFIDENCE = 0.95, 0.95  # of runs that shall meet a target, and how sure that is


def run(configuration: str, seed: int, folder: Path) -> dict[str, Any]:
    """One run's evaluations, read from its log."""
    command = [sys.executable, "-m", "harness", "run", configuration]
    command += ["--seed", str(seed), "--target", str(OUT_OF_REACH), "--out", str(folder), "--number", str(seed)]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code != exit_codes.EPOCHS_SPENT:
        sys.exit(f"seed {seed} ended with {code}, not with {exit_codes.EPOCHS_SPENT} as a run that spends its epochs")
    record = logfile.read(folder / names.result(seed))
    assert record.run_ms is not None
    return {
        "seed": seed,
        "precision": record.precision,
        "seconds": round(record.run_ms / 1000, 1),
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
        found[epoch] = {"least": min(values), "mean": round(statistics.fmean(values), 4), "most": max(values)}
        if len(values) > 1:
            found[epoch]["least_of_19_in_20_runs"] = round(least_of_most_runs(values), 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configuration")
    parser.add_argument("--out", type=arguments.file, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 11)))
    asked = parser.parse_args()
    sha256 = config.load(config_files.find(asked.configuration)).sha256
    study: dict[str, Any] = {"made_by": "measuring.seeds", "configuration_sha256": sha256, "runs": []}
    if asked.out.exists():
        study = json.loads(asked.out.read_text())
        if study.get("configuration_sha256") != sha256:
            parser.error(f"{asked.out} holds another configuration's runs: name a new file")
    for seed in asked.seeds:
        if any(each["seed"] == seed for each in study["runs"]):
            continue
        with tempfile.TemporaryDirectory() as folder:
            study["runs"].append(run(asked.configuration, seed, Path(folder)))
        study["by_epoch"] = summary(study["runs"])
        asked.out.write_text(json.dumps(study, indent=1) + "\n")
    sys.stdout.write(json.dumps(study["by_epoch"], indent=1) + "\n")


if __name__ == "__main__":
    main()
