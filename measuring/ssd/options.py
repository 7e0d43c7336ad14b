"""What `python -m measuring.ssd` can be asked for."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from harness import config_files
from harness.cli import environment
from measuring.arguments import device

ACCURACY_STEPS = 200
# In the order in which they are measured; those that are no default are asked for by name or by their own option
SECTIONS = (
    "end-to-end", "fused", "turns", "step", "data", "detection", "evaluation", "kernels", "constants", "plans",
    "variants", "choices", "evaluator", "accuracy",
)  # fmt: skip
BY_NAME = ("turns", "fused", "constants", "plans")  # nowhere but in --only: for a GPU in the main, and long
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def arguments(given: Sequence[str] | None, description: str = "") -> argparse.Namespace:
    """The command line, checked; SystemExit with 2 where it cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m measuring.ssd",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "configuration",
        nargs="?",
        default="H100_1x1x256",
        help="name under configs/ssd, or a path (default: %(default)s)",
    )
    add("--data-dir", type=Path, help="a folder in COCO form (default: pictures that this project makes itself)")
    add(
        "--cache-dir",
        type=Path,
        default=environment.cache_dir(config_files.CHECKOUT),
        help="where those pictures are kept (default: %(default)s)",
    )
    add("--device", type=device, help='"cpu" or "cuda:0" (default: a GPU if there is one)')
    add("--batch-size", type=int, help="images of a step (default: the configuration's on a GPU, 4 on a CPU)")
    add("--threads", type=int, help="of the CPU, for PyTorch (default: all cores)")
    add("--clock", choices=CLOCKS, default="wall", help="of steps and detection on a CPU; processor, with --threads 1, where "
        "the machine is not quiet (default: %(default)s)")  # fmt: skip
    add("--rounds", type=int, default=5, help="turns of each comparison (default: %(default)s)")
    add("--max-steps", type=int, help="steps of the end-to-end run (default: an epoch on a GPU, 6 on a CPU)")
    add("--evaluate", type=int, help="images of the evaluation (default: the configuration's on a GPU, 16 on a CPU)")
    add("--compile", action=argparse.BooleanOptionalAction, help="(default: the configuration's on a GPU, no on a CPU)")
    add("--variants", action="store_true", help="measure the step with one change at a time, too")
    add("--choices", action="store_true", help="measure the data path with every choice of the graph, too")
    add(
        "--evaluator",
        type=int,
        nargs="?",
        const=500,
        metavar="IMAGES",
        help="hotcoco against pycocotools (%(const)s images)",
    )
    add("--accuracy", type=int, metavar="STEPS", help="train so many steps in fp32, in the configuration's precision, and in "
        "fp32 with another seed, and compare the losses")  # fmt: skip
    add("--all", action="store_true", help="all of the above but --accuracy")
    add("--only", type=lambda names: names.split(","), metavar="SECTION[,SECTION...]", help="nothing else but the checks: "
        + ", ".join(SECTIONS))  # fmt: skip
    add("--budget", type=float, metavar="SECONDS", help="end by then, with what there is; pictures "
        "that are made first do not count")  # fmt: skip
    add("--json", type=Path, default=Path("out/profile/profile.json"), help="all samples (default: %(default)s)")
    add("--chart", type=Path, default=Path("out/profile/profile.png"), help="(default: %(default)s)")
    found = parser.parse_args(given)
    for name in ("batch_size", "threads", "rounds", "max_steps", "evaluate", "evaluator", "accuracy"):
        least = 2 if name == "batch_size" else 1
        if getattr(found, name) is not None and getattr(found, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be {least} at least")
    unused = [name for name in ("variants", "choices", "evaluator", "accuracy", "all") if getattr(found, name)]
    unused = [name for name in unused if found.only is not None and name not in found.only]
    if unused:
        parser.error(f"--{unused[0]} has no effect: --only {','.join(found.only)} measures nothing else")
    unknown = [name for name in found.only or () if name not in SECTIONS]
    if unknown:
        parser.error(f"--only {','.join(found.only)}: there is no {unknown[0]}; one or more of {', '.join(SECTIONS)}")
    if found.budget is not None and not 0 < found.budget < 1e6:
        parser.error(f"--budget {found.budget:g}: seconds, more than 0")
    found.sections = wanted(found)
    if "accuracy" in found.sections and found.accuracy is None:
        found.accuracy = ACCURACY_STEPS
    if found.device not in (None, "cpu", "cuda:0"):
        parser.error(f"--device {found.device}: cpu or cuda:0; CUDA_VISIBLE_DEVICES chooses which GPU that is")
    return found


def wanted(asked: argparse.Namespace) -> list[str]:
    """Sections in the order in which they are measured."""
    if asked.only is not None:
        return [name for name in SECTIONS if name in asked.only]
    more = {
        **dict.fromkeys(BY_NAME, False),
        "variants": asked.variants or asked.all,
        "choices": asked.choices or asked.all,
        "evaluator": asked.evaluator is not None or asked.all,
        "accuracy": asked.accuracy is not None,
    }
    return [name for name in SECTIONS if more.get(name, True)]
