"""Stands for `python -m harness run` where only the launching is tested: writes a short log and ends as it is told.

What to do is read from fake.json in the results folder: {"sha256": of the configuration, "do": {"0": "hang", ...}}; a trial
that is not named succeeds. Standard library only, since it also runs inside a tiny image.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ENDINGS = {"succeed": ("success", 0), "miss": ("aborted", 1), "nan": ("aborted", 5), "interrupted": ("aborted", 130)}
ENDING_WHEN_ASKED = ("end well when asked", "miss when asked")


def main(arguments: list[str]) -> int:
    out = Path(arguments[arguments.index("--out") + 1])
    if arguments[0] == "probe":
        (out / "probe_0.json").write_text(json.dumps(arguments), encoding="utf-8")
        sys.stdout.write("probed\n")
        return 0 if Path(arguments[1]).is_file() else 2
    number = arguments[arguments.index("--number") + 1]
    orders = json.loads((out / "fake.json").read_text(encoding="utf-8"))
    do = orders["do"].get(number, "succeed")
    sys.stdout.write(f"run {number} will {do}\n")
    if do == "crash early":
        raise RuntimeError("no log yet")
    if do == "refuse":
        sys.stdout.write("the data set is another one\n")
        return 2
    with (out / f"result_{number}.txt").open("x", encoding="utf-8", buffering=1) as log:
        faulthandler.register(signal.SIGUSR1, log)
        return work(do, log, orders["sha256"])


def out_of(log) -> str:
    return str(Path(log.name).parent)


def work(do: str, log, sha256: str) -> int:
    def line(key: str, value: object = None, **metadata: object) -> None:
        content = {
            "namespace": "",
            "time_ms": int(time.time() * 1000),
            "key": key,
            "value": value,
            "metadata": metadata,
        }
        log.write(f":::MLLOG {json.dumps({**content, 'event_type': 'POINT_IN_TIME'})}\n")

    asked = []

    def end(*_: object) -> None:
        asked.append(True)
        if do not in ("hang for ever", *ENDING_WHEN_ASKED):
            line("run_stop", status="aborted", reason="SIGTERM")
            if do == "hang, then linger":  # as a run behind its run_stop
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(2)
                line("data_fingerprint", "f00d")
                Path(log.name).with_suffix(".png").touch()
            sys.exit(130)

    signal.signal(signal.SIGTERM, end)
    line("cache_clear", os.environ["HARNESS_CACHES_CLEARED"] == "1")
    line("init_start")
    line("chosen", json.loads(os.environ.get("HARNESS_CHOSEN", "null")) or {"format": f"of {log.name[-5]}"})
    line("init_stop")
    line("run_start")
    line("commit", do.removeprefix("be of ") if do.startswith("be of ") else None)
    line("configuration_sha256", "0" * 64 if do == "use another" else sha256)
    line(
        "hardware",
        {
            "user": f"{os.getuid()}:{os.getgid()}",
            "network": sorted(each.name for each in Path("/sys/class/net").iterdir()),
        },
    )
    if do.startswith("hang"):
        while True:
            time.sleep(1)
    if do == "fill the disk":
        line("epoch_start", epoch_num=1)
        line("run_stop", status="aborted", reason="no room on the disk")
        return 6
    while do in ENDING_WHEN_ASKED and not asked:
        time.sleep(0.05)
    if do in ("work a while", "work a moment"):
        time.sleep(2 if do == "work a while" else 0.4)
    if do == "leave another's log":
        Path(out_of(log), "result_1.txt").write_text(":::MLLOG {}\n", encoding="utf-8")
    if do == "take long":
        for _ in range(300):
            log.write("working\n")
            time.sleep(0.2)
    if do == "leave a rank behind":
        code = "import time; time.sleep(1200)"
        rank = subprocess.Popen([sys.executable, "-c", code, out_of(log)], start_new_session=True)
        log.write(f"rank {rank.pid}\n")
    if do in ("die", "leave a rank behind"):
        os.kill(os.getpid(), signal.SIGKILL)
    line("eval_start", epoch_num=1)
    line("eval_accuracy", 0.5, epoch_num=1)
    line("eval_stop", epoch_num=1)
    status, code = ENDINGS.get(do.removesuffix(" when asked"), ("success", 0))
    if do != "forget":
        line("run_stop", status=status, **({"reason": "epochs spent"} if status == "aborted" else {}))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
