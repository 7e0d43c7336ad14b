"""One namespace of a Kubernetes cluster: reaching it, what it allows, a trial's objects in it, and its refusals in words.

Talks by the Kubernetes client for Python, which requirements/kubernetes.lock has. `NotSuitable` (exit code 6) is a cluster that
cannot, `ValueError` (2) a request that cannot be met, `ClusterAway` a cluster that does not answer now.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from harness.contract import NotSuitable
from harness.launch import ledger
from harness.launch.away import Away
from harness.launch.kubernetes import manifests, template
from harness.launch.kubernetes.manifests import CONTAINER, FOLDER, HOST, MACHINE, PREFIX, SERIES, Trial

if TYPE_CHECKING:
    from kubernetes import client

OLDEST = (1, 24)  # where Indexed Jobs are stable
TIMEOUT_S = (10.0, 30.0)  # to connect, to be answered
SILENT_S = 120.0  # a connection on which nothing comes may be dead: another is made
GONE_S = manifests.GRACE_S + 30.0  # for pods of a deleted Job
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
INSTALL = """--engine kubernetes needs the Kubernetes client for Python:
    bash requirements/set_up.sh requirements/run.lock requirements/kubernetes.lock        in a checkout
    python -m pip install kubernetes                                                      elsewhere
--dry-run needs none: it prints what kubectl would take"""

# What an answer contains -> what to do about it
KNOWN = (
    ("exceeded quota", "the namespace's ResourceQuota has no room for it; `kubectl describe quota` says of what"),
    ("violates podsecurity", "the namespace is stricter than what --pod-template asks for"),
    ("is forbidden: user", "this account lacks a right; docs/engines.md has the Role that trials need"),
    ("no such host", "the cluster's address has no name here: is the VPN up, the right --kube-context chosen?"),
)


class ClusterAway(Away):
    """Nothing answers at the cluster's address, or not yet again."""


class LoggedOut(ClusterAway):
    """The cluster does not know this account (any more)."""


class CutOff(ClusterAway):
    """An output ended within a line: a connection was lost behind the API server, which closed ours in good order."""

    def __init__(self, pod: str, stamp: str, text: str) -> None:
        super().__init__(f"the output of {pod} ends within a line: {text[-80:]!r}")
        self.stamp, self.text = stamp, text


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """The cluster's refusals inside the block as NotSuitable, with the way out where we know it; its absence as ClusterAway."""
    import urllib3
    from kubernetes.client.exceptions import ApiException

    try:
        yield
    except ApiException as error:
        answer = _answer(error)
        if error.status == 401:
            raise LoggedOut(
                f"{doing}: the cluster does not know this account (any more): log in to it again"
            ) from error
        if not error.status or error.status == 429 or error.status >= 500:
            raise ClusterAway(f"{doing}: the cluster does not answer as it should: {answer}") from error
        fix = next((fix for sign, fix in KNOWN if sign in answer.lower()), "")
        raise NotSuitable("\n".join([f"{doing}: the cluster refuses: {answer}", *([fix] if fix else [])])) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ClusterAway(f"{doing}: no cluster answers: {error}") from error


def _answer(error: Any) -> str:
    """The message of the Status object that an API server answers with, else what there is."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}".strip()


def gone(error: BaseException) -> bool:
    """Whether the cluster's refusal was that there is no such object."""
    return getattr(error.__cause__, "status", None) == 404


