"""What an init chose by its speed, for all runs of a plan that count: one that chose anew could make two things of an arm.

Each arm's first warm-up on a host chooses, and the ledger keeps it. Arms of one configuration take what the
first of them chose.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.comparison.planning.plan import Plan, PlannedRun

CHOSEN = "chosen"  # what such a line of the ledger is about
OPTION = "--chosen"  # of `run`


@dataclass(frozen=True)
class Choices:
    """Of one host, as its ledger has them, in order."""

    entries: Sequence[Mapping[str, Any]]

    def of_arm(self, name: str) -> bool:
        """Whether this arm's code has told of a choice: other code could take none either."""
        return any(entry["arm"] == name for entry in self.entries)

    def of_configuration(self, name: str | None) -> Mapping[str, Any] | None:
        """What the first arm of this configuration chose; the plan's own is None."""
        return next((entry["chosen"] for entry in self.entries if entry["config"] == name), None)

    def handed_on(self, plan: Plan, item: PlannedRun) -> Plan:
        """The plan by which `item` is to run: with the common choice, unless it is a warm-up or the plan names one itself."""
        arm = plan.arms[item.arm]
        common = self.of_configuration(arm.config)
        if item.kind == "warm-up" or common is None or not self.of_arm(arm.name) or OPTION in plan.options:
            return plan
        return replace(plan, options=(*plan.options, OPTION, json.dumps(common)))


def listed(chosen: Mapping[str, Any]) -> str:
    """In words."""
    return ", ".join(f"{name} {value}" for name, value in chosen.items())
