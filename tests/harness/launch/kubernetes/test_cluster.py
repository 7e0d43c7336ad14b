"""Reaching a cluster, and what it is asked before the first trial, without one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace as Object

import pytest
from kubernetes import config

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
