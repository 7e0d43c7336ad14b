"""A stand-in for a Kubernetes API server and all behind it, as its documentation says they answer: objects, admission by the
published schemas, the Job controller, garbage collection, a kubelet that runs pods as processes of this machine, their
output with times, and exec by WebSocket (subprotocol v4.channel.k8s.io). No true cluster was seen.

https://kubernetes.io/docs/reference/using-api/api-concepts/, .../concepts/workloads/controllers/job/,
.../reference/kubernetes-api/workload-resources/pod-v1/, kubernetes/remotecommand (channels 1 output, 2 errors, 3 status)
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import psutil

from harness.launch import stacks
from tests.conftest import CHECKOUT
from tests.patience import PATIENCE_S
from tests.ports import held_port

Json = dict[str, Any]
TOKEN = "a token of an account"
IMAGE_ID = "docker.io/library/ssd@sha256:" + "5d" * 32
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455
FAKE = Path(__file__).parents[1] / "fake_run.py"
# The door of a pod with another program behind it
DOOR = """
import sys
from harness.launch.kubernetes import pod
pod.RUN = (sys.executable, {fake!r})
sys.exit(pod.main(sys.argv[1:]))
"""
PLURALS = {"jobs": "Job", "pods": "Pod", "configmaps": "ConfigMap", "services": "Service"}


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "000Z")


@dataclass
class Pod:
    """What the kubelet knows of one."""

    manifest: Json
    folder: Path
    process: subprocess.Popen[str] | None = None
    lines: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    evicted: bool = False
    cut_after: int = 0  # lines after which a reading of its output is cut off, once
    cut_within: str = ""  # what stands in a line in whose middle a reading ends as if that were all, once
    kept_from: int = 0  # the first line that a new reading gets: the kubelet has begun another file since


class Cluster:
    """The state of the stand-in, and what it is told to do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.objects: dict[tuple[str, str], Json] = {}  # (plural, name)
        self.pods: dict[str, Pod] = {}
        self.requests: list[tuple[str, str]] = []  # method, path with query
        self.fake: Path | None = None  # fake.json for the program behind the door; None: the harness itself
        self.forbidden: set[str] = set()  # "create pods/exec"
        self.claims: set[str] = set()
        self.nodes: list[Json] = []
        self.minor = "34"
        self.image_ids = [IMAGE_ID]  # of the pods in order; the last one of all after
        self.waiting: Json | None = None  # a container's state.waiting, for ever
        self.start_error: str | None = None  # of every container, which is not tried again
        self.unschedulable_s = 0.0
        self.no_room_for: set[int] = set()  # indexes of pods that never find a node
        self.busy = 0  # answers of 503 to the next Jobs that are to be made
        self.lost_answers = 0  # of Jobs that were made, after those
        self.cut_after = 0
        self.cut_within = ""
        self.no_exec = False
        self.full_claims = False
        self.down = False
        self.token = TOKEN  # that is valid now
        self.refusal: str | None = None  # of Jobs, by admission
        self.no_pods: str | None = None  # the Job controller's warning
        self._ports: dict[str, int] = {}
        self._held = contextlib.ExitStack()  # the ports

    # --- objects -------------------------------------------------------------------------------------------------------

    def create(self, plural: str, manifest: Json, *, dry_run: bool) -> Json:
        """Refusal for what admission does not let in."""
        if plural == "jobs" and self.refusal:
            raise Refusal(403, self.refusal)
        plain = json.loads(json.dumps(manifest))
        try:
            kubernetes_validate.validate(plain, "1.34", strict=True)
        except kubernetes_validate.ValidationError as error:
            raise Refusal(400, f"strict decoding error: {error.message}") from error
        name = manifest["metadata"]["name"]
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
            raise Refusal(422, f"{name}: a lowercase RFC 1123 label must consist of lower case alphanumeric characters")
        if plural == "configmaps" and not all(re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key) for key in manifest["data"]):
            raise Refusal(422, "a valid config key must consist of alphanumeric characters, '-', '_' or '.'")
        with self.lock:
            if (plural, name) in self.objects:
                raise Refusal(409, f'{plural} "{name}" already exists')
            plain["metadata"] |= {"uid": str(uuid.uuid4()), "namespace": "lab", "creationTimestamp": now()[:19] + "Z"}
            if not dry_run:
                if plural == "jobs" and self.busy:
                    self.busy -= 1
                    raise Refusal(503, "the server is currently unable to handle the request")
                self.objects[plural, name] = plain
                if plural == "jobs":
                    threading.Thread(target=self._control, args=(plain,), daemon=True).start()
                if plural == "jobs" and self.lost_answers:
                    self.lost_answers -= 1
                    raise Refusal(504, "the request timed out")
        return plain

    def delete_job(self, name: str) -> None:
        """With propagationPolicy=Background: the Job at once, then what it owns."""
        with self.lock:
            job = self.objects.pop(("jobs", name), None)
        if job is None:
            raise Refusal(404, f'jobs.batch "{name}" not found')
        threading.Thread(target=self._collect, args=(job["metadata"]["uid"],), daemon=True).start()

    def _collect(self, uid: str) -> None:
        with self.lock:
            owned = [
                key
                for key, each in self.objects.items()
                if any(owner["uid"] == uid for owner in each["metadata"].get("ownerReferences", []))
            ]
            for key in owned:
                if key[0] != "pods":
                    del self.objects[key]
        for plural, name in owned:
            if plural == "pods":
                self.end_pod(name, grace_s=10)

    def evict(self, name: str) -> None:
        """As a kubelet does whose disk is full: the container is killed, and of its end nothing is known."""
        pod = self.pods[name]
        assert pod.process is not None
        pod.evicted = True
        _kill_all(pod.process)

    def preempt(self, name: str) -> None:
        """For a pod of a higher priority: asked to end, with a condition that says so, and gone as soon as it has ended."""
        pod = self.pods[name]
        assert pod.process is not None
        why = {
            "reason": "PreemptionByScheduler",
            "message": "default-scheduler: preempting to accommodate a higher priority pod",
        }
        pod.manifest["metadata"] |= {"deletionTimestamp": now(), "deletionGracePeriodSeconds": 60}
        pod.manifest["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", **why}]
        since = len(self.requests)
        while sum("/pods?" in path for _, path in self.requests[since:]) < 2:  # a run takes longer than that to end
            time.sleep(0.05)
        self.end_pod(name, grace_s=10)

    def end_pod(self, name: str, grace_s: float) -> None:
        pod = self.pods[name]
        if pod.process is not None and not pod.ended.is_set():
            if grace_s:
                pod.process.terminate()
            else:
                _kill_all(pod.process)
            if not pod.ended.wait(grace_s or 10):
                _kill_all(pod.process)
                pod.ended.wait(PATIENCE_S)
        with self.lock:
            self.objects.pop(("pods", name), None)

    # --- the Job controller --------------------------------------------------------------------------------------------

    def _control(self, job: Json) -> None:
        name, spec = job["metadata"]["name"], job["spec"]
        assert (spec["completionMode"], spec["backoffLimit"], spec["template"]["spec"]["restartPolicy"]) == (
            *("Indexed", 0, "Never"),
        )
        if self.no_pods:
            return
        names = [self._pod(job, index) for index in range(spec["parallelism"])]
        while ("jobs", name) in self.objects:
            with self.lock:
                phases = [
                    self.objects[key]["status"]["phase"] for each in names if (key := ("pods", each)) in self.objects
                ]
            if "Failed" in phases:
                for each in names:
                    with self.lock:
                        there = self.objects.get(("pods", each))
                    if there and there["status"]["phase"] in ("Pending", "Running"):
                        self.end_pod(each, grace_s=10)
                return
            time.sleep(0.05)

    def _pod(self, job: Json, index: int) -> str:
        name = f"{job['metadata']['name']}-{index}-{uuid.uuid4().hex[:5]}"
        template = job["spec"]["template"]
        image_id = self.image_ids.pop(0) if len(self.image_ids) > 1 else self.image_ids[0]
        manifest: Json = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": {**template["metadata"]["labels"], "job-name": job["metadata"]["name"]},
                "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
                "ownerReferences": [
                    {
                        "apiVersion": "batch/v1",
                        "kind": "Job",
                        "name": job["metadata"]["name"],
                        "uid": job["metadata"]["uid"],
                    }
                ],
            },
            "spec": {**template["spec"], "nodeName": f"node{index}", "hostname": f"{job['metadata']['name']}-{index}"},
            "status": {"phase": "Pending", "conditions": [], "containerStatuses": []},
        }
        pod = Pod(manifest, self.folder / name, cut_after=self.cut_after, cut_within=self.cut_within)
        with self.lock:
            self.objects["pods", name] = manifest
            self.pods[name] = pod
        threading.Thread(target=self._kubelet, args=(pod, image_id, index), daemon=True).start()
        return name

    # --- the kubelet ---------------------------------------------------------------------------------------------------

    def _kubelet(self, pod: Pod, image_id: str, index: int) -> None:
        status, spec = pod.manifest["status"], pod.manifest["spec"]
        (container,) = spec["containers"]
        if self.unschedulable_s or index in self.no_room_for:
            message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
            status["conditions"] = [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            ]
            if index in self.no_room_for:
                return
            time.sleep(self.unschedulable_s)
            status["conditions"] = []
        if self.waiting:
            status["containerStatuses"] = [_container(container, "", {"waiting": self.waiting})]
            return
        if self.start_error:  # as containerd's answer is told
            never = {"exitCode": 128, "reason": "StartError", "message": self.start_error, "finishedAt": now()}
            status["containerStatuses"] = [_container(container, image_id, {"terminated": never})]
            status["phase"] = "Failed"
            pod.ended.set()
            return
        configured = next(each["configMap"]["name"] for each in spec["volumes"] if "configMap" in each)
        while ("configmaps", configured) not in self.objects:  # as a kubelet waits for a volume
            time.sleep(0.02)
        for each in ("results", "results-claim", "tmp", "configuration"):
            (pod.folder / each).mkdir(parents=True)
        if self.full_claims:
            (pod.folder / "results-claim").rmdir()
            (pod.folder / "results-claim").write_text("no folder")
        for file, text in self.objects["configmaps", configured]["data"].items():
            (pod.folder / "configuration" / file).write_text(text)
        pod.process = self._started(pod, container, index)
        status["containerStatuses"] = [_container(container, image_id, {"running": {"startedAt": now()}})]
        status["phase"] = "Running"
        assert pod.process.stdout is not None
        for line in pod.process.stdout:
            pod.lines.append(f"{now()} {line.rstrip()}")
        code = pod.process.wait()
        code = 128 - code if code < 0 else code
        ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "finishedAt": now()}
        how: Json = {"containerStatuses": [_container(container, image_id, {"terminated": ended})]}
        if pod.evicted:
            how = {
                "containerStatuses": [],
                "reason": "Evicted",
                "message": "The node was low on resource: ephemeral-storage.",
            }
        status.update(how, phase="Failed" if code else "Succeeded")  # at once: others list it meanwhile
        pod.ended.set()

    def _started(self, pod: Pod, container: Json, index: int) -> subprocess.Popen[str]:
        mounts = {each["mountPath"]: pod.folder / each["name"] for each in container["volumeMounts"]}

        def here(text: str) -> str:
            """A path inside as one outside; names of pods as this machine's."""
            text = text.replace("$(NODE_RANK)", str(index))
            for inside, outside in mounts.items():
                if text == inside or text.startswith(f"{inside}/"):
                    return f"{outside}{text.removeprefix(inside)}"
            return re.sub(r"^harness-[0-9a-f]+-\d+-0\.harness-[0-9a-f]+-\d+$", "localhost", text)

        variables = {
            each["name"]: str(index) if "valueFrom" in each else here(each["value"]) for each in container["env"]
        }
        if "MASTER_PORT" in variables:
            variables["MASTER_PORT"] = str(self._port(pod.manifest["metadata"]["labels"]["job-name"]))
        python, *command = map(here, container["command"])
        assert (python, command[:2]) == ("python", ["-m", "harness.launch.kubernetes.pod"])
        if self.fake is not None:
            (pod.folder / "results/fake.json").write_bytes(self.fake.read_bytes())
            command = ["-c", DOOR.format(fake=str(FAKE)), *command[2:]]
        return subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=CHECKOUT,
            env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "JOB_COMPLETION_INDEX": str(index), **variables},
        )

    def _port(self, job: str) -> int:
        with self.lock:
            if job not in self._ports:
                self._ports[job] = self._held.enter_context(held_port())
            return self._ports[job]

    def run_in(self, name: str, command: list[str]) -> str:
        process = self.pods[name].process
        assert process is not None
        if command == ["sh", "-c", "kill -TERM 1"]:
            process.send_signal(signal.SIGTERM)
            return ""
        assert command == ["python", "-m", "harness.launch.stacks"], command
        inside = [each.pid for each in psutil.Process(process.pid).children(recursive=True)]
        return stacks.told(stacks.ask([process.pid, *inside]))

    def close(self) -> None:
        for pod in self.pods.values():
            if pod.process is not None:
                _kill_all(pod.process)
        self._held.close()


