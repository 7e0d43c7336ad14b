"""Names of the files that a run leaves, of folders made from what people wrote, of accelerators: the one place for them."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

RESULT = re.compile(r"result_(\d{1,9})\.txt")
LARGEST = 10**9 - 1  # N of one: what has more digits is no result's name to any reader
FILE = re.compile(r"(?:result|refused|telemetry)_(\d{1,9})(?:\.node(\d{1,4}))?\.[a-z0-9]{1,8}")
RESULTS = "result_*.txt"  # as a glob, which RESULT narrows
POWER = "power"  # in a result's folder of a submission: its meters' logs, power/result_N/node_M.txt
PROBE, INFERENCE = "probe", "inference"  # how figures that a verb leaves beside results are called
_OF_FIGURES = r"{}_(\d{{1,9}})\.json"
REFUSED = "refused_"  # begins the log of a run that was not begun
BROKEN = ".broken-"  # is in the name of what a broken attempt of a trial left
NAME_LIMIT = 120  # bytes of a folder's name that is made from a text; file systems take 255
PLAN = "plan.json"  # is in the folder of a comparison's plan
NOT_COUNTED = ("warm-up", "again", "broken")  # folders of these two whose runs are not what was to be measured
UNNAMED = "unnamed"
NO_COMMIT = "unknown"  # in the place of a commit
RESULTS_FOLDER, PACKAGES_FOLDER = (
    "results",
    "packages",
)  # of a checkout: what was made with the source and is none of it
NOT_SOURCE = (RESULTS_FOLDER, PACKAGES_FOLDER)
SOURCE = (":(top)", *(f":(top,exclude){each}" for each in NOT_SOURCE))  # what is, as git's pathspecs


# --- a run's files -----------------------------------------------------------------------------------------------------


def result(number: int) -> str:
    """The log of a run."""
    return f"result_{number}.txt"


def of_node(number: int, node: int) -> str:
    """What ranks of another node than the first write beside the log of their run: their stacks, when they are asked."""
    return f"result_{number}.node{node}.log"


def telemetry(log: Path) -> Path | None:
    """What lies beside a run's log and says what its accelerators did; None for a log of another name."""
    name = log.name.replace("result_", "telemetry_", 1)
    return None if name == log.name else log.with_name(name).with_suffix(".jsonl")


def taken_for_its_own(log: Path) -> list[Path]:
    """Telemetry and picture that lie beside where a log is to be, and that readers would take for its run's."""
    return [each for each in (telemetry(log), log.with_suffix(".png")) if each is not None and os.path.lexists(each)]


def refused(number: int) -> str:
    """The log of a run that never began, which nobody counts."""
    return f"{REFUSED}{number}.txt"


def figures(beginning: str, number: int) -> str:
    """What `harness probe` or `harness inference` leaves beside results; the numbers of each are its own."""
    return f"{beginning}_{number}.json"


def is_figures(name: str) -> bool:
    """Whether a file is called so."""
    return any(re.fullmatch(_OF_FIGURES.format(each), name) for each in (PROBE, INFERENCE))


