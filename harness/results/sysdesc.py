"""A system description as MLPerf asks for it (systems/SYSTEM.json): 33 fields, every value text.

Made from the tables that a run's log has (hardware, software, image), so that it describes the machine that ran, or from the
same tables of this machine. It asks nothing and invents nothing: what only a person can know is marked `FILL IN` where the
rules want an answer, and left empty where they do not. `check` refuses a package in which a mark is left.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import outside
from harness.results.said import number
from harness.rules import rulesets

FIELDS = (
    *("submitter", "division", "status", "system_name", "number_of_nodes", "host_processors_per_node"),
    *("host_processor_model_name", "host_processor_core_count", "host_processor_vcpu_count"),
    *("host_processor_frequency", "host_processor_caches", "host_processor_interconnect", "host_memory_capacity"),
    *("host_storage_type", "host_storage_capacity", "host_networking", "host_networking_topology"),
    *("host_memory_configuration", "accelerators_per_node", "accelerator_model_name"),
    *("accelerator_host_interconnect", "accelerator_frequency", "accelerator_on-chip_memories"),
    *("accelerator_memory_configuration", "accelerator_memory_capacity", "accelerator_interconnect"),
    *("accelerator_interconnect_topology", "cooling", "hw_notes", "framework", "other_software_stack"),
    *("operating_system", "sw_notes"),
)
MARK = "FILL IN: "
NONE = "N/A"
# The words of rulesets before 4.0, which the logs use too, and those that the checker wants from 4.0 on
STATUS_WORDS = {
    "onprem": "Available on-premise",
    "cloud": "Available cloud",
    "preview": "Preview",
    "research": "Research, Development, or Internal (RDI)",
}
LIBRARIES = {  # key in a log's software table: what the distribution's name begins with
    "torch": "torch",
    "cuda": "nvidia-cuda-runtime",
    "cudnn": "nvidia-cudnn",
    "nccl": "nvidia-nccl",
    "dali": "nvidia-dali",
}

# Whole disks as the kernel names them; a path of an NVMe disk that has several is nvme0c1n1, beside the disk's nvme0n1
DISK = re.compile(r"nvme\d+n\d+|(?:s|h|v|xv)d[a-z]+|mmcblk\d+")
CORES = re.compile(r"Arm Neoverse-|Ampere-1|.* implementer 0x")  # all that an Arm processor's kernel tells of it

Table = Mapping[str, Any]


def describe(hardware: Table, software: Table, image: Table, given: Mapping[str, str]) -> dict[str, str]:
    """The description. `given` is what a person says; it wins over what was found. ValueError for an unknown field."""
    for key in given:
        if key not in FIELDS:
            raise ValueError(f"{key} is no field of a system description; there are: {', '.join(FIELDS)}")
    found = {
        "submitter": f"{MARK}your organization",
        "division": f"{MARK}closed or open",
        "status": f"{MARK}one of {', '.join(STATUS_WORDS)} (from ruleset 4.0: {', '.join(STATUS_WORDS.values())})",
        "system_name": f"{MARK}what the system is called",
        "number_of_nodes": "1",
        **_host(hardware),
        **_accelerators(hardware, software),
        "framework": f"PyTorch {software['torch']}" if software.get("torch") else f"{MARK}framework and its version",
        "other_software_stack": software_stack(software, image),
        "operating_system": str(software.get("os") or f"{MARK}operating system"),
        "hw_notes": _limits(hardware),
        "sw_notes": _kernel(software),
    }
    return {key: given.get(key, found.get(key, "")) for key in FIELDS}


def to_fill_in(description: Mapping[str, str]) -> list[str]:
    """The fields that a person must still answer."""
    return [key for key, value in description.items() if value.startswith(MARK)]


def check_ruleset(ruleset: str) -> None:
    """ValueError for what names no ruleset."""
    if ruleset not in rulesets():
        raise ValueError(f"--ruleset {ruleset}: not one of {', '.join(rulesets())}")


def status_words(ruleset: str) -> tuple[str, ...]:
    """What a description may have as its status; by the older rules where the text names none."""
    major = re.match(r"\d{1,3}(?=\.)", ruleset)
    return tuple(STATUS_WORDS.values() if major and int(major[0]) >= 4 else STATUS_WORDS)


def status_word(status: str, ruleset: str) -> str:
    """A status of either vocabulary in that of the ruleset. ValueError for one of neither."""
    for words, wanted in zip(STATUS_WORDS.items(), status_words(ruleset), strict=True):
        if status.casefold() in map(str.casefold, words):
            return wanted
    raise ValueError(f'status "{status}": one of {", ".join(STATUS_WORDS)}, or {", ".join(STATUS_WORDS.values())}')


def installed() -> dict[str, str]:
    """Versions of LIBRARIES as installed here, found without importing any."""
    versions: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower()
        for key, beginning in LIBRARIES.items():
            if name == beginning or (key != "torch" and re.fullmatch(rf"{beginning}-cu(da)?\d+", name)):
                versions.setdefault(key, distribution.version)
    return versions


def storage(root: Path = Path("/")) -> dict[str, str]:
    """Kind and size of this machine's disks, as far as the kernel shows them."""
    kinds: list[str] = []
    sizes: list[str] = []
    seen: set[str] = set()
    for disk in sorted((root / "sys/block").glob("*")):
        if not DISK.fullmatch(disk.name) or outside.text(disk / "removable") == "1":
            continue
        identity = outside.text(disk / "wwid") or outside.text(disk / "device/wwid")
        sectors = outside.text(disk / "size")
        if sectors.isdecimal() and int(sectors) and identity not in seen:  # one disk may be there by several ways
            seen |= {identity} - {""}
            turning = outside.text(disk / "queue/rotational") == "1"
            virtual = disk.name.startswith(("vd", "xvd"))  # whatever a virtual disk says of itself
            kinds.append(
                "NVMe" if disk.name.startswith("nvme") else "virtual disk" if virtual else "HDD" if turning else "SSD"
            )
            sizes.append(f"{int(sectors) * 512 / 1e9:.0f} GB")
    if not kinds:
        return {}
    return {"host_storage_type": "+".join(dict.fromkeys(kinds)), "host_storage_capacity": " + ".join(_counted(sizes))}


