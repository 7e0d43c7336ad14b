"""A vendor more is a folder more: one that tests alone define, as a user meets it. And one that only torch knows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import harness.system
from harness.cli.run import _default
from harness.contract import NotSuitable
from harness.execution import context, process_group
from harness.results import logfile, sysdesc
from harness.results.checking.system import check_agreement
from harness.system import accelerator, facts, preflight
from harness.system.accelerator import Surroundings
from harness.system.cpu import Processor
from harness.system.facts import Machine
from harness.system.generic import makers
from harness.system.generic.makers import Trace
from harness.system.generic.vendor import Generic
from harness.system.pci import PciDevice
from harness.system.torch_build import TorchBuild
from tests import private_device
from tests.conftest import CHECKOUT
from tests.harness.execution import runs
from tests.harness.system.recorded import HOST
from tests.patience import PATIENCE_S
from tests.toy import configuration as toy

VENDORS = Path(__file__).parent / "vendors"


ONE_AFTER_THE_OTHER = """
import contextlib, io, json, sys
from harness.cli import main
ended = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        code = main(words)
    ended.append([words, code, out.getvalue(), errors.getvalue()])
print(json.dumps(ended))
"""


def verbs_with(environment: dict[str, str], *asked: list[object]) -> list[subprocess.CompletedProcess[str]]:
    """Several verbs in one process, to which the device is plugged in: to import torch takes longer than all of them."""
    command = [sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps([[*map(str, each)] for each in asked])]
    known = runs.environment(**environment)
    done = subprocess.run(
        command, cwd=CHECKOUT, env=known, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [subprocess.CompletedProcess(*each) for each in json.loads(done.stdout.splitlines()[-1])]


@pytest.fixture(scope="module", params=["a folder of its own", pytest.param("torch alone", marks=pytest.mark.long)])
def plugged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """By what the device is known, and the environment that makes it known; a name without operators is enough here."""
    vendors = VENDORS if request.param == "a folder of its own" else None
    return request.param, private_device.plugged_in(tmp_path_factory.mktemp("plug"), "register_name", vendors)


Done = dict[str, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def done(plugged: tuple[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Done:
    """What each verb said, in an order in which nothing is there that another left: the run comes last but for its report."""
    folder = tmp_path_factory.mktemp("run")
    configuration = toy.write(folder, toy.raw(device="accelerator"))
    asked: dict[str, list[object]] = {
        "doctor": ["doctor", "--json", "--out", folder / "doctor"],
        "sysinfo": ["sysinfo", "--json"],
        "run without a configuration": ["run", "--out", folder / "none"],
        "run": ["run", configuration, "--out", folder / "out"],
        "report": ["report", "--json", "--no-published", folder / "out"],
    }
    return dict(zip(asked, verbs_with(plugged[1], *asked.values()), strict=True))


@pytest.fixture(scope="module")
def log(done: Done) -> Path:
    assert done["run"].returncode == 0, done["run"].stdout + done["run"].stderr
    return Path(done["run"].args[-1]) / "result_0.txt"


def test_doctor_names_it(plugged: tuple[str, dict[str, str]], done: Done) -> None:
    known, _ = plugged
    found = json.loads(done["doctor"].stdout)

    assert found["hardware"]["accelerators"] == ["Abacus 13", "Abacus 13"]
    assert found["verdict"]["runnable"]
    if known == "torch alone":
        assert found["verdict"]["mode"] == "OTHER-VENDOR"
    else:
        assert found["software"]["driver"] == "13.2.1"
        assert {"level": "warning", "subject": "abacus 1", "text": "a bead sticks", "fix": "oil it"} in found[
            "findings"
        ]


def test_sysinfo_names_it(done: Done) -> None:
    found = json.loads(done["sysinfo"].stdout)

    assert (found["accelerators_per_node"], found["accelerator_model_name"]) == ("2", "Abacus 13")


def test_its_owner_is_asked_for_a_configuration(done: Done) -> None:
    """And does not get a demonstration on the processor without a word."""
    asked = done["run without a configuration"]

    assert asked.returncode == 2
    assert "this machine has 2x Abacus 13: name the configuration" in asked.stderr


def test_the_log_names_it(plugged: tuple[str, dict[str, str]], log: Path) -> None:
    found = {event["key"]: event["value"] for event in runs.events(log)}

    assert found["device"] == "abacus:0"
    assert found["hardware"]["accelerators"] == ["Abacus 13", "Abacus 13"]
    assert found["configuration"]["run"]["device"] == "accelerator"
    if plugged[0] == "a folder of its own":
        assert found["hardware"]["accelerator_vendor"] == "Abacus Works"
        assert (found["software"]["driver"], found["software"]["driver_comparable"]) == ("13.2.1", True)


def test_telemetry_has_its_readings(plugged: tuple[str, dict[str, str]], log: Path) -> None:
    telemetry = log.with_name("telemetry_0.jsonl")
    if plugged[0] == "torch alone":
        assert not telemetry.exists()
        return
    lines = [json.loads(line) for line in telemetry.read_text().splitlines()]
    assert lines[0]["gpus"][0]["name"] == "Abacus 13"
    assert lines[0]["gpus"][0]["unavailable"] == {"fan_rpm": "an abacus has no fan"}
    assert lines[-1]["gpus"][0]["during_run"] == {"beads_moved": 1}


def test_the_report_names_it(done: Done) -> None:
    (group,) = json.loads(done["report"].stdout)["groups"]
    assert (group["accelerator"], group["accelerators"]) == ("Abacus 13", 1)


# --- what the log of a machine says that programs cannot use all of ----------------------------------------------------


def test_a_description_does_not_count_accelerators_that_nobody_could_use_as_none() -> None:
    hardware = {"accelerators": [], "accelerators_unusable": ["AMD Instinct MI300X"] * 8}
    found = sysdesc.describe(hardware, {}, {}, {})

    assert {"accelerators_per_node", "accelerator_model_name"} <= set(sysdesc.to_fill_in(found))
    assert "8x AMD Instinct MI300X" in found["accelerators_per_node"]
    older = sysdesc.describe({"accelerators": []}, {"driver_mode": "OTHER-VENDOR"}, {}, {})
    assert "accelerators_per_node" in sysdesc.to_fill_in(older)
    assert sysdesc.describe({"accelerators": []}, {"driver_mode": "CPU-ONLY"}, {}, {})["accelerators_per_node"] == "0"


def test_a_description_without_accelerators_disagrees_with_a_run_on_one(log: Path) -> None:
    description = {"number_of_nodes": "1", "accelerators_per_node": "0", "system_name": "1x abacus"}

    (found,) = check_agreement(description, "abacus", [("result_0.txt", logfile.read(log))])
    assert (found.severity, found.key) == ("error", "hardware")
    assert "2 accelerators a node, the system has 0" in found.found


def test_the_process_groups_backend_is_the_device_s() -> None:
    known = {"cpu": "gloo", "cuda": "nccl", "xpu": "xccl", "hpu": "hccl", "npu": "hccl", "musa": "mccl"}
    assert {kind: process_group.backend_for(kind) for kind in known} == known
    with pytest.raises(NotSuitable, match="no backend for novel: use a configuration of one accelerator"):
        process_group.backend_for("novel")


# --- which of several --------------------------------------------------------------------------------------------------


@pytest.fixture
def another_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(harness.system, "__path__", [*harness.system.__path__, str(VENDORS)])
    yield
    sys.modules.pop("harness.system.abacus", None)


@pytest.mark.usefixtures("another_folder")
def test_run_device_chooses_among_the_vendors() -> None:
    assert [type(each).__name__ for each in accelerator.vendors()] == [
        "AbacusVendor", "NvidiaVendor", "GenericVendor", "ProcessorVendor",
    ]  # fmt: skip
    assert "abacus" in accelerator.devices()
    found = preflight.check("abacus", 2)
    assert found is not None and found.vendor == "Abacus Works"
    assert preflight.check("cpu", 8) is None
    with pytest.raises(NotSuitable, match=r"asks for 3 accelerators.* see 2 \(Abacus 13\)"):
        preflight.check("abacus", 3)
    # the maker's driver is installed, its package for PyTorch is not
    with pytest.raises(
        NotSuitable, match=r'Abacus Works.s devices are here, and PyTorch .* has no device "abacus": install'
    ):
        context.device_of("abacus", context.Launch())


def test_without_any_accelerator_the_processor_is_not_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    processor: Any = accelerator.vendors()[-1]
    monkeypatch.setattr(accelerator, "vendors", lambda: [processor])
    for device in ("accelerator", "xpu"):
        with pytest.raises(NotSuitable, match=r"(?s)run\.device = \"\w+\".*\"cpu\""):
            preflight.check(device, 1)
    assert accelerator.look(Surroundings())[0].device == "cpu"


def test_a_demonstration_on_the_processor_says_which_accelerators_it_leaves_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    card = PciDevice("0000:05:00.0", "1002", "74a1", "1200", tmp_path)
    amd = next(each for each in makers.read() if each.name == "AMD")
    unusable = Generic(Trace(amd, (card,), (), tmp_path), None, TorchBuild("2.14.1+cu130", cuda="13.0"))
    machine = Machine(HOST, (unusable, Processor()), {})
    monkeypatch.setattr(context, "this_machine", lambda: machine)

    assert _default().stem == "embedded"
    said = capsys.readouterr().err
    assert "embedded runs on the processor: AMD device 74a1 is here" in said
    assert "PyTorch for ROCm" in said
    assert facts.describe(machine)["hardware"]["accelerators_unusable"] == ["AMD device 74a1"]
