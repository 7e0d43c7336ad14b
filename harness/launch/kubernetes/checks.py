"""What would keep a series' trials from running in a cluster, looked for before the first, in words with the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.config import RunTable
from harness.contract import NotSuitable
from harness.launch.kubernetes.cluster import TIMEOUT_S, Cluster, ClusterAway, explained, gone
from harness.launch.kubernetes.manifests import Site, Trial
from harness.system import accelerator

# What trials ask of the cluster: verb, group, resource, subresource; the Role in docs/engines.md is that
NEEDED = (
    *((verb, "batch", "jobs", "") for verb in ("create", "get", "list", "delete")),
    ("create", "", "configmaps", ""),
    *((verb, "", "pods", "") for verb in ("get", "list", "delete")),
    ("get", "", "pods", "log"),
    *((verb, "", "pods", "exec") for verb in ("create", "get")),  # a WebSocket begins with a GET
    ("list", "", "events", ""),
)
OF_SEVERAL_NODES = (("create", "", "services", ""),)


def must_suit(cluster: Cluster, site: Site, run: RunTable, first: Trial, say: Callable[[str], None]) -> None:
    """NotSuitable or ValueError where no trial could run: for lack of rights, claims, accelerators, or by a policy.

    What one would have to wait for is told to `say`.
    """
    _must_permit(cluster, run.nodes > 1)
    for option, claim in (("--data-claim", site.data), ("--results-claim", site.results)):
        if claim is not None:
            _must_have(cluster, claim.name, option)
    if site.resource is not None:
        _must_offer(cluster, site, run, say)
    cluster.would_take(first)


def _must_permit(cluster: Cluster, several: bool) -> None:
    from kubernetes import client

    reviews = client.AuthorizationV1Api(cluster.api)
    lacking = []
    for verb, group, kind, sub in (*NEEDED, *(OF_SEVERAL_NODES if several else ())):
        access = {"namespace": cluster.namespace, "verb": verb, "group": group, "resource": kind, "subresource": sub}
        body: Any = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in access.items() if value}},
        }
        with explained("asking which rights this account has"):
            review = reviews.create_self_subject_access_review(body, _request_timeout=TIMEOUT_S)
        if not review.status.allowed:
            lacking.append(f"{verb} {kind}{f'/{sub}' if sub else ''}")
    if lacking:
        raise NotSuitable(
            f"in namespace {cluster.namespace} this account may not {', '.join(lacking)}; docs/engines.md has the Role that "
            "trials need, --namespace names another"
        )


def _must_have(cluster: Cluster, claim: str, option: str) -> None:
    try:
        with explained(f"looking for the claim {claim}"):
            found = cluster.core.read_namespaced_persistent_volume_claim(
                claim, cluster.namespace, _request_timeout=TIMEOUT_S
            )
    except NotSuitable as error:
        if not gone(error):
            return  # reading claims is no right that trials need: the pods will tell
        raise ValueError(
            f"{option} {claim}: there is no such PersistentVolumeClaim in namespace {cluster.namespace}; `kubectl get pvc` "
            "lists them"
        ) from error
    if found.status is not None and found.status.phase == "Lost":
        raise NotSuitable(f"{option} {claim}: its volume is lost (phase Lost)")


def _must_offer(cluster: Cluster, site: Site, run: RunTable, say: Callable[[str], None]) -> None:
    """An autoscaler keeps nodes away until a pod waits for them; where there are other accelerators, those may be meant by who
    named none.
    """
    resource = site.resource
    assert resource is not None
    try:
        with explained("listing nodes"):
            nodes = cluster.core.list_node(_request_timeout=TIMEOUT_S).items
    except NotSuitable as error:
        if isinstance(error, ClusterAway):
            raise
        return  # nor is listing nodes
    offers = [dict(node.status.allocatable or {}) for node in nodes if node.status is not None]
    fit = [each for each in offers if int(each.get(resource, 0)) >= run.accelerators_per_node]
    if len(fit) >= run.nodes:
        return
    there = sorted({name for each in offers for name, number in each.items() if "/" in name and number != "0"})
    lacks = (
        f"{len(fit)} nodes of the cluster have {run.accelerators_per_node} {resource}, and the configuration asks for "
        f"{run.nodes}; the nodes offer: {', '.join(there) or 'no accelerators'} "
        "(--accelerator-resource names another, or says that this is meant)"
    )
    if not site.resource_named and any(each != resource and accelerator.hands_out(each) for each in there):
        raise NotSuitable(lacks)
    say(f"{lacks}: trials wait for nodes that have them, as where an autoscaler adds them")
