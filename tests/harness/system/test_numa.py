"""Shares of processors: a rank's are beside its device, no core is two ranks', and what a machine lacks is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.contract import NotSuitable
from harness.system import numa


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Two sockets of four cores with two threads each, numbered as servers do: 0-3 and 8-11 on node 0."""
    system = tmp_path / "sys/devices/system"
    for node, listed in ((0, "0-3,8-11"), (1, "4-7,12-15")):
        folder = system / f"node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(f"{listed}\n")
    for cpu in range(16):
        folder = system / f"cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 8},{cpu % 8 + 8}\n")
    for bus, node in (("0000:07:00.0", "0"), ("0000:b7:00.0", "1"), ("0000:c1:00.0", "-1")):
        folder = tmp_path / "sys/bus/pci/devices" / bus
        folder.mkdir(parents=True)
        (folder / "numa_node").write_text(f"{node}\n")
    return tmp_path


def test_the_kernels_lists_both_ways() -> None:
    assert numa.cpus_of("0-2,8,10-11") == {0, 1, 2, 8, 10, 11}
    assert numa.listed({11, 0, 2, 1, 8, 10}) == "0-2,8,10-11"
    assert numa.cpus_of("") == set()


def test_cores_are_whole_and_nobody_elses(machine: Path) -> None:
    there = numa.nodes(range(16), machine)
    homes = [0, 0, 1, 1]
    shares = [numa.share("cores", there, homes, rank) for rank in range(4)]
    assert [numa.listed(each) for each in shares] == ["0-1,8-9", "2-3,10-11", "4-5,12-13", "6-7,14-15"]
    assert sum(map(len, shares)) == len(frozenset().union(*shares)) == 16


def test_a_node_is_shared_by_its_ranks(machine: Path) -> None:
    there = numa.nodes(range(16), machine)
    assert numa.listed(numa.share("node", there, [1, 0, 1], 2)) == "4-7,12-15"


def test_only_what_this_process_may_use_is_shared_out(machine: Path) -> None:
    """A container's, or a job's: half of node 1, and of one core of node 0 one thread alone."""
    there = numa.nodes({0, 4, 5, 12, 13}, machine)
    assert [each.cores for each in there] == [((0,),), ((4, 12), (5, 13))]
    with pytest.raises(NotSuitable, match=r"node 0 has 1 cores that this process may use, for 2 ranks; say \"node\""):
        numa.share("cores", there, [0, 0], 0)
    with pytest.raises(
        NotSuitable, match=r"belongs to NUMA node 1, of which .* no processor \(it may use those of 0\)"
    ):
        numa.share("cores", numa.nodes({0, 8}, machine), [0, 1], 1)


def test_ranks_without_a_device_are_spread(machine: Path) -> None:
    there = numa.nodes(range(16), machine)
    assert numa.spread(4, there) == [0, 0, 1, 1]
    assert numa.spread(1, there) == [0]
    assert numa.spread(3, there) == [0, 0, 1]


def test_where_a_device_is(machine: Path, tmp_path: Path) -> None:
    assert [numa.of_device(bus, machine) for bus in ("0000:07:00.0", "0000:b7:00.0")] == [0, 1]
    with pytest.raises(
        NotSuitable, match=r"2 NUMA nodes and does not say on which 0000:c1:00\.0 is \(its numa_node is -1\)"
    ):
        numa.of_device("0000:c1:00.0", machine)
    with pytest.raises(NotSuitable, match="its numa_node is not there"):
        numa.of_device("0000:ff:00.0", machine)
    assert numa.of_device("0000:c1:00.0", tmp_path / "a machine that tells nothing") == 0


def test_a_node_of_memory_alone_is_no_choice(machine: Path) -> None:
    """A GPU's on Grace Hopper, or CXL's."""
    folder = machine / "sys/devices/system/node"
    for name in ("node2", "node3"):
        (folder / name).mkdir()
        (folder / name / "cpulist").write_text("\n")
    assert [each.number for each in numa.nodes(range(16), machine)] == [0, 1]
    (folder / "node1/cpulist").write_text("\n")
    assert numa.of_device("0000:c1:00.0", machine) == 0, "the one that has processors"


def test_a_kernel_that_shows_no_nodes_has_one(tmp_path: Path) -> None:
    assert numa.nodes({3, 1}, tmp_path) == [numa.NumaNode(0, ((1,), (3,)))]