def software_stack(software: Table, image: Table) -> str:
    """Driver, CUDA, cuDNN, NCCL, DALI and the image, in one line."""
    parts = {
        "driver": software.get("driver"),
        "driver mode": software.get("driver_mode"),
        "cuda": software.get("cuda"),
        ("miopen" if software.get("rocm") else "cudnn"): _dnn_library(software),
        "nccl": software.get("nccl"),
        "dali": software.get("dali"),
        "rocm": software.get("rocm"),
        "python": software.get("python"),
        "image": image.get("digest") or image.get("id") or "none",
        "image sbom sha256": image.get("sbom_sha256"),
    }
    return ", ".join(f"{name} {value}" for name, value in parts.items() if value not in (None, ""))


def _host(hardware: Table) -> dict[str, str]:
    sockets, cores, threads = (_count(hardware.get(key)) for key in ("sockets", "cores", "threads"))
    model = str(hardware.get("cpu") or f"{MARK}processor")
    frequency = re.search(r"@\s*([\d.]+\s*[GM]Hz)", model)
    memory = number(hardware.get("memory_gib"))
    return {
        "host_processors_per_node": str(sockets) if sockets else f"{MARK}how many processors a node has",
        "host_processor_model_name": f"{MARK}processor, whose cores are {model}" if CORES.match(model) else model,
        "host_processor_core_count": str(cores // sockets) if cores and sockets else f"{MARK}cores of one processor",
        "host_processor_vcpu_count": str(threads) if threads else "",
        "host_processor_frequency": frequency[1] if frequency else "",
        "host_memory_capacity": f"{memory:.0f} GiB" if memory else f"{MARK}memory of one node",
        "host_storage_type": f"{MARK}kind of the disks that hold the data",
        "host_storage_capacity": f"{MARK}size of the disks that hold the data",
    }


def _accelerators(hardware: Table, software: Table) -> dict[str, str]:
    if not isinstance(hardware.get("accelerators"), list):  # not a log of ours: nothing is known
        unknown = {"accelerators_per_node": "how many", "accelerator_model_name": "which"}
        return {key: f"{MARK}{what} accelerators a node has" for key, what in unknown.items()}
    names = [str(each) for each in hardware["accelerators"]]
    others = hardware.get("accelerators_unusable")
    unusable = [str(each) for each in others] if isinstance(others, list) else []
    if not names and (unusable or software.get("driver_mode") == "OTHER-VENDOR"):  # older logs have the latter alone
        seen = f"; programs could not use what is here: {' + '.join(_counted(unusable))}" if unusable else ""
        unknown = {"accelerators_per_node": "how many", "accelerator_model_name": "which"}
        return {key: f"{MARK}{what} accelerators a node has{seen}" for key, what in unknown.items()}
    if not names:
        keys = ("model_name", "memory_configuration", "memory_capacity", "interconnect", "host_interconnect")
        return {"accelerators_per_node": "0", **{f"accelerator_{key}": NONE for key in keys}}
    gpus = hardware.get("gpus")
    gpu = _one_of(names, gpus if isinstance(gpus, list) else [])
    memory, power, clock = (number(gpu.get(key)) for key in ("memory_mib", "power_limit_w", "clock_sm_max_mhz"))
    links = _count(gpu.get("nvlinks"))
    model = " + ".join(_counted(names)) if len(set(names)) > 1 else names[0]
    generation, width = gpu.get("pcie_generation_max"), gpu.get("pcie_width_max")
    return {
        "accelerators_per_node": str(len(names)),
        "accelerator_model_name": f"{model} ({power:.0f}W)" if power else model,
        "accelerator_frequency": f"{clock:.0f} MHz" if clock else "",
        "accelerator_memory_capacity": f"{memory / 1024:.0f} GiB" if memory else f"{MARK}memory of one accelerator",
        "accelerator_memory_configuration": f"{MARK}kind of the accelerator's memory, as HBM3",
        "accelerator_host_interconnect": f"PCIe {generation} x{width}" if generation and width else "",
        "accelerator_interconnect": f"NVLink, {links} links" if links else "",
    }


def _one_of(names: list[str], gpus: list[Any]) -> Table:
    """What the driver tells of one of the devices that are meant, if they are all of one kind: it tells of hidden ones too.

    Of a part (MIG) it tells nothing by the part's name.
    """
    mine = [each for each in gpus if isinstance(each, dict) and each.get("name", names[0]) == names[0]]
    return mine[0] if mine and len(set(names)) == 1 else {}


def _limits(hardware: Table) -> str:
    """That a run had less than the whole machine."""
    notes = []
    usable, threads = _count(hardware.get("usable_threads")), _count(hardware.get("threads"))
    if usable and threads and usable < threads:
        notes.append(f"{usable} of {threads} threads usable")
    if number(quota := hardware.get("cpu_quota")):
        notes.append(f"time of {quota:g} processors by quota")
    if number(limit := hardware.get("memory_limit_gib")):
        notes.append(f"memory limited to {limit:g} GiB")
    return "; ".join(notes)


def _kernel(software: Table) -> str:
    kernel = software.get("kernel")
    place = "in a container" if software.get("container") is True else ""
    return "; ".join(each for each in (f"Linux {kernel}" if kernel else "", place) if each)


def _dnn_library(software: Table) -> str:
    """PyTorch says 92400 for cuDNN 9.24.0, 8902 for 8.9.2; and of ROCm in its place 3005001 for MIOpen 3.5.1."""
    version = str(software.get("cudnn", ""))
    if not version.isdecimal():
        return version
    if software.get("rocm"):
        return f"{int(version) // 1_000_000}.{int(version) // 1000 % 1000}.{int(version) % 1000}"
    major = 10_000 if int(version) >= 90_000 else 1_000
    return f"{int(version) // major}.{int(version) % major // 100}.{int(version) % 100}"


def _counted(names: list[str]) -> list[str]:
    return [f"{names.count(each)}x {each}" if names.count(each) > 1 else each for each in dict.fromkeys(names)]


def _count(value: Any) -> int | None:
    found = number(value)
    return int(found) if found is not None and found > 0 else None


def accelerators(description: Mapping[str, Any]) -> int | None:
    """How many a system's description says, of all nodes; None where one of the two is no number."""
    nodes, each = (str(description.get(key, ""))[:9] for key in ("number_of_nodes", "accelerators_per_node"))
    return int(nodes) * int(each) if nodes.isdecimal() and each.isdecimal() else None
