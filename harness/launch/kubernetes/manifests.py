"""What a trial is in a cluster: an Indexed Job, a headless service where several nodes meet, the configuration as a ConfigMap.

An Indexed Job (batch/v1) and neither a JobSet nor Kubeflow's TrainJob: it is part of every cluster since 1.24 and asks for no
controller or right beyond the ordinary ones; a run has one kind of pod and no order among them; a TrainJob's runtime would
start the ranks, which the harness does itself, with its log and exit codes. Kueue queues Jobs by a label (--pod-template).

A pod is a node of the run: it starts the ranks of its accelerators. It gets the accelerators as the resource of their
maker, shared memory, its data read-only, and results; and does not get privileges, capabilities, root, a service account or a
second try. Names: https://kubernetes.io/docs/reference/kubernetes-api/
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from harness import outside
from harness.config import Configuration
from harness.execution import seeding
from harness.execution.context import MASTER_ADDR, MASTER_PORT, NODE_RANK
from harness.launch.container_spec import CONFIGURATION, RESULTS
from harness.launch.kubernetes import template
from harness.launch.trial import Order
from harness.request import DATA, Request
from harness.system import accelerator
from harness.system.image import ID_VARIABLE

Manifest = dict[str, Any]

PREFIX = "training-harness"
SERIES, TRIAL, HOST, MACHINE, FOLDER = (f"{PREFIX}/{each}" for each in ("series", "trial", "host", "machine", "folder"))
CONTAINER = "trial"  # the name of the pod's own container, in --pod-template too
CLAIMED_RESULTS = PurePosixPath("/results-claim")
USER = 1000  # the image's own
PORT = 29500  # torchrun's own default; each pod has an address of its own
GRACE_S = 60  # for a run to close its log
PULLED_S = 900  # from the first pod that runs to the last: a node may have to come, or to pull the image, first
KEPT_S = 3600  # a finished Job that nobody deleted
DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")  # of a resource's name, and of a claim's
# A key that is text to any reader of YAML, but for the words that PyYAML quotes
PLAIN = re.compile(r"[A-Za-z][-A-Za-z./]+")
SIZE = re.compile(r"(\d+)\s*([kmgt]?)i?b?", re.IGNORECASE)


@dataclass(frozen=True)
class Claim:
    """A PersistentVolumeClaim, and the folder of it that is meant."""

    name: str
    folder: str = ""

    @classmethod
    def read(cls, text: str, option: str) -> Claim:
        """ValueError when it is not CLAIM or CLAIM/FOLDER."""
        name, _, folder = text.partition("/")
        if not DOMAIN.fullmatch(name) or ".." in folder.split("/") or folder.startswith("/"):
            raise ValueError(f"{option} {text}: the name of a PersistentVolumeClaim is needed, or CLAIM/FOLDER of it")
        return cls(name, folder.strip("/"))

    def volume(self, name: str, *, read_only: bool) -> Manifest:
        return {"name": name, "persistentVolumeClaim": {"claimName": self.name, "readOnly": read_only}}

    def mount(self, name: str, path: PurePosixPath, *, read_only: bool) -> Manifest:
        folder = {"subPath": self.folder} if self.folder else {}
        return {"name": name, "mountPath": str(path), "readOnly": read_only, **folder}


@dataclass(frozen=True)
class Site:
    """What was asked of the cluster, read and checked."""

    image: str
    resource: str | None  # of one accelerator; None: the processor
    data: Claim | None
    results: Claim | None
    shm: str | None
    template: Mapping[str, Any]  # of --pod-template
    resource_named: bool = False  # by the user, who knows his nodes

    @classmethod
    def read(cls, configuration: Configuration, request: Request) -> Site:
        """ValueError, with the option, for what cannot be meant."""
        assert request.image is not None
        run = configuration.run
        resource = request.accelerator_resource
        if run.device == accelerator.CPU:
            if resource is not None:
                raise ValueError(f'--accelerator-resource {resource}: the configuration says run.device = "cpu"')
        elif resource is None:
            resource = accelerator.resource(run.device, configuration.submission.platform)
            if resource is None:
                raise ValueError(
                    f'{configuration.source}: run.device = "{run.device}": what a cluster calls these is not known here: '
                    "name it by --accelerator-resource, as `kubectl describe node` shows it under Allocatable"
                )
        if resource is not None and not _is_resource(resource):
            raise ValueError(f"--accelerator-resource {resource}: MAKER/KIND is needed, such as nvidia.com/gpu")
        return cls(
            image=request.image,
            resource=resource,
            data=None if request.data_claim is None else Claim.read(request.data_claim, "--data-claim"),
            results=None if request.results_claim is None else Claim.read(request.results_claim, "--results-claim"),
            shm=None if request.shm_size is None else quantity(request.shm_size),
            template=template.read(request.pod_template),
            resource_named=request.accelerator_resource is not None,
        )


def _is_resource(name: str) -> bool:
    domain, _, kind = name.partition("/")
    return bool(DOMAIN.fullmatch(domain) and re.fullmatch(r"[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?", kind))


def quantity(size: str) -> str:
    """Docker's "8g" as Kubernetes' "8Gi". ValueError when it is neither."""
    found = SIZE.fullmatch(size.strip())
    if found is None or int(found[1]) == 0:
        raise ValueError(f"--shm-size {size}: a number with k, m, g or t is needed, such as 8g")
    unit = found[2].upper().replace("K", "k").replace("k", "K")
    return f"{found[1]}{unit}i" if unit else found[1]


@dataclass(frozen=True)
class Trial:
    """All of one trial's manifests, in the order in which they are made: the Job owns the others, which end with it."""

    name: str
    job: Manifest
    config_map: Manifest
    service: Manifest | None

    @property
    def manifests(self) -> list[Manifest]:
        return [self.job, self.config_map, *([self.service] if self.service else [])]

    def yaml(self) -> str:
        """For people and kubectl: what is needed first comes first."""
        ordered = [*([self.service] if self.service else []), self.config_map, self.job]
        return "---\n".join(map(_yaml, ordered))


