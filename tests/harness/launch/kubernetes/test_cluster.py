"""Reaching a cluster, and what it is asked before the first trial, without one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace as Object
from typing import Any

import pytest
from kubernetes import client, config

from harness.contract import NotSuitable
from harness.launch.kubernetes import checks
from harness.launch.kubernetes.cluster import Cluster, LoggedOut
from tests.harness.launch.kubernetes.stand_in import serving

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
    Cluster(Object(configuration=Object()), "lab", "v1.34", "lab").log_in_again(LoggedOut("the token expired"))


def of_two(one: Path, other: Path) -> dict[str, Any]:
    """A kubeconfig with the contexts "stand-in" of one cluster and "other" of another, as `kubectl config` merges them."""
    content, second = (json.loads(each.read_text()) for each in (one, other))
    content["clusters"].append({**second["clusters"][0], "name": "other"})
    content["contexts"].append({"name": "other", "context": {**second["contexts"][0]["context"], "cluster": "other"}})
    content["contexts"][1]["context"]["namespace"] = "theirs"
    return dict(content)


def test_a_cluster_stays_the_one_that_it_was_when_another_is_made_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kubectl config use-context` in another shell: once the token was renewed, the series talked to that one."""
    (tmp_path / "other").mkdir()
    with serving(tmp_path) as (_, path), serving(tmp_path / "other") as (_, other):
        monkeypatch.setattr(config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        found = Cluster.connect(None, None)
        assert (found.context, found.namespace) == ("stand-in", "lab")
        host = found.api.configuration.host
        path.write_text(json.dumps({**of_two(path, other), "current-context": "other"}))
        found.log_in_again(LoggedOut("the token expired"))
        assert found.api.configuration.host == host
        assert Cluster.connect(None, None).context == "other", "the new one, for who begins now"


@pytest.mark.parametrize("current", ["", None], ids=["empty", "none"])
def test_a_context_is_enough_where_none_is_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, current: str | None
) -> None:
    """As kubectl has it: --kube-context was refused."""
    with serving(tmp_path) as (_, path):
        content = {**json.loads(path.read_text()), "current-context": current}
        if current is None:
            del content["current-context"]
        path.write_text(json.dumps(content))
        monkeypatch.setattr(config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        assert Cluster.connect("stand-in", None).namespace == "lab"
        with pytest.raises(NotSuitable, match="no Kubernetes cluster is known here"):
            Cluster.connect(None, None)
        with pytest.raises(ValueError, match=r"--kube-context other: .*`kubectl config get-contexts` lists them"):
            Cluster.connect("other", None)


def test_a_kubeconfig_that_cannot_be_used_is_not_an_option_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody gave --kube-context; and in a pod the cluster's own is there."""
    with serving(tmp_path) as (_, path):
        content = json.loads(path.read_text())
        content["clusters"][0]["cluster"] = {
            "server": "https://localhost",
            "certificate-authority": str(tmp_path / "ca.crt"),
        }
        path.write_text(json.dumps(content))
        monkeypatch.setattr(config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        with pytest.raises(NotSuitable, match=r"no Kubernetes cluster is known here: .*ca\.crt"):
            Cluster.connect(None, None)


def test_a_field_of_another_type_is_said_as_the_template_s() -> None:
    """It was the client's own dump, which names its function."""
    cluster = Cluster(client.ApiClient(client.Configuration()), "lab", "v1.34", None)
    spec = {"containers": [{"name": "trial"}], "tolerations": [{"key": "a", "tolerationSeconds": "soon"}]}
    trial: Any = Object(name="job", job={"spec": {"template": {"spec": spec}}})
    with pytest.raises(
        ValueError,
        match=r"^--pod-template: spec.tolerations.0.tolerationSeconds: .*integer.*, and is 'soon'; `kubectl explain ",
    ) as refused:
        cluster.would_take(trial)
    assert "pod.spec.tolerations.tolerationSeconds`" in str(refused.value)


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
