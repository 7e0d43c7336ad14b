"""What one node of a cluster has to say before a trial begins there, and whether all nodes may: data, results, code, clocks.

`python -m harness.launch.node NAME CONFIGURATION TARGET ORG OUT DATA_DIR INITIAL_WEIGHTS` (which may be empty from ORG on) runs
once on each node, in the container that the trial will have, and prints one line that `judge` reads where the series is.
"""

from __future__ import annotations

import json
import platform
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.contract import NotSuitable
from harness.names import NO_COMMIT
from harness.request import Request, check_inputs
from harness.results.account import FILE

MARK = "harness-node "  # begins the line
CLOCKS_S = 30.0  # that clocks may differ, beyond the time that it took to ask


@dataclass(frozen=True)
class NodeReport:
    """What it found."""

    name: str
    time_s: float  # its clock
    configuration_sha256: str  # as this node's code reads the file; empty where it cannot
    commit: str
    port: int  # free on it just now
    problem: str = ""  # what is to be read and is not there

    @classmethod
    def read(cls, output: str) -> list[NodeReport]:
        """The nodes that answered, among whatever else was printed."""
        found = [line.partition(MARK)[2] for line in output.splitlines() if MARK in line]
        return sorted((cls(**json.loads(each)) for each in found), key=lambda node: node.name)


def judge(found: Sequence[NodeReport], sha256: str, began_s: float, ended_s: float) -> None:
    """Whether a trial may begin on these nodes, which were asked between two moments of this machine's clock.

    ValueError when data or code are not the same everywhere, NotSuitable when their clocks are apart.
    """
    for each in found:
        if each.problem:
            raise ValueError(f"node {each.name}: {each.problem}")
    for each in found:
        if each.configuration_sha256 != sha256:
            raise ValueError(
                f"node {each.name}: its code reads the configuration as {each.configuration_sha256[:12]}, which is "
                f"{sha256[:12]} here: install or mount the same version on every node, or build the image from this checkout"
            )
    known = [each for each in found if not each.commit.startswith(NO_COMMIT)]  # without git, or too busy to answer
    for each in known:
        if each.commit != known[0].commit:
            raise ValueError(
                f"nodes have different code: {known[0].name} is at commit {known[0].commit[:12]}, {each.name} at "
                f"{each.commit[:12]}"
            )
    taken_s = ended_s - began_s
    apart = [(max(each.time_s - ended_s, 0.0), f"node {each.name}", "this machine") for each in found]
    apart += [(max(began_s - each.time_s, 0.0), "this machine", f"node {each.name}") for each in found]
    early, late = (pick(found, key=lambda node: node.time_s) for pick in (min, max))
    apart.append((late.time_s - early.time_s - taken_s, f"node {late.name}", f"node {early.name}"))
    seconds, ahead, behind = max(apart)
    if seconds > CLOCKS_S:
        raise NotSuitable(
            f"clocks are apart: that of {ahead} is {seconds:.0f} s ahead of that of {behind}, and the stamps of a run must be "
            "comparable; let chronyd or ntpd set them (`chronyc tracking`)"
        )


def look(name: str, asked: Request, target: float) -> NodeReport:
    """This node, as a trial would find it that is asked for the same."""
    from harness import config
    from harness.execution import provenance
    from harness.system import image

    problem, sha256 = "", ""
    try:
        chosen = config.load(Path(str(asked.configuration)), target=target, org=asked.org)
        check_inputs(asked, chosen.prepared_by)
        if asked.out is not None and not (asked.out / FILE).is_file():
            raise ValueError(
                f"--out {asked.out}: the ledger of this series is not there, so this is another disk: results must lie where "
                "all nodes see them; name a folder of a disk that they share"
            )
        sha256 = chosen.sha256
    except ValueError as error:
        problem = str(error)
    commit, changed = provenance.commit(image.identity({}))
    with socket.socket() as listening:
        listening.bind(("", 0))
        port = int(listening.getsockname()[1])
    return NodeReport(name or platform.node(), time.time(), sha256, f"{commit}{'-changed' * changed}", port, problem)


def words(asked: Request, target: float) -> list[str]:
    """The command line behind the node's name that `main` reads: of a trial, as its ranks are told it."""
    told = (asked.org, asked.out, asked.data_dir, asked.initial_weights)
    return [str(asked.configuration), repr(target), *(str(each or "") for each in told)]


def main(arguments: Sequence[str]) -> None:
    name, configuration, target, org, *paths = arguments
    out, data_dir, initial_weights = (Path(each) if each else None for each in paths)
    asked = Request(
        configuration=configuration, org=org or None, out=out, data_dir=data_dir, initial_weights=initial_weights
    )
    found = look(name, asked, float(target))
    sys.stdout.write(f"{MARK}{json.dumps(asdict(found))}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