def _yaml(manifest: Manifest) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
            return True

    # kubectl reads YAML 1.1 as Go does, to which y, n and 12345e7 are no text either
    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else '"')

    def table(dumper: Any, value: dict[str, Any]) -> Any:
        node = dumper.represent_mapping("tag:yaml.org,2002:map", value)
        for key, _ in node.value:
            key.style = None if PLAIN.fullmatch(key.value) else key.style
        return node

    Dumper.add_representer(str, text)
    Dumper.add_representer(dict, table)
    return str(yaml.dump(manifest, Dumper=Dumper, sort_keys=False, width=120))


def this_machine() -> str:
    """By which its own Jobs are known from those of another machine of the same name; empty where it has no id.

    machine-id(5) asks that the id itself be shown to nobody.
    """
    found = outside.text(Path("/etc/machine-id"))
    return found and hashlib.sha256(f"{PREFIX} {found}".encode()).hexdigest()[:16]


def _file(configuration: Configuration) -> str:
    """Its file's name, as far as a ConfigMap takes it for a key."""
    return f"{re.sub('[^-._a-zA-Z0-9]', '_', configuration.name)[:200]}.toml"


def of_trial(  # noqa: PLR0917 - what one trial depends on
    configuration: Configuration, request: Request, site: Site, order: Order, series: str, host: str
) -> Trial:
    """The manifests of one trial of a settled request."""
    name = f"harness-{series}-{order.number}"
    labels = {"app.kubernetes.io/managed-by": PREFIX, SERIES: series, TRIAL: str(order.number)}
    notes = {HOST: host, MACHINE: this_machine(), FOLDER: str(order.folder)}
    named = {"name": name, **({"namespace": request.namespace} if request.namespace else {}), "labels": labels}
    metadata = {**named, "annotations": notes}
    several = configuration.run.nodes > 1
    pod = merged(_pod(configuration, request, site, order, name, labels), site.template, "--pod-template")
    added = site.template.get("metadata") or {}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": merged(
            metadata, {key: added[key] for key in ("labels", "annotations") if key in added}, "metadata"
        ),
        "spec": {
            "completionMode": "Indexed",
            "completions": configuration.run.nodes,
            "parallelism": configuration.run.nodes,
            "backoffLimit": 0,  # one pod that fails ends the run everywhere; a second try is a trial of its own
            "ttlSecondsAfterFinished": KEPT_S,
            "template": pod,
        },
    }
    text = Path(str(request.configuration)).read_text(encoding="utf-8")
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": named,
        "data": {_file(configuration): text},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": named,
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,  # the ranks meet before anything could be ready
            "selector": {"job-name": name},
            "ports": [{"name": "rendezvous", "port": PORT}],
        },
    }
    return Trial(name, job, config_map, service if several else None)


