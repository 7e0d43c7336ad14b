"""The machine under the GPUs, from recorded texts of /proc and /sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.results import sysdesc
from harness.system import cgroup, host, places

PROCESSOR = """processor\t: {number}
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R)  Gold 6448Y
physical id\t: {socket}
core id\t\t: {core}
flags\t\t: fpu vme
power management:"""
TWO_SOCKETS = "\n\n".join(PROCESSOR.format(number=n, socket=n // 4, core=n // 2) for n in range(8))
ARM = "processor\t: 0\nBogoMIPS\t: 2000.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n\nprocessor\t: 1\nBogoMIPS\t: 2000.00\n"


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_two_sockets_with_hyperthreads(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "proc/cpuinfo": TWO_SOCKETS,
            "proc/meminfo": "MemTotal:       1056784064 kB\nMemFree: 1 kB\n",
            "proc/sys/kernel/random/boot_id": "0c5d1a5e-7f3e-4a0b-9a53-6a4c8c0b9a11\n",
            "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 24.04.2 LTS"\n',
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave\n",
            "sys/devices/system/node/node0/cpulist": "0-3\n",
            "sys/devices/system/node/node1/cpulist": "4-7\n",
        },
    )
    found = host.read(tmp_path)

    assert (found.cpu.model, found.cpu.sockets) == ("Intel(R) Xeon(R) Gold 6448Y", 2)
    assert (found.cpu.cores, found.cpu.threads, found.cpu.numa_nodes) == (4, 8, 2)
    assert found.cpu.governors == ("performance", "powersave")
    assert (found.memory_gib, found.memory_limit_gib, found.os) == (1007.8, None, "Ubuntu 24.04.2 LTS")
    assert not found.container
    assert found.boot_id == "0c5d1a5e-7f3e-4a0b-9a53-6a4c8c0b9a11"
    assert host.read(tmp_path / "of another kernel").boot_id is None


def test_arm_has_numbers_for_a_name(tmp_path: Path) -> None:
    found = host.read(lay(tmp_path, {"proc/cpuinfo": ARM.replace("0xd4f", "0xfff")}))

    assert found.cpu.model.endswith("implementer 0x41 part 0xfff")
    assert sysdesc.describe({"cpu": found.cpu.model}, {}, {}, {})["host_processor_model_name"].startswith(sysdesc.MARK)
    assert (found.cpu.sockets, found.cpu.cores, found.cpu.threads, found.cpu.governors) == (1, 2, 2, ())


V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)
JOB = "system.slice/slurmstepd.scope/job_7"
# The process's own group, and those above it: what was read was the topmost alone, which on a host limits nothing
NESTED: list[tuple[dict[str, str], float | None, float | None]] = [
    (  # a step's memory is the job's, and a service's quota is its slice's
        {
            "proc/self/cgroup": f"0::/{JOB}/step_0/user/task_0\n",
            "proc/self/mountinfo": V2,
            f"sys/fs/cgroup/{JOB}/memory.max": "17179869184\n",
            f"sys/fs/cgroup/{JOB}/step_0/memory.max": "34359738368\n",
            f"sys/fs/cgroup/{JOB}/step_0/user/task_0/memory.max": "max\n",
            f"sys/fs/cgroup/{JOB}/step_0/cpu.max": "800000 100000\n",
            "sys/fs/cgroup/system.slice/cpu.max": "400000 100000\n",
            "sys/fs/cgroup/another.slice/cpu.max": "100000 100000\n",
        },
        4.0,
        16.0,
    ),
    (  # version 1, whose controllers have a path each
        {
            "proc/self/cgroup": "4:memory:/job/step\n3:cpu,cpuacct:/job\n1:name=systemd:/user.slice\n0::/\n",
            "proc/self/mountinfo": V1.format(top="/"),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/job/step/memory.limit_in_bytes": "8589934592\n",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "250000\n",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
        },
        2.5,
        8.0,
    ),
    (  # a container of version 1: it is told the host's path, and has its group mounted as the topmost
        {
            "proc/self/cgroup": "4:memory:/docker/0123\n3:cpu,cpuacct:/docker/0123\n",
            "proc/self/mountinfo": V1.format(top="/docker/0123"),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "4294967296\n",
        },
        None,
        4.0,
    ),
    (  # a process that was moved out of what its container sees
        {
            "proc/self/cgroup": "0::/../other\n",
            "proc/self/mountinfo": V2,
            "sys/fs/cgroup/memory.max": "4294967296\n",
        },
        None,
        4.0,
    ),
]


def test_grace_has_two_sockets_and_the_memory_of_its_gpus_no_processors(tmp_path: Path) -> None:
    """Of a Grace Hopper with two modules /proc tells no sockets, and each GPU's memory is a node of its own."""
    block = "processor\t: {}\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n"
    files = {"proc/cpuinfo": "\n".join(block.format(number) for number in range(144))}
    for number in range(144):
        folder = f"sys/devices/system/cpu/cpu{number}/topology"
        files[f"{folder}/physical_package_id"] = f"{number // 72}\n"
        files[f"{folder}/thread_siblings_list"] = f"{number}\n"
    for node, cpus in {0: "0-71", 1: "72-143", **dict.fromkeys(range(2, 18), "")}.items():
        files[f"sys/devices/system/node/node{node}/cpulist"] = f"{cpus}\n"
    found = host.read(lay(tmp_path, files)).cpu

    assert found.model == "Arm Neoverse-V2"
    assert (found.sockets, found.cores, found.threads, found.numa_nodes) == (2, 144, 144, 2)


