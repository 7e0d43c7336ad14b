"""What produced a result, for its log: the code's commit, the versions of what it rests on."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import ROOT, config, git, names
from harness.contract import NotSuitable, Plain
from harness.system import facts, image
from harness.system.facts import Machine

OWN = ("benchmarks", "tests")  # of this project: folders of benchmarks
CODE = frozenset((".py", ".toml", ".cu", ".cuh", ".cc", ".cpp", ".c", ".h", ".hpp", ".so"))
NO_CODE = ("__pycache__", "build")
# A user's own settings may leave out what git does not know yet: a new module is a change
STATUS = ("status", "--porcelain", "--untracked-files=normal", "--", *names.SOURCE)
SHOWN = 3  # changed files
GIT_LIMIT_S = 20  # each rank and node waits for it

# What else a result may depend on, and the distributions that it comes in
DISTRIBUTIONS = {
    "torchvision": ("torchvision",),
    "dali": ("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
    "mlperf_logging": ("mlperf-logging",),
    "numpy": ("numpy",),
    "pycocotools": ("pycocotools",),
    "hotcoco": ("hotcoco",),
}


def surroundings(machine: Machine) -> dict[str, Any]:
    """What a file of figures says of where they were measured, as a run's log does: code, machine, libraries, variables."""
    told = facts.describe(machine)
    by, dirty = commit(told["image"])
    return {
        "commit": by,
        "tree_dirty": dirty,
        "hardware": told["hardware"],
        "software": {**told["software"], **libraries()},
        "image": told["image"],
        "environment": told["environment"],
    }


def commit(image: Mapping[str, Plain]) -> tuple[str, bool]:
    """The code's commit and whether the code differs from it: the image's, or the checkout's by git.

    What `collect` and `package` leave in the checkout is no code. ("unknown", True) where neither can say.
    """
    if image:
        return str(image["commit"]), bool(image["tree_dirty"])
    if not git.has_repository(ROOT):
        return names.NO_COMMIT, True
    try:
        head = git.ask(ROOT, "rev-parse", "HEAD", limit_s=GIT_LIMIT_S)
        changes = git.ask(ROOT, *STATUS, limit_s=GIT_LIMIT_S)
    except NotSuitable:
        return names.NO_COMMIT, True
    if head.returncode or changes.returncode:
        return names.NO_COMMIT, True
    return head.stdout.decode().strip(), bool(changes.stdout)


def changed_files() -> list[str]:
    """The first of those by which the checkout differs from its commit, for people; [] where git does not tell."""
    try:
        told = git.ask(ROOT, *STATUS, limit_s=GIT_LIMIT_S).stdout.decode(errors="replace")
    except NotSuitable:
        return []
    found = [line[3:] for line in told.splitlines()]
    return [*found[:SHOWN], *(["..."] if len(found) > SHOWN else [])]


def of_this_code() -> str:
    """One word for it, to be held against other ranks': the commit, and whether the code differs from it."""
    found, changed = commit(image.identity({}))
    return found[:12] if found == names.NO_COMMIT else f"{found[:12]}{' with changes' * changed}"


def unpublishable() -> tuple[str, str] | None:
    """Why no package can be made of the logs of this code, and what to do; None where it is that of a commit."""
    found, changed = commit(image.identity({}))
    if found == names.NO_COMMIT:
        why = "installed by pip, a copy without its repository, or git does not answer"
        return (
            f"the log names no commit ({why}): no package can be made of it",
            "run in a clone, with git installed, or in an image that was built from one",
        )
    if changed:
        return f"the source differs from commit {found[:12]}: no package can be made of its logs", "commit, then run"
    return None


def of_benchmark(name: str) -> str:
    """SHA-256 of the code of a benchmark that lies outside of this project, whose commit says nothing of it; "" of one within.

    Of the names and contents of the package's files of the kinds CODE, but for hidden folders, Python's caches and what is
    built: data, logs and an editor's copies may lie there, too. Folders that are links are not looked into. "unknown" where
    one cannot be read.
    """
    module = importlib.import_module(config.module_name(name))
    file = Path(str(module.__file__)).resolve()
    if any(file.is_relative_to(ROOT.resolve() / own) for own in OWN):
        return ""
    found = hashlib.sha256()
    try:
        for path in sorted(_code_in(file.parent)) if hasattr(module, "__path__") else [file]:
            with path.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            found.update(f"{path.relative_to(file.parent).as_posix()}\0{digest}\n".encode(errors="surrogateescape"))
    except OSError:
        return "unknown"
    return found.hexdigest()


def _code_in(folder: Path) -> Iterator[Path]:
    def cannot(error: OSError) -> None:
        raise error

    for where, folders, files in os.walk(folder, onerror=cannot):
        folders[:] = [each for each in folders if each not in NO_CODE and not each.startswith(".")]
        yield from (Path(where, each) for each in files if Path(each).suffix in CODE)


def libraries() -> dict[str, Plain]:
    """Versions by name; "none" where the library is not in use here."""
    import torch

    nccl = ".".join(str(part) for part in torch.cuda.nccl.version()) if torch.cuda.is_available() else "none"
    found: dict[str, Plain] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "cudnn": str(torch.backends.cudnn.version() or "none"),
        "nccl": nccl,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    for key, distributions in DISTRIBUTIONS.items():
        found[key] = next(filter(None, map(version, distributions)), "none")
    return found


def version(distribution: str) -> str | None:
    """None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
