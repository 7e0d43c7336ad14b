"""A file server on the loopback device that fails on demand: one fault for each request, then it serves properly."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

from tests.patience import PATIENCE_S

# After which a server that stalls is given up, where a test has it stall: any other answer may take longer on a busy machine
SOON_S = 0.3
Fault = Literal[
    "break",  # half of what was asked for, then the connection is closed
    "stall",  # half of what was asked for, then nothing more, with the connection open
    "slow",  # all of it in many small pieces, each once `taken` says that the client has the one before
    "no range",  # all of it, whatever was asked for
    "no range, break",  # half of all of it, whatever was asked for
    "other part",  # a part that does not begin where it was asked for
    "no total",  # properly, but without saying the file's size
    "no length",  # all of it without its length beforehand
    "wrong bytes",  # another file of the same size
    "page",  # a web page, as a proxy's log-in
    404,
    416,
    429,
    503,
]


@dataclass
class FileServer:
    """Serves `files` by name; a context manager. `ranges` are the Range headers of the requests so far."""

    files: Mapping[str, bytes]
    faults: list[Fault] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    headers: Mapping[str, str] = field(
        default_factory=dict
    )  # of each answer besides; {md5} and {md5_base64} are filled in

    def __enter__(self) -> FileServer:
        server = self

        class Handler(_Handler):
            owner = server

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.released = threading.Event()  # stalled answers end
        self.taken = threading.Semaphore(0)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self.taken.release(25)
        self.http.shutdown()
        self.http.server_close()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/{name}"


class _Handler(BaseHTTPRequestHandler):
    owner: FileServer
    whole: bytes

    def do_HEAD(self) -> None:
        content = self.owner.files.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self._more(content)
        self.end_headers()

    def _more(self, content: bytes) -> None:
        md5 = hashlib.md5(content)
        filled = {"md5": md5.hexdigest(), "md5_base64": base64.b64encode(md5.digest()).decode()}
        for name, value in self.owner.headers.items():
            self.send_header(name, value.format(**filled))

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.owner.ranges.append(asked)
        fault = self.owner.faults.pop(0) if self.owner.faults else None
        if isinstance(fault, int):
            self.send_error(fault)
            return
        content = self.owner.files.get(self.path.lstrip("/"), b"")
        if not content:
            self.send_error(404)
            return
        self.whole = content
        if fault == "page":
            content = b"<html>please log in</html>"
        elif fault == "wrong bytes":
            content = bytes(len(content))
        with contextlib.suppress(ConnectionError):  # the client went away: an interruption under test
            self._answer(content, asked, fault)

    def _answer(self, content: bytes, asked: str | None, fault: Fault | None) -> None:
        begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0  # type: ignore[index]
        if fault == "other part":
            begin += 1
        if begin and fault not in {"no range", "no range, break", "no length", "page"}:
            self.send_response(206)
            total = "*" if fault == "no total" else len(content)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{total}")
        else:
            self.send_response(200)
            begin = 0
        body = content[begin:]
        self._more(self.whole)
        if fault != "no length":  # HTTP/1.0: the connection's end is the body's
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._send(body, fault)

    def _send(self, body: bytes, fault: Fault | None) -> None:
        half = body[: len(body) // 2]
        if fault == "slow":
            pieces = [body[at : at + max(1, len(body) // 25)] for at in range(0, len(body), max(1, len(body) // 25))]
            for piece in pieces:
                self.wfile.write(piece)
                self.owner.taken.acquire(timeout=PATIENCE_S)
        elif fault in {"break", "no range, break"}:
            self.wfile.write(half)
        elif fault == "stall":
            self.wfile.write(half)
            self.owner.released.wait(PATIENCE_S)
        else:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Tests look at `ranges`."""