@pytest.mark.parametrize(
    ("files", "quota", "limit"),
    [
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n", "sys/fs/cgroup/memory.max": "8589934592\n"}, 1.5, 8.0),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/memory.max": "max\n"}, None, None),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            None,
            None,
        ),
        (
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            4.0,
            None,
        ),
        *NESTED,
    ],
)
def test_limits_of_both_kinds_of_cgroup(
    tmp_path: Path, files: dict[str, str], quota: float | None, limit: float | None
) -> None:
    found = host.read(lay(tmp_path, {"proc/meminfo": "MemTotal: 33554432 kB\n", **files}))

    assert (found.cpu.quota, found.memory_limit_gib) == (quota, limit)


@pytest.mark.parametrize(
    "marks",
    [
        {".dockerenv": ""},
        {"run/.containerenv": ""},
        {"run/systemd/container": "systemd-nspawn\n"},
        {"proc/1/environ": "TERM=linux\0container=lxc\0"},
        {"proc/self/environ": "container=podman\0HOME=/root\0"},
        {"proc/1/cgroup": "4:memory:/kubepods/burstable/pod1/0123\n"},
        {"proc/1/cgroup": "0::/", "run/secrets/kubernetes.io/serviceaccount/token": "x"},
        {"proc/1/cgroup": "0::/", "etc/hosts": "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"},
        {".singularity.d/runscript": ""},
    ],
)
def test_containers_by_their_marks(tmp_path: Path, marks: dict[str, str]) -> None:
    assert host.in_container(lay(tmp_path, marks))


def test_a_host_is_no_container(tmp_path: Path) -> None:
    host_s = {
        "proc/1/cgroup": "0::/init.scope\n",
        "proc/1/environ": "HOME=/\0TERM=linux\0",
        "proc/self/environ": "MY_container=none\0container=/images/ours.sqsh\0",
        "etc/hosts": "127.0.0.1 localhost\n",
        "run/systemd/system/x": "",
        "run/systemd/container": "wsl\n",
    }
    assert not host.in_container(lay(tmp_path, host_s))


def test_this_machine() -> None:
    found = host.read()

    assert 1 <= found.cpu.usable <= found.cpu.threads
    assert 1 <= found.cpu.sockets <= found.cpu.cores <= found.cpu.threads
    assert found.memory_gib > 0.1


def test_places(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/export {tmp_path.resolve()}/data nfs4 ro 0 0\n")

    empty = places.look(tmp_path / "data", mounts)
    assert (empty.exists, empty.empty, empty.filesystem, empty.remote) == (True, True, "nfs4", True)
    (tmp_path / "data/image.jpg").touch()
    assert not places.look(tmp_path / "data", mounts).empty

    coming = places.look(tmp_path / "out/deeper", mounts)
    assert (coming.exists, coming.writable, coming.filesystem) == (False, True, "ext4")
    assert 0 < coming.free_gib <= coming.size_gib

    nowhere = places.look(
        tmp_path / ("x" * 300) / "out", mounts
    )  # as a folder above that lets nobody through, or a stale one
    assert (nowhere.exists, nowhere.writable, nowhere.unreachable) == (False, False, "File name too long")

    in_the_way = places.look(mounts / "out", mounts)  # a file where a folder should be
    assert not in_the_way.writable


@pytest.mark.parametrize(
    ("files", "kills"),
    [
        (
            {
                "proc/self/cgroup": "0::/job/step\n",
                "proc/self/mountinfo": V2,
                "sys/fs/cgroup/job/memory.events": "oom_kill 7\n",
                "sys/fs/cgroup/job/step/memory.events": "low 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 1\n",
            },
            2,  # and none of another step's
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/job\n0::/\n",
                "proc/self/mountinfo": V1.format(top="/"),
                "sys/fs/cgroup/memory/job/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n",
            },
            5,
        ),
        ({}, None),
    ],
)
def test_kills_for_want_of_memory_of_both_kinds_of_cgroup(
    tmp_path: Path, files: dict[str, str], kills: int | None
) -> None:
    assert cgroup.memory_kills(lay(tmp_path, files)) == kills


def test_how_many_processes_a_control_group_allows(tmp_path: Path) -> None:
    own = {"proc/self/cgroup": "0::/job/step\n", "proc/self/mountinfo": V2}
    limits = {"sys/fs/cgroup/job/pids.max": "40\n", "sys/fs/cgroup/job/step/pids.max": "max\n"}
    assert cgroup.most_processes(lay(tmp_path, {**own, **limits})) == 40
    assert cgroup.most_processes(tmp_path / "nothing") is None