def _kill_all(process: subprocess.Popen[str]) -> None:
    """As the end of a container's first process ends all the others in it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(process.pid)
        inside = first.children(recursive=True)
        for each in (first, *inside):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def _container(container: Json, image_id: str, state: Json) -> Json:
    return {
        **{"name": container["name"], "image": container["image"], "imageID": image_id, "state": state},
        **{"ready": "running" in state, "restartCount": 0},
    }


class Refusal(Exception):
    """Answered as a Status object."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answered()

    do_POST = do_DELETE = do_GET

    def _answered(self) -> None:
        self.cluster.requests.append((self.command, self.path))
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        if self.cluster.down:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        try:
            if self.headers.get("Authorization") != f"Bearer {self.cluster.token}":
                raise Refusal(401, "Unauthorized")
            found = self._found(urlsplit(self.path).path, parse_qs(urlsplit(self.path).query), body)
        except Refusal as refusal:
            status = {"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": refusal.code}
            self._json(refusal.code, {**status, "message": refusal.message, "reason": "Refused"})
            return
        if found is not None:
            self._json(201 if self.command == "POST" else 200, found)

    def _json(self, code: int, content: Json) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _found(self, path: str, query: dict[str, list[str]], body: Json) -> Json | None:
        cluster = self.cluster
        if path == "/version/":
            version = f"v1.{cluster.minor}.2"
            empty = dict.fromkeys(("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"), "")
            return {"major": "1", "minor": f"{cluster.minor}+", "gitVersion": version, **empty}
        if path.endswith("/selfsubjectaccessreviews"):
            asked = body["spec"]["resourceAttributes"]
            assert asked["namespace"] == "lab"
            sub = f"/{asked['subresource']}" if "subresource" in asked else ""
            allowed = f"{asked['verb']} {asked['resource']}{sub}" not in cluster.forbidden
            return {**body, "status": {"allowed": allowed}}
        if path == "/api/v1/nodes" and "list nodes" not in cluster.forbidden:
            return {"apiVersion": "v1", "kind": "NodeList", "metadata": {}, "items": cluster.nodes}
        if path.startswith("/api/v1/nodes"):
            found = [each for each in cluster.nodes if each["metadata"]["name"] == path.rpartition("/")[2]]
            if "list nodes" in cluster.forbidden or not found:
                raise Refusal(403, 'nodes is forbidden: User "someone" cannot get resource "nodes"')
            return found[0]
        match = re.fullmatch(r"/(?:api/v1|apis/batch/v1)/namespaces/lab/(\w+)(?:/([^/]+))?(?:/(\w+))?", path)
        if match is None:
            raise Refusal(404, f"the server could not find the requested resource {path}")
        return self._of_namespace(*match.groups(), query, body)

    def _of_namespace(self, plural: str, name: str | None, sub: str | None, query: Any, body: Json) -> Json | None:
        cluster = self.cluster
        if plural == "persistentvolumeclaims":
            if name not in cluster.claims:
                raise Refusal(404, f'persistentvolumeclaims "{name}" not found')
            return {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name},
                "status": {"phase": "Bound"},
            }
        if plural == "events":
            warnings = [cluster.no_pods] if cluster.no_pods else []
            about = {"metadata": {}, "involvedObject": {}, "type": "Warning", "reason": "FailedCreate"}
            return {
                "apiVersion": "v1",
                "kind": "EventList",
                "metadata": {},
                "items": [{**about, "message": each} for each in warnings],
            }
        if self.command == "POST" and sub is None:
            return cluster.create(plural, body, dry_run=query.get("dryRun") == ["All"])
        if name is None:
            selector = dict(each.split("=") for each in query["labelSelector"][0].split(","))
            with cluster.lock:
                items = [
                    json.loads(json.dumps(each))
                    for (kind, _), each in cluster.objects.items()
                    if kind == plural and selector.items() <= each["metadata"]["labels"].items()
                ]
            return {"apiVersion": "v1", "kind": f"{PLURALS[plural]}List", "metadata": {}, "items": items}
        if (plural, name) not in cluster.objects:
            raise Refusal(404, f'{plural} "{name}" not found')
        if sub == "log":
            self._log(cluster.pods[name], query)
            return None
        if sub == "exec":
            self._exec(name, query["command"])
            return None
        if self.command == "DELETE" and plural == "jobs":
            assert query["propagationPolicy"] == ["Background"]
            cluster.delete_job(name)
            return {"apiVersion": "v1", "kind": "Status", "status": "Success"}
        if self.command == "DELETE":
            cluster.end_pod(name, float(query.get("gracePeriodSeconds", ["30"])[0]))
            return cluster.pods[name].manifest
        return cluster.objects[plural, name]

    def _log(self, pod: Pod, query: dict[str, list[str]]) -> None:
        assert query == {"container": ["trial"], "follow": ["true"], "timestamps": ["true"]}
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = pod.kept_from
        with contextlib.suppress(OSError):
            while True:
                over = pod.ended.is_set()
                for line in pod.lines[sent:]:
                    if pod.cut_after and sent >= pod.cut_after:
                        pod.cut_after = 0
                        self.close_connection = True
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return
                    data = f"{line}\n".encode()
                    if pod.cut_within and pod.cut_within in line:
                        pod.cut_within = ""
                        data = data[: len(data) // 2]
                        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n0\r\n\r\n")
                        return
                    self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                    sent += 1
                self.wfile.flush()
                if over or ("pods", pod.manifest["metadata"]["name"]) not in self.cluster.objects:
                    self.wfile.write(b"0\r\n\r\n")
                    return
                time.sleep(0.05)

    def _exec(self, name: str, command: list[str]) -> None:
        if self.cluster.no_exec:
            raise Refusal(403, 'pods "x" is forbidden: cannot create resource "pods/exec"')
        assert self.headers["Upgrade"] == "websocket"
        assert "v4.channel.k8s.io" in self.headers["Sec-WebSocket-Protocol"]
        accept = base64.b64encode(hashlib.sha1((self.headers["Sec-WebSocket-Key"] + GUID).encode()).digest()).decode()
        self.send_response(101)
        for key, value in (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)):
            self.send_header(key, value)
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        output = self.cluster.run_in(name, command)
        for channel, text in ((1, output), (3, json.dumps({"metadata": {}, "status": "Success"}))):
            data = bytes([channel]) + text.encode()
            size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
            self.wfile.write(b"\x82" + size + data)
        self.wfile.write(b"\x88\x02\x03\xe8")  # closed, 1000
        self.wfile.flush()
        self.close_connection = True


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[Cluster, Path]]:
    """The stand-in, and a kubeconfig that leads to it."""
    cluster = Cluster(folder / "cluster")
    server = ThreadingHTTPServer(("localhost", 0), type("Bound", (Handler,), {"cluster": cluster}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = folder / "kubeconfig"
    content: Json = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "stand-in",
        "clusters": [{"name": "stand-in", "cluster": {"server": f"http://localhost:{server.server_address[1]}"}}],
        "users": [{"name": "someone", "user": {"token": TOKEN}}],
        "contexts": [{"name": "stand-in", "context": {"cluster": "stand-in", "user": "someone", "namespace": "lab"}}],
    }
    config.write_text(json.dumps(content))  # which is YAML
    try:
        yield cluster, config
    finally:
        server.shutdown()
        cluster.close()
