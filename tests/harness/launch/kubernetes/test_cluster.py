"""Reaching a cluster, and what it is asked before the first trial, without one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace as Object
from typing import Any

import pytest
from kubernetes import config

from harness.contract import NotSuitable
from harness.launch.kubernetes import checks
from harness.launch.kubernetes.cluster import Cluster, LoggedOut

DAMAGED = {
    "cut off": b"apiVersion: v1\nclusters: [\n",
    "a list": b"- apiVersion: v1\n",
    "text": b"kubeconfig\n",
    "not UTF-8": b"apiVersion: \xff\n",
    "another type": b"clusters: 5\n",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_kubeconfig_is_named_and_costs_no_running_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """It was a traceback, and would have been one in the middle of a trial, where somebody logs in again meanwhile."""
    path = tmp_path / "kubeconfig"
    path.write_bytes(content)
    monkeypatch.setattr(config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    for context in (None, "lab"):
        with pytest.raises(
            ValueError, match=f"(?s)^{path}: this is no kubeconfig, or a damaged one: .*KUBECONFIG names another"
        ):
            Cluster.connect(context, None)
    Cluster(Object(configuration=Object()), "lab", "v1.34", None).log_in_again(LoggedOut("the token expired"))


def offered(*nodes: dict[str, str], named: bool = False) -> list[str]:
    """What is said of a cluster of these nodes, of which a trial needs one with eight of NVIDIA's GPUs."""
    items = [Object(status=Object(allocatable={"cpu": "64", **each})) for each in nodes]
    cluster: Any = Object(core=Object(list_node=lambda **_: Object(items=items)))
    run: Any = Object(accelerators_per_node=8, nodes=1)
    said: list[str] = []
    site: Any = Object(resource="nvidia.com/gpu", resource_named=named)
    checks._must_offer(cluster, site, run, said.append)
    return said


def test_nodes_that_an_autoscaler_has_yet_to_bring_are_waited_for() -> None:
    """A pool that it keeps at zero was refused, and there was no way round."""
    for there in ({}, {"vpc.amazonaws.com/pod-eni": "9"}, {"nvidia.com/gpu": "4"}, {"amd.com/gpu": "0"}):
        (said,) = offered(there)
        assert said.startswith("0 nodes of the cluster have 8 nvidia.com/gpu, and") and "autoscaler" in said
    assert offered({"nvidia.com/gpu": "8"}) == []
    with pytest.raises(NotSuitable, match=r"the nodes offer: nvidia.com/gpu.shared \(--accelerator-resource names"):
        offered({"nvidia.com/gpu.shared": "8"})
    (said,) = offered({"amd.com/gpu": "8"}, {"nvidia.com/gpu": "0"}, named=True)
    assert "the nodes offer: amd.com/gpu (" in said and "autoscaler" in said
