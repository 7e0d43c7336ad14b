"""A stand-in for a Docker engine behind a unix socket, as its API's documentation says it answers: containers that are made,
looked for by labels, waited for, read and removed, and which run nothing. https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

import contextlib
import json
import re
import socketserver
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.patience import PATIENCE_S

Json = dict[str, Any]
IMAGE = "sha256:" + "ab" * 32


class Engine:
    """The state of the stand-in, and what it is told to do."""

    def __init__(self) -> None:
        self.containers: dict[str, Json] = {}
        self.made: list[Json] = []  # all that were ever, as they were asked for
        self.prints = b""  # each container, on its standard output
        self.ends = threading.Event()  # of all containers
        self.ends.set()

    def create(self, name: str, asked: Json) -> Json:
        self.made.append(asked)
        number = f"{len(self.made):064x}"
        self.containers[number] = {
            **{"Id": number, "Name": f"/{name}", "Image": IMAGE, "Config": {**asked, "Tty": False}},
            **{"HostConfig": {"LogConfig": {"Type": "json-file"}}, "State": {"Status": "created", "ExitCode": 0}},
        }
        return {"Id": number, "Warnings": []}

    def labelled(self, wanted: list[str]) -> list[Json]:
        there = {number: each["Config"].get("Labels") or {} for number, each in self.containers.items()}
        pairs = [each.partition("=")[::2] for each in wanted]
        return [{"Id": number} for number, labels in there.items() if all(labels.get(k) == v for k, v in pairs)]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    engine: Engine

    def address_string(self) -> str:
        return "a socket"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        path, query = re.sub(r"^/v[\d.]+", "", split.path), parse_qs(split.query)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        if path == "/containers/json":
            wanted = json.loads(query.get("filters", ["{}"])[0]).get("label", [])
            return self._answer(200, self.engine.labelled(wanted))
        if path == "/containers/create":
            return self._answer(201, self.engine.create(query.get("name", ["nameless"])[0], body))
        if (found := re.fullmatch(r"/containers/(\w+)(?:/(\w+))?", path)) is not None:
            return self._of_container(found[1], found[2])
        known: dict[str, Any] = {
            "/_ping": {},
            "/version": {"ApiVersion": "1.45", "MinAPIVersion": "1.24", "Version": "27.0"},
            "/info": {"SecurityOptions": []},
            "/images/ssd/json": {"Id": IMAGE, "RepoTags": ["ssd:latest"], "RepoDigests": []},
        }
        return self._answer(200, known[path]) if path in known else self._answer(404, {"message": f"no {path}"})

    do_POST = do_DELETE = do_GET

    def _of_container(self, number: str, what: str | None) -> None:
        container = self.engine.containers.get(number)
        if container is None:
            return self._answer(404, {"message": "No such container"})
        if self.command == "DELETE":
            del self.engine.containers[number]
            return self._answer(204)
        if what == "json":
            if container["State"]["Status"] == "running" and self.engine.ends.is_set():
                container["State"]["Status"] = "exited"
            return self._answer(200, container)
        if what == "start":
            container["State"]["Status"] = "running"
        if what in ("wait", "logs", "attach"):
            self.engine.ends.wait(PATIENCE_S)
        if what == "wait":
            return self._answer(200, {"StatusCode": 0})
        if what in ("logs", "attach"):
            printed = self.engine.prints
            return self._send(200, struct.pack(">BxxxL", 1, len(printed)) + printed)
        return self._answer(204)

    def _answer(self, code: int, content: object = None) -> None:
        self._send(code, b"" if content is None else json.dumps(content).encode())

    def _send(self, code: int, data: bytes) -> None:
        with contextlib.suppress(OSError):  # who asked may be gone
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False


@contextlib.contextmanager
def serving(socket: Path) -> Iterator[Engine]:
    """The stand-in, behind that socket."""
    engine = Engine()
    server = _Server(str(socket), type("Bound", (Handler,), {"engine": engine}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield engine
    finally:
        engine.ends.set()
        server.shutdown()
        server.server_close()
