"""The environment variables that the command line takes: declared here, and lookalikes answered."""

from __future__ import annotations

import difflib
import os
import shlex
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness import names, outside, request
from harness.request import DATA_DIR, OUT
from harness.system import places, variables

__all__ = ["DATA_DIR", "OUT", "cache_dir", "collection", "lookalikes", "out_dir", "packages", "results"]

CACHE_DIR = "HARNESS_CACHE_DIR"
IN_IMAGE = "HARNESS_IMAGE_LOCK"  # set by our image alone
BENCHMARKS = (
    "HARNESS_BENCHMARKS"  # folders that hold benchmarks' folders, as PATH is written: their rules are known too
)
DECLARED = (*request.VARIABLES, BENCHMARKS)
# Read elsewhere: by a launcher, by docker/run_with_docker.sh, by the tests, by the image
ELSEWHERE = (
    "CONT",
    "NEXP",
    "BACKBONE_DIR",
    "PRETRAINED_DIR",
    "HARNESS_TEST_DATA",
    "HARNESS_TEST_IMAGE",
    "HARNESS_LOG",
)
# What launchers tell those whom they start
OF_LAUNCHERS = (
    "HARNESS_CACHES_CLEARED",
    "HARNESS_PARENT",
    "HARNESS_LAUNCHER",
    "HARNESS_TRIAL",
    "HARNESS_STEP",
    variables.ALSO,
)
OTHERS = ("COUNT", "LOG_FILE", "LOGNAME", "PYTHONHASHSEED")  # known to be something else
ALIKE = 0.87  # of difflib's ratio: one letter more, less or other in a name of six


def lookalikes(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence for each variable that is not ours but looks as if it was meant to be."""
    known = {_folded(name): name for name in (*DECLARED, *ELSEWHERE)}
    found = []
    for name in environment:
        if name in (*DECLARED, *ELSEWHERE, *OF_LAUNCHERS, *OTHERS) or name.startswith("HARNESS_IMAGE_"):
            continue
        meant = known.get(_folded(name)) or _close(name, known.values())
        if meant is not None:
            found.append(f"the environment variable {name} is not read; did you mean {meant}?")
        elif name.startswith("HARNESS_"):
            found.append(f"the environment variable {name} is not read; known are {', '.join(DECLARED)}")
    return found


def of_a_launcher(environment: Mapping[str, str] = os.environ) -> str | None:
    """The first of OF_LAUNCHERS that says that this process was started by one of ours; None of one that a person started."""
    return next((name for name in OF_LAUNCHERS if name in environment), None)


def of_children(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """For the runs that this process starts: their command lines say all, and they are no ranks of whatever this one is.

    They may start in another directory: where modules lie is said from the root.
    """
    kept = {name: value for name, value in environment.items() if name not in (*request.VARIABLES, *request.RANK)}
    for name in (BENCHMARKS, "PYTHONPATH"):
        if kept.get(name):
            kept[name] = os.pathsep.join(map(os.path.abspath, kept[name].split(os.pathsep)))
    return kept


def of_containers(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """For containers that this process starts: what a comparison's arm differs in. They have their image's own else."""
    names = environment.get(variables.ALSO, "").split(",")
    return {name: environment[name] for name in (variables.ALSO, *names) if name in environment}


def unheard_by_the_engine(environment: Mapping[str, str] = os.environ) -> str | None:
    """That devices were chosen by a variable which a container's engine does not read; None where they were not."""
    said = next((name for name in variables.SELECTING if name in environment), None)
    return said and f"{said}={environment[said]} chooses no devices of a container, which is given the machine's first"


def cache_dir(checkout: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Where what is made once and trusted later is kept: named, the image's, in the checkout, the user's own cache, in /tmp.

    What is already there must be the user's alone: in a shared folder somebody else may have been first. Whoever writes there
    looks again, and refuses the last of these places, or a named one, where it is not.
    """
    if environment.get(CACHE_DIR):
        return Path(environment[CACHE_DIR])
    users = Path(environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or "/") / ".cache") / "harness"
    image = (
        [Path(request.CACHE.folder)] if IN_IMAGE in environment else []
    )  # a volume of the user's, or the image's own folder
    for candidate in (*image, users) if checkout is None else (*image, checkout / ".cache", users):
        if candidate.is_absolute() and places.own(candidate):
            return candidate
    return Path(tempfile.gettempdir()) / f"harness-{os.getuid()}"


def passed_over(checkout: Path | None, environment: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence where what a checkout's own cache keeps is left alone because others could have put it there."""
    kept = None if checkout is None or environment.get(CACHE_DIR) or IN_IMAGE in environment else checkout / ".cache"
    if kept is None or not os.access(kept, os.W_OK) or places.own(kept):  # or it is mounted read-only
        return []
    taken = cache_dir(checkout, environment)
    if {kept.stat().st_uid, kept.lstat().st_uid} != {os.geteuid()}:
        return [f"{kept} is passed over for {taken}: it is of another user than this one"]
    return [f"{kept} is passed over for {taken}, as others may write in it: chmod go-w {shlex.quote(str(kept))}"]


def checks(checkout: Path | None) -> Path:
    """Where `check` keeps what MLPerf's tools said."""
    return cache_dir(checkout) / "checks"


def collection(checkout: Path | None) -> Path:
    """Where `collect` puts results that nobody named a folder for: as `out_dir`, results/."""
    return _in_the_checkout(checkout, names.RESULTS_FOLDER)


def packages(checkout: Path | None) -> Path:
    """Where `package` puts one, likewise."""
    return _in_the_checkout(checkout, names.PACKAGES_FOLDER)


def results(checkout: Path | None) -> list[Path]:
    """Where results are looked for that nobody named a folder of: where `collect` puts them, and the project's own."""
    places = [collection(checkout), *([checkout / names.RESULTS_FOLDER] if checkout is not None else [])]
    there = {folder.resolve(): folder for folder in reversed(places) if folder.is_dir()}
    return list(reversed(there.values()))


def benchmark_folders(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """ValueError for a folder that is not there, or holds no benchmark: its logs would have no rules."""
    found = [Path(each) for each in environment.get(BENCHMARKS, "").split(os.pathsep) if each]
    for folder in found:
        if not outside.is_folder(folder):
            raise ValueError(f"{BENCHMARKS} names {folder}: {outside.no_folder(folder)}")
        if next(folder.glob("*/rules.toml"), None) is None:
            above = (
                f"; is {folder.resolve().parent} meant, the folder above?"
                if outside.is_file(folder / "rules.toml")
                else ""
            )
            raise ValueError(
                f"{BENCHMARKS} names {folder}: no folder in it has a rules.toml, as a benchmark has{above}"
            )
    return found


def must_be_in_a_folder() -> None:
    """ValueError where the folder that this was called in is gone: PyTorch's libraries end the process without a word of it."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise ValueError("the folder that this was called in has been deleted; cd to another one") from error


def out_dir(checkout: Path | None) -> Path:
    """Where results go that the user named no place for: the checkout's out/, from whichever directory it is called.

    Without a checkout, or where it is read-only, out/ in the caller's directory.
    """
    return _in_the_checkout(checkout, "out")


def _in_the_checkout(checkout: Path | None, name: str) -> Path:
    return checkout / name if checkout is not None and os.access(checkout, os.W_OK) else Path(name)


def _folded(name: str) -> str:
    return name.replace("_", "").upper()


def _close(name: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=ALIKE)), None)
