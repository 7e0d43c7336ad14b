"""What a log says of its run, key by key: found as it stands there, or None. What follows from it is in record.py."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from harness.names import NO_COMMIT
from harness.results.parts import Entry

NUMBER_LIMIT = 1e18  # no count, time or rate of a run is larger, and products of two stay finite


class Said:
    """The lines that a log has once. `entries` by their keys; `line_benchmark` is what v0.5 says in every line."""

    entries: Mapping[str, Entry]
    line_benchmark: str | None

    def value(self, key: str) -> Any:
        entry = self.entries.get(key)
        return None if entry is None else entry.value

    def text(self, key: str) -> str | None:
        value = self.value(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> float | None:
        return number(self.value(key))

    def integer(self, key: str) -> int | None:
        value = number(self.value(key))
        return int(value) if value is not None and value == int(value) else None

    def table(self, key: str) -> Mapping[str, Any]:
        value = self.value(key)
        return value if isinstance(value, dict) else {}

    # What was submitted

    @property
    def benchmark(self) -> str | None:
        return self.text("submission_benchmark") or self.line_benchmark

    @property
    def org(self) -> str | None:
        return self.text("submission_org")

    @property
    def platform(self) -> str | None:
        return self.text("submission_platform")

    @property
    def division(self) -> str | None:
        return self.text("submission_division")

    @property
    def status(self) -> str | None:
        return self.text("submission_status")

    @property
    def global_batch_size(self) -> int | None:
        return self.integer("global_batch_size")

    @property
    def train_samples(self) -> int | None:
        return self.integer("train_samples")

    @property
    def eval_samples(self) -> int | None:
        return self.integer("eval_samples")

    @cached_property
    def hyperparameters(self) -> dict[str, Any]:
        """The ruleset's keys that say how it was trained."""
        chosen = ("global_batch_size", "model_bn_span", "max_samples", "gradient_accumulation_steps", "optimizer")
        return {key: each.value for key, each in self.entries.items() if key.startswith("opt_") or key in chosen}

    # What ran where

    @property
    def accelerators_configured(self) -> int | None:
        """Of all nodes, as our configuration says and its run had to find them; ranks, of a run on processors."""
        nodes, each_node = self.nodes, self.accelerators_per_node
        return nodes * each_node if nodes and each_node else None

    @property
    def nodes(self) -> int | None:
        return self._of_run("nodes")

    @property
    def accelerators_per_node(self) -> int | None:
        return self._of_run("accelerators_per_node")

    def _of_run(self, key: str) -> int | None:
        run = self.configuration.get("run")
        found = number(run.get(key)) if isinstance(run, dict) else None
        return int(found) if found is not None and found >= 1 else None

    @property
    def configuration(self) -> Mapping[str, Any]:
        return self.table("configuration")

    @property
    def configuration_name(self) -> str | None:
        return self.text("configuration_name")

    @property
    def configuration_sha256(self) -> str | None:
        return self.text("configuration_sha256")

    @property
    def software(self) -> Mapping[str, Any]:
        return self.table("software")

    @property
    def hardware(self) -> Mapping[str, Any]:
        return self.table("hardware")

    @property
    def image(self) -> Mapping[str, Any]:
        return self.table("image")

    @property
    def device_uuids(self) -> tuple[str, ...]:
        """Of the accelerators that the ranks used, by rank, on all nodes; () where the log does not tell, as older ones'."""
        value = self.value("device_uuids")
        return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()

    @property
    def environment(self) -> Mapping[str, Any] | None:
        """Variables that change speed or numbers, as harness/system/variables.py chooses them; None of a log that is older."""
        value = self.value("environment")
        return value if isinstance(value, dict) else None

    @property
    def commit(self) -> str | None:
        return self.text("commit")

    @property
    def tree_dirty(self) -> bool | None:
        value = self.value("tree_dirty")
        return value if isinstance(value, bool) else None

    @property
    def of_no_commit(self) -> bool:
        """Whether the run itself could not tell its commit: its code was installed, or copied without its repository."""
        return self.commit == NO_COMMIT and self.tree_dirty is True

    @property
    def benchmark_sha256(self) -> str | None:
        """Of the code of a benchmark that lies outside of the project, of which `commit` says nothing; None of one within."""
        return self.text("benchmark_sha256")

    @property
    def chosen(self) -> Mapping[str, Any]:
        """By its speed in init, by name: see harness.contract.Session.chosen. Empty where nothing was left to speed."""
        value = self.value("chosen")
        return value if isinstance(value, dict) else {}

    @property
    def precision(self) -> str | None:
        return self.text("precision")

    @property
    def demonstration(self) -> bool:
        """Trained on the data that a benchmark brings along; never a result to publish."""
        return self.value("demonstration") is True

    @property
    def other_task(self) -> str | None:
        """What was trained, where it is not what the keyword's rules speak of; never a result of theirs."""
        return self.text("other_task")

    @property
    def eval_samples_trained_on(self) -> int:
        """Images that were trained on and evaluated."""
        return self.integer("eval_samples_trained_on") or 0

    @property
    def resumed_from_epoch(self) -> int | None:
        return self.integer("resumed_from_epoch")

    @property
    def max_steps(self) -> int | None:
        """After so many optimizer steps the run was to end, its target met or not."""
        return self.integer("max_steps")

    @property
    def quality_target(self) -> float | None:
        return self.number("quality_target")

    @property
    def data_fingerprint(self) -> str | None:
        return self.text("data_fingerprint")


def number(value: Any) -> float | None:
    """A finite number as a float; None for anything else, text that looks like one too, and what no run can mean."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if -NUMBER_LIMIT <= result <= NUMBER_LIMIT else None  # NaN is neither