def _pod(  # noqa: PLR0917
    configuration: Configuration, request: Request, site: Site, order: Order, name: str, labels: Manifest
) -> Manifest:
    memory = {"medium": "Memory", **({"sizeLimit": site.shm} if site.shm else {})}
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # variables of other services, some of which a run would read
        **({"subdomain": name} if configuration.run.nodes > 1 else {}),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(configuration, request, site, order, name)],
        "volumes": [
            {"name": "configuration", "configMap": {"name": name}},
            {"name": "results", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": memory},
            *([site.data.volume("data", read_only=True)] if site.data else []),
            *([site.results.volume("results-claim", read_only=False)] if site.results else []),
        ],
    }
    return {"metadata": {"labels": labels}, "spec": spec}


def _container(configuration: Configuration, request: Request, site: Site, order: Order, name: str) -> Manifest:
    accelerators = {site.resource: str(configuration.run.accelerators_per_node)} if site.resource else {}
    return {
        "name": CONTAINER,
        "image": site.image,
        "command": _command(configuration, request, site, order, name),
        "env": _environment(configuration, site, order, name),
        "resources": {"limits": accelerators} if accelerators else {},
        "volumeMounts": [
            {"name": "configuration", "mountPath": str(CONFIGURATION), "readOnly": True},
            {"name": "results", "mountPath": str(RESULTS)},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
            *([site.data.mount("data", DATA.folder, read_only=True)] if site.data else []),
            *([site.results.mount("results-claim", CLAIMED_RESULTS, read_only=False)] if site.results else []),
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }


def _command(configuration: Configuration, request: Request, site: Site, order: Order, name: str) -> list[str]:
    """A pod waits for node 0 where there are several, runs the trial, and keeps what it left."""
    several = configuration.run.nodes > 1
    seed = order.seed
    if seed is None and several:  # every node is told the same
        seed = seeding.draw()
    told = replace(
        request.of_trial(order.number, order.folder, seed).inside(CONFIGURATION / _file(configuration), RESULTS)[0],
        data_dir=request.data_dir or (Path(DATA.folder) if site.data else None),
        initial_weights=request.initial_weights,
        cache_dir=None,  # the pod's own, which ends with it
        rendezvous_timeout=request.rendezvous_timeout or (PULLED_S if several else None),
    )
    return [
        *("python", "-m", "harness.launch.kubernetes.pod"),
        *(["--wait-for", _first(name), str(told.rendezvous_timeout)] if several else []),
        *(["--keep", f"{CLAIMED_RESULTS}/{name}"] if site.results else []),
        *("--out", str(RESULTS), str(order.number)),
        "--",
        *told.argv(),
    ]


def _environment(configuration: Configuration, site: Site, order: Order, name: str) -> list[Manifest]:
    image = {ID_VARIABLE: site.image} if "@sha256:" in site.image else {}  # which the log names
    variables = {**order.environment, "HOME": "/tmp", **image}
    said: list[Manifest] = [{"name": key, "value": value} for key, value in variables.items()]
    if configuration.run.nodes > 1:
        index = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
        said += [
            {"name": NODE_RANK, "valueFrom": index},
            {"name": MASTER_ADDR, "value": _first(name)},
            {"name": MASTER_PORT, "value": str(PORT)},
        ]
    return said


def _first(name: str) -> str:
    """The address of node 0."""
    return f"{name}-0.{name}"


def merged(ours: Any, added: Any, where: str) -> Any:
    """`added` on top of `ours`: tables key by key, lists of named things by their names, other lists one after the other.

    ValueError where it would take the place of something of ours.
    """
    if isinstance(ours, dict) and isinstance(added, dict):
        both = {key: merged(ours[key], added[key], f"{where}.{key}") for key in ours.keys() & added.keys()}
        return {**ours, **added, **both}
    if isinstance(ours, list) and isinstance(added, list):
        named = {each["name"]: each for each in ours if isinstance(each, dict) and "name" in each}
        result = list(ours)
        for each in added:
            same = named.get(each.get("name")) if isinstance(each, dict) else None
            if same is None:
                result.append(each)
            else:
                result[result.index(same)] = merged(same, each, f"{where}.{each['name']}")
        return result
    if ours != added:
        raise ValueError(f"{where}: {added!r} would take the place of {ours!r}, which the harness needs")
    return ours