@dataclass(frozen=True)
class Cluster:
    """Where trials run."""

    api: client.ApiClient
    namespace: str
    version: str
    # Of the kubeconfig, by name: the current one may be another's tomorrow. None: a pod's own cluster
    context: str | None = None

    @classmethod
    def connect(cls, context: str | None, namespace: str | None) -> Cluster:
        """The one that the kubeconfig names, or in a pod the pod's own. NotSuitable when there is none or it is too old."""
        try:
            from kubernetes import client, config
        except ImportError as error:
            raise NotSuitable(INSTALL) from error
        settings: Any = type.__call__(client.Configuration)
        settings.retries = 2
        chosen: str | None
        try:
            found, chosen = _context(config.kube_config, context)
            config.load_kube_config(context=chosen, client_configuration=settings)
        except config.ConfigException as error:
            if context is not None:
                raise ValueError(
                    f"--kube-context {context}: {error}; `kubectl config get-contexts` lists them"
                ) from error
            try:
                config.load_incluster_config(client_configuration=settings)
                found, chosen = OWN_NAMESPACE.read_text(encoding="utf-8").strip(), None
            except (config.ConfigException, OSError):
                raise NotSuitable(
                    f"no Kubernetes cluster is known here: {error}. KUBECONFIG, or ~/.kube/config, says where one is; "
                    "without a cluster --dry-run prints the manifests"
                ) from error
        except _damages() as error:
            raise ValueError(
                f"{config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION}: this is no kubeconfig, or a damaged one: {error}; "
                "KUBECONFIG names another"
            ) from error
        api = client.ApiClient(settings)
        with explained(f"asking {settings.host} for its version"):
            told = client.VersionApi(api).get_code(_request_timeout=TIMEOUT_S)
        numbers = tuple(int("".join(filter(str.isdigit, each)) or 0) for each in (told.major, told.minor))
        if numbers < OLDEST:
            raise NotSuitable(f"the cluster is Kubernetes {told.git_version}; Indexed Jobs need 1.24 at least")
        return cls(api, namespace or found, str(told.git_version), chosen)

    def log_in_again(self, error: NotSuitable) -> None:
        """Where that was why: take the account from the kubeconfig anew, its token may have been renewed there meanwhile."""
        from kubernetes import config

        if not isinstance(error, LoggedOut) or self.context is None:  # a pod's own is read anew by the client
            return
        # one that is only half written is whole the next time
        with contextlib.suppress(config.ConfigException, *_damages()):
            config.load_kube_config(context=self.context, client_configuration=self.api.configuration)

    @property
    def core(self) -> client.CoreV1Api:
        from kubernetes import client

        return client.CoreV1Api(self.api)

    @property
    def _batch(self) -> client.BatchV1Api:
        from kubernetes import client

        return client.BatchV1Api(self.api)

    # --- a trial's objects ---------------------------------------------------------------------------------------------

    def create(self, trial: Trial) -> None:
        """The Job first, which then owns the others: whoever deletes it, deletes all. It is left where another is refused."""
        with explained(f"starting {trial.name}"):
            job = self._batch.create_namespaced_job(self.namespace, _any(trial.job), _request_timeout=TIMEOUT_S)
            owner = {"apiVersion": "batch/v1", "kind": "Job", "name": trial.name, "uid": job.metadata.uid}
            for create, manifest in (
                (self.core.create_namespaced_config_map, trial.config_map),
                (self.core.create_namespaced_service, trial.service),
            ):
                if manifest is not None:
                    owned = {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [owner]}}
                    create(self.namespace, _any(owned), _request_timeout=TIMEOUT_S)

    def would_take(self, trial: Trial) -> None:
        """NotSuitable when the cluster would refuse a trial's Job: a dry run on the server, with all its policies.

        ValueError where the client itself does, for another type than a field has: all but --pod-template's are ours.
        """
        try:
            with explained(f"asking the cluster what it thinks of {trial.name}"):
                self._batch.create_namespaced_job(
                    self.namespace,
                    _any(trial.job),
                    dry_run="All",
                    field_validation="Strict",
                    _request_timeout=TIMEOUT_S,
                )
        except pydantic.ValidationError as error:
            raise template.of_another_type(error) from error

    def job(self, name: str) -> client.V1Job | None:
        """None when it is gone."""
        try:
            with explained(f"reading {name}"):
                return self._batch.read_namespaced_job(name, self.namespace, _request_timeout=TIMEOUT_S)
        except NotSuitable as error:
            if gone(error):
                return None
            raise

    def pods(self, name: str) -> list[client.V1Pod]:
        """Of a Job, by their index."""
        with explained(f"listing the pods of {name}"):
            found = self.core.list_namespaced_pod(
                self.namespace, label_selector=f"job-name={name}", _request_timeout=TIMEOUT_S
            ).items
        return sorted(found, key=index)

    def node(self, name: str) -> dict[str, Any]:
        """What a node says of itself, as far as this account may know."""
        try:
            with explained(f"reading node {name}"):
                node = self.core.read_node(name, _request_timeout=TIMEOUT_S)
        except NotSuitable as error:
            return {"name": name, "unknown": str(error).splitlines()[0]}
        info = self.api.sanitize_for_serialization(node.status.node_info)
        labels = {key: value for key, value in (node.metadata.labels or {}).items() if _about_the_machine(key)}
        return {"name": name, **{key: info[key] for key in NODE_INFO if key in info}, "labels": labels}

    def events(self, name: str) -> list[str]:
        """Warnings about a Job, the last one last."""
        with explained(f"reading what happened to {name}"):
            found = self.core.list_namespaced_event(
                self.namespace, field_selector=f"involvedObject.name={name}", _request_timeout=TIMEOUT_S
            ).items
        return [str(each.message) for each in found if each.type == "Warning"]

    def output(self, pod: str) -> Iterator[tuple[str, str]]:
        """Each line of a pod's output with its time, from the first to the pod's end. CutOff where that is within a line."""
        with explained(f"following the output of {pod}"):
            response = self.core.read_namespaced_pod_log(
                pod,
                self.namespace,
                container=CONTAINER,
                follow=True,
                timestamps=True,
                _preload_content=False,
                _request_timeout=(TIMEOUT_S[0], SILENT_S),
            )
            rest = b""
            try:
                for piece in response.stream():
                    *whole, rest = (rest + piece).split(b"\n")
                    yield from (_stamped(line) for line in whole)
            finally:
                response.close()
        if rest:
            raise CutOff(pod, *_stamped(rest))

    def run_in(self, pod: str, command: list[str]) -> str:
        """A command's output, run in a pod beside what runs there."""
        from kubernetes import client
        from kubernetes.client.exceptions import ApiException
        from kubernetes.stream import stream

        beside = client.CoreV1Api(
            client.ApiClient(self.api.configuration)
        )  # `stream` changes the client while it works
        more: Any = {"container": CONTAINER, "command": command, "_request_timeout": TIMEOUT_S[1]}
        try:
            return str(
                stream(
                    beside.connect_get_namespaced_pod_exec,
                    pod,
                    self.namespace,
                    stdout=True,
                    stderr=True,
                    stdin=False,
                    **more,
                )
            )
        except (ApiException, OSError) as error:
            raise NotSuitable(f"{pod}: nothing can be run in it: {error}") from error

    # --- the end -------------------------------------------------------------------------------------------------------

    def delete(self, name: str, *, at_once: bool = False) -> None:
        """The Job and all it owns; its pods are asked to end, or with `at_once` ended. Gone already is as good."""
        if at_once:
            for pod in self.pods(name):
                self._gone(
                    f"ending {name}",
                    lambda pod=pod: self.core.delete_namespaced_pod(
                        pod.metadata.name, self.namespace, grace_period_seconds=0, _request_timeout=TIMEOUT_S
                    ),
                )
        self._gone(
            f"deleting {name}",
            lambda: self._batch.delete_namespaced_job(
                name, self.namespace, propagation_policy="Background", _request_timeout=TIMEOUT_S
            ),
        )

    @staticmethod
    def _gone(doing: str, action: Any) -> None:
        try:
            with explained(doing):
                action()
        except NotSuitable as error:
            if not gone(error):
                raise

    def wait_until_gone(self, name: str) -> bool:
        """Whether its pods are, and their accelerators free for the next trial."""
        until = time.monotonic() + GONE_S
        while self.pods(name):
            if time.monotonic() > until:
                return False
            time.sleep(1)
        return True

    def delete_series(self, series: str) -> None:
        """Every Job of a series."""
        for job in self._jobs(f"{SERIES}={series}"):
            self.delete(job.metadata.name)

    def delete_leftovers(self) -> list[str]:
        """The Jobs of series that this machine began and that are gone: killed, or it was. Returns them, for people."""
        deleted = []
        for job in self._jobs(f"app.kubernetes.io/managed-by={PREFIX}"):
            notes = job.metadata.annotations or {}
            here = manifests.this_machine()
            if notes.get(HOST) != platform.node() or notes.get(MACHINE, here) != here:
                continue  # clusters are shared by many a machine called "ubuntu"
            try:
                alive = ledger.in_use(Path(notes.get(FOLDER, "")))
            except PermissionError:
                continue
            if not alive:
                self.delete(job.metadata.name)
                deleted.append(f"{job.metadata.name} (of {notes.get(FOLDER, '?')})")
        return deleted

    def _jobs(self, selector: str) -> list[client.V1Job]:
        with explained("listing Jobs"):
            return list(
                self._batch.list_namespaced_job(
                    self.namespace, label_selector=selector, _request_timeout=TIMEOUT_S
                ).items
            )


