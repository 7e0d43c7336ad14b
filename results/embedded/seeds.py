"""Ten seeds of the embedded configuration, from which its target was set. Run it again to check the target:

    .venv/bin/python -m results.embedded.seeds --out seeds.json [--seeds 1 2 3 ...]

Every run goes on to the last epoch, towards a target that it cannot reach, so that all of its evaluations are seen.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
OUT_OF_REACH = 0.99


def run(seed: int, folder: Path) -> dict[str, Any]:
    """One run's evaluations, read from its log."""
    command = [sys.executable, "-m", "harness", "run", "embedded"]
    command += ["--seed", str(seed), "--target", str(OUT_OF_REACH), "--out", str(folder), "--number", str(seed)]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code != 1:  # epochs spent without the target
        sys.exit(f"seed {seed}: exit {code}, expected 1; its log is {folder}/result_{seed}.txt")
    lines = (folder / f"result_{seed}.txt").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines if line.startswith(":::MLLOG ")]
    stamp = {event["key"]: event["time_ms"] for event in events}
    return {
        "seed": seed,
        "precision": next(event["value"] for event in events if event["key"] == "precision"),
        "seconds": round((stamp["run_stop"] - stamp["run_start"]) / 1000, 1),
        "mAP": {
            str(event["metadata"]["epoch_num"]): round(event["value"], 4)
            for event in events
            if event["key"] == "eval_accuracy"
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 11)))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [run(seed, Path(folder)) for seed in arguments.seeds]
    arguments.out.write_text(json.dumps({"made_by": "results.embedded.seeds", "runs": runs}, indent=1) + "\n")
    for each in runs:
        sys.stdout.write(f"{each['seed']} {each['precision']} {each['seconds']:.0f} s {each['mAP']}\n")


if __name__ == "__main__":
    main()
