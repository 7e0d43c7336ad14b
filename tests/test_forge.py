"""What a public forge runs and asks: pinned, with commands that are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import CHECKOUT

WORKFLOWS = sorted((CHECKOUT / ".github/workflows").glob("*.yml"))
FORMS = sorted((CHECKOUT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    assert all("timeout-minutes" in job for job in jobs.values())
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_commands_are_there(workflow: Path) -> None:
    for step in steps(workflow):
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
        for script in re.findall(r"(?:^|\s)((?:\./|\.ci/)[\w./]+)(?=\s|$)", step.get("run", "")):
            assert (CHECKOUT / script).is_file() or script.endswith("*.sh"), script
        for module in re.findall(r"python -m (tests[\w.]+)", step.get("run", "")):
            assert (CHECKOUT / f"{module.replace('.', '/')}.py").is_file(), module
    assert "permissions:\n  contents: read\n" in workflow.read_text()


def test_a_gpu_s_job_is_started_by_hand_alone() -> None:
    (on,) = [yaml.safe_load(path.read_text())[True] for path in WORKFLOWS if "self-hosted" in path.read_text()]
    assert list(on) == ["workflow_dispatch"]


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_forms_ask_for_what_doctor_prints(form: Path) -> None:
    fields = yaml.safe_load(form.read_text())["body"]
    assert any("doctor --json" in str(field["attributes"].get("description")) for field in fields)