NODE_INFO = ("kernelVersion", "osImage", "containerRuntimeVersion", "kubeletVersion", "architecture", "bootID")


def _about_the_machine(label: str) -> bool:
    """Of node labels, those of makers' feature discovery: product, driver's version, count."""
    domain, _, kind = label.partition("/")
    return domain.endswith((".com", ".ai")) and any(
        word in kind for word in ("gpu", "cuda", "driver", "accelerator", "mig")
    )


def index(pod: client.V1Pod) -> int:
    """Of a pod in its Job: which node of the run it is."""
    return int((pod.metadata.annotations or {}).get("batch.kubernetes.io/job-completion-index", 0))


def _damages() -> tuple[type[Exception], ...]:
    """What the client ends with for a kubeconfig that is none, or that nobody may read; for some it has an error of its own."""
    import yaml

    return (yaml.YAMLError, TypeError, AttributeError, KeyError, ValueError, OSError)


def _context(kube_config: Any, name: str | None) -> tuple[str, str]:
    """The namespace and the name of the kubeconfig's context of that name, else of its current one."""
    content = kube_config.KubeConfigMerger(kube_config.KUBE_CONFIG_DEFAULT_LOCATION).config
    if content is None:
        raise kube_config.ConfigException("there is no kubeconfig")
    # asks for a current context only where no other is named, as kubectl does
    chosen = kube_config.KubeConfigLoader(config_dict=content, active_context=name).current_context
    return str(chosen["context"].get("namespace") or "default"), str(chosen["name"])


def _stamped(line: bytes) -> tuple[str, str]:
    stamp, _, text = line.decode(errors="replace").partition(" ")
    return stamp, text


def _any(manifest: dict[str, Any]) -> Any:
    """The client takes a manifest where its types say a model."""
    return manifest
