"""A system description held against what a log of ours says of its own machine.

The description is a person's, the log's tables are the machine's. People write a model otherwise than its driver does ("NVIDIA
H100-SXM5-80GB" for "NVIDIA H100 80GB HBM3"), so names need not be equal: they must not be of different models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness import names
from harness.results.checking.findings import Severity
from harness.results.record import RunRecord
from harness.results.said import number
from harness.results.sysdesc import CORES

Disagreement = tuple[str, str, str, Severity]  # key of the log, what is said, what to do, how bad

_SIZE = re.compile(r"\b(\d+)\s*GB\b", re.IGNORECASE)
_FORM = re.compile(r"SXM|PCI-?E|NVL|OAM", re.IGNORECASE)
_CPU_NOISE = re.compile(r"\((?:R|TM)\)|@.*|\b\d+-core\b|\b(?:cpu|processor)s?\b", re.IGNORECASE)
_VERSION = re.compile(r"\d+(?:\.\d+)+|\d+")


def disagreements(description: Mapping[str, Any], record: RunRecord) -> Iterator[Disagreement]:
    """What the description says otherwise than the log; nothing for a log that does not tell, as no other's does."""
    yield from _nodes(description, record)
    if record.hardware:
        yield from _accelerators(description, record)
        yield from _processors(description, record)
    yield from _software(description, record)


def _nodes(description: Mapping[str, Any], record: RunRecord) -> Iterator[Disagreement]:
    ran, said = record.nodes, _count(description, "number_of_nodes")
    if None not in (ran, said) and said != ran:
        yield "configuration", f"{ran} nodes, the system has {said}", "correct number_of_nodes", "error"


def _count(description: Mapping[str, Any], key: str) -> int | None:
    """A count that it has as text; None of what is none, which is found by itself."""
    said = description.get(key)
    return int(said[:9]) if isinstance(said, str) and said.isdecimal() else None


def _accelerators(description: Mapping[str, Any], record: RunRecord) -> Iterator[Disagreement]:
    there = record.hardware.get("accelerators")
    if not isinstance(there, list) or (not there and record.hardware.get("accelerators_unusable")):
        return  # of what programs could not use, only a person knows
    if not there and record.software.get("driver_mode") == "OTHER-VENDOR":
        return
    device = record.text("device") or ""
    if not there and not device.startswith("cpu") and record.accelerators:
        return  # accelerators whose driver tells no names
    said = _count(description, "accelerators_per_node")
    used = record.accelerators_per_node if there else None
    if said is not None and said not in (len(there), used):
        text = f"{len(there)} accelerators a node, the system has {said}"
        yield "hardware", text, "correct accelerators_per_node", "error"
    model = description.get("accelerator_model_name")
    if isinstance(model, str):
        for each in dict.fromkeys(str(name) for name in there):
            if not same_accelerator(each, model):
                text = f"{each}, the system's accelerator is {model}"
                yield "hardware", text, "write accelerator_model_name as the log has it", "error"


def _processors(description: Mapping[str, Any], record: RunRecord) -> Iterator[Disagreement]:
    cpu, model = record.hardware.get("cpu"), description.get("host_processor_model_name")
    if isinstance(cpu, str) and CORES.match(cpu):
        cpu = None  # a core's design is in processors of several makers
    if isinstance(cpu, str) and cpu and isinstance(model, str) and not same_processor(cpu, model):
        text = f"{cpu}, the system's processor is {model}"
        yield "hardware", text, "write host_processor_model_name as the log has it", "error"
    sockets, said = number(record.hardware.get("sockets")), _count(description, "host_processors_per_node")
    if sockets and said is not None and said != sockets:
        text = f"{sockets:g} processors a node, the system has {said}"
        yield "hardware", text, "correct host_processors_per_node", "warning"
    cores, said = number(record.hardware.get("cores")), _count(description, "host_processor_core_count")
    if cores and sockets and said is not None and said not in (cores, cores // sockets):  # of all processors, or of one
        text = f"{cores:g} cores in {sockets:g} processors, the system has {said}"
        yield "hardware", text, "correct host_processor_core_count", "warning"


def _software(description: Mapping[str, Any], record: RunRecord) -> Iterator[Disagreement]:
    for field, key, name in (("framework", "torch", "PyTorch"), ("operating_system", "os", "")):
        ran, said = record.software.get(key), description.get(field)
        if (
            isinstance(ran, str)
            and ran.strip()
            and isinstance(said, str)
            and said
            and not _same_release(f"{name} {ran}", said)
        ):
            yield "software", f"{name} {ran}, the system's is {said}".strip(), f"correct {field}", "warning"


def same_accelerator(logged: str, described: str) -> bool:
    """Whether both can be one model: one name within the other, or one chip of no different size or form."""
    if _within(*(names.accelerator_model(each) for each in (logged, described))):
        return True
    differ = any(_apart(pattern, logged, described) for pattern in (_SIZE, _FORM))
    return names.same_accelerator(logged, described) and not differ


def same_processor(logged: str, described: str) -> bool:
    """Likewise; a number of the model in both is enough, as 7742 or 8480C."""
    one, other = (_CPU_NOISE.sub(" ", each[:200]) for each in (logged, described))
    return _within(one, other) or any(len(re.findall(r"\d", word)) >= 3 for word in _words(one) & _words(other))


def _same_release(ran: str, said: str) -> bool:
    """Whether both begin with one word, and the shorter of their versions is the beginning of the other."""
    if ran.split(maxsplit=1)[0].casefold() not in said.casefold():
        return False
    one, other = (_VERSION.search(each) for each in (ran, said))
    if one is None or other is None:
        return True
    parts = [each[0].split(".") for each in (one, other)]
    length = min(len(parts[0]), len(parts[1]))
    return parts[0][:length] == parts[1][:length]


def _apart(pattern: re.Pattern[str], one: str, other: str) -> bool:
    """Whether both say something of the kind, and nothing of it is the same."""
    here, there = ({re.sub(r"\W", "", each).upper() for each in pattern.findall(text[:200])} for text in (one, other))
    return bool(here and there) and not here & there


def _within(one: str, other: str) -> bool:
    """Whether all words of one are in the other: L4 is not in L40S."""
    here, there = _words(one), _words(other)
    return bool(here and there) and (here <= there or there <= here)


def _words(text: str) -> set[str]:
    return {word for word in re.split(r"[^a-z0-9]+", text.lower()) if word and not re.fullmatch(r"\d+x", word)}