def figures_in(folder: Path, beginning: str) -> list[Path]:
    """Those of a folder, by their numbers."""
    pattern = re.compile(_OF_FIGURES.format(beginning))
    found = [(int(match[1]), path) for path in folder.glob(f"{beginning}_*") if (match := pattern.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def all_figures_in(folder: Path) -> list[tuple[str, Path]]:
    """What verbs have left beside results, each with its beginning."""
    return [(beginning, path) for beginning in (PROBE, INFERENCE) for path in figures_in(folder, beginning)]


def probes_in(folder: Path) -> list[Path]:
    """The probe_N.json of a folder, by their numbers."""
    return figures_in(folder, PROBE)


def number(path: Path) -> int | None:
    """N of result_N.txt; None for any other name."""
    match = RESULT.fullmatch(path.name)
    return int(match[1]) if match else None


def next_number(folder: Path) -> int:
    """One more than the highest N of runs' files in `folder`; 0 when there is none. ValueError where that is too large.

    Not of logs alone: what else a run has left, whose log was moved away, would pass for the next one's.
    """
    left = [found for path in folder.iterdir() if (found := FILE.fullmatch(path.name)) is not None]
    following = max((int(found[1]) for found in left if not found[0].startswith(REFUSED)), default=-1) + 1
    if following > LARGEST:
        raise ValueError(f"{folder}: a run's files have the number {LARGEST}, and none is larger; name another folder")
    return following


def results_in(folder: Path) -> list[Path]:
    """The result_N.txt of a folder, by their numbers."""
    found = [(number(path), path) for path in folder.glob(RESULTS)]
    return [path for which, path in sorted((which, path) for which, path in found if which is not None)]


def beside(log: Path) -> Iterator[tuple[Path, str, str]]:
    """Record, picture and telemetry that a run leaves beside its result_N.txt, each with its name before and after N."""
    which = number(log)
    if which is None:
        return
    for beginning in ("result", "telemetry"):
        for path in sorted(log.parent.glob(f"{beginning}_{which}.*")):
            if path != log and BROKEN not in path.name:
                yield path, f"{beginning}_", path.name.removeprefix(f"{beginning}_{which}")


def of_run(name: str, number: int, node: int | None = None) -> bool:
    """Whether a file of this name, and no path, is one that run `number` leaves: log, word of refusal, telemetry, picture.

    `node`: of a run on several machines, which of them leaves it; None: any.
    """
    found = FILE.fullmatch(name)
    return found is not None and int(found[1]) == number and node in (None, int(found[2] or 0))


def natural(path: Path) -> tuple[object, ...]:
    """A key to sort by, so that result_10 comes after result_9."""
    return tuple(
        (0, int(part[:18]), part) if part.isdecimal() and part.isascii() else (1, 0, part)
        for part in re.split(r"([0-9]+)", str(path))
    )


# --- folders -----------------------------------------------------------------------------------------------------------


def folder(text: str) -> str:
    """A folder's name as the text has it, as far as a file system can: no slash, no control character, no leading dot.

    Two texts never become one name: one that had to be changed ends in a short hash of what it was.
    """
    kept = "".join("_" if each in "/\\:\0" or not each.isprintable() else each for each in text).strip()
    kept = kept.lstrip(".") or UNNAMED
    encoded = kept.encode("utf-8", "replace")
    if len(encoded) > NAME_LIMIT:
        kept = encoded[:NAME_LIMIT].decode("utf-8", "ignore")
    return kept if kept == text else f"{kept}_{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:6]}"


def prepare_command(prepared_by: str, data_dir: Path | str) -> str:
    """What a message tells to type where a data set is not whole; `prepared_by`: the options that say which one it is."""
    return f"python -m harness prepare {prepared_by} --data-dir {shlex.quote(str(data_dir))}"


def of_platform(platform: str) -> str:
    """The folder of a series of ours, by submission.platform: "8x NVIDIA A100-SXM4-40GB" is 8x_nvidia_a100-sxm4-40gb."""
    return re.sub(r"[^a-z0-9.-]+", "_", platform.lower()).strip("_.")[:NAME_LIMIT] or "system"


def anchor(text: str) -> str:
    """Of a place in a page."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "row"


def plain(text: str) -> str:
    """A name that MLPerf's tools take in a package: Latin letters, digits and . _ + - alone, no leading dot.

    A text that had to be changed ends in a short hash of what it was, unless only spaces were in the way.
    """
    kept = re.sub(r"[^A-Za-z0-9._+-]+", "_", text).strip("._-")[:NAME_LIMIT]
    if kept and kept == re.sub(r"\s+", "_", text.strip()).strip("._-"):
        return kept
    return f"{kept or UNNAMED}_{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:6]}"


# --- accelerators ------------------------------------------------------------------------------------------------------

_MAKERS = r"\b(nvidia|tesla|amd|instinct|intel|google)\b\s*"
_FORM = re.compile(r"^(SXM\d?|PCIE|HBM\d?E?|\d+GB|\d+W)$")


def accelerator_model(reported: str) -> str:
    """A model's name without what varies between those who report it: maker, power limit, spelling of its form and size.

    "NVIDIA A100-SXM4-40GB (400W)", as a system description has it, and the driver's "NVIDIA A100-SXM4-40GB" are one model, and
    so are "A100-SXM-80GB" and "A100-SXM4-80GB": that chip has no other SXM.
    """
    name = reported[:200]
    name = re.sub(r"\s*\(\s*\d+\s*W\s*\)|\((R|TM)\)", "", name, flags=re.IGNORECASE)
    name = re.sub(_MAKERS, "", name, flags=re.IGNORECASE)
    name = re.sub(r"\bPCI-?E\b", "PCIe", name, flags=re.IGNORECASE)
    name = re.sub(r"\b(\d+)\s+GB\b", r"\1GB", name, flags=re.IGNORECASE)
    name = re.sub(r"\b(V100|A100|H100|H200|B200)([ -])SXM\d?\b", _sxm, name, flags=re.IGNORECASE)
    return " ".join(name.split()) or "unknown"


def _sxm(match: re.Match[str]) -> str:
    """An SXM of no generation has its chip's, where the chip came in one alone; V100 came in two."""
    chip, said = match[1].upper(), match[0].upper()
    only = {"A100": "4", "H100": "5", "H200": "5", "B200": "6"}.get(chip, "")
    return f"{match[1]}{match[2]}SXM{said[-1] if said[-1].isdigit() else only}"


def accelerator_family(model: str) -> str:
    """A100 of "A100-SXM4-40GB", TPU v4 of "TPU v4", H100 of "H100 80GB HBM3"."""
    words = model.replace("-", " ").split()
    if len(words) > 1 and not any(character.isdigit() for character in words[0]):
        return f"{words[0]} {words[1]}"
    return words[0] if words else model


def same_accelerator(one: str, other: str) -> bool:
    """Whether both texts name the same model: V100 in '8x NVIDIA V100-SXM2-16GB' and 'Tesla V100-SXM2-16GB'."""
    makers = ["ILUVATAR" in text.upper() for text in (one, other)]  # its BI-V100 is another chip
    return makers[0] == makers[1] and bool(_models(one) & _models(other))


def _models(text: str) -> set[str]:
    words = text.upper().replace("-", " ").split()
    return {word for word in words if word[0].isalpha() and any(map(str.isdigit, word)) and not _FORM.match(word)}
