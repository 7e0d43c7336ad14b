"""Thousands of small files over HTTP, many at once and on connections that are kept; goes on where it was interrupted.

A file gets its name only when all of it came: as long as the server said and, where the server says an MD5 (the ETag of
Amazon's storage), with that. What is there under its name is taken for whole; whoever calls looks at it. For one large file:
benchmarks/detection/download/fetching.py.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import itertools
import os
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter

from benchmarks.detection.download.fetching import FetchError, Progress, opened

THREADS = 64  # what takes time is the way there and back: 64 of 0.3 MB each fill some 2 Gb/s at 80 ms
ATTEMPTS = 6
TIMEOUT_S = 60.0  # without a single byte
LONGEST_PAUSE_S = 60.0
FILE_LIMIT = 200_000_000  # bytes: no picture is larger, and one is held in memory
MOST_REFUSED = 1_000  # then it is not the files that are not there
MD5 = re.compile(r'"([0-9a-f]{32})"')
NOT_THERE = {403, 404, 410}  # Amazon's storage answers 403 for what it does not have


class _Again(Exception):
    """This attempt ended early; the next may do better."""


class _NotThere(Exception):
    """The server answers, and has no such file."""


def fetch_all(
    names: Sequence[str],
    url: str,
    folder: Path,
    what: str,
    progress: Progress,
    *,
    wrong: Callable[[bytes], str | None],
    threads: int = THREADS,
) -> dict[str, str]:
    """Fetch `url`NAME to `folder`/NAME for each of `names`. Returns those that the server does not have, with its answer.

    `wrong` says what is wrong with a content, if anything: a proxy's page is no picture. FetchError when no attempt at a file
    succeeds, OSError of the disk; what came until then, or until a Ctrl-C, is there.
    """
    refused: dict[str, str] = {}
    stop = threading.Event()
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=threads))

    def one(name: str) -> tuple[str, str]:
        try:
            _write(folder / name, _content(session, f"{url}{name}", wrong, stop))
        except _NotThere as error:
            return name, str(error)
        return name, ""

    left, done = iter(names), 0
    with session, concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="downloading") as pool:
        under_way = {pool.submit(one, name) for name in itertools.islice(left, 2 * threads)}
        try:
            while under_way:
                finished, under_way = concurrent.futures.wait(under_way, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in finished:
                    name, why = future.result()
                    if why:
                        refused[name] = why
                done += len(finished)
                progress(what, done, len(names))
                if len(refused) > MOST_REFUSED:
                    name, why = next(reversed(refused.items()))
                    raise FetchError(
                        f"{url}: {len(refused):,} files refused, the last {name} ({why}); is this the address?"
                    )
                under_way |= {pool.submit(one, name) for name in itertools.islice(left, len(finished))}
        except BaseException:  # a Ctrl-C too: nobody waits for what was not begun
            stop.set()
            for future in under_way:
                future.cancel()
            raise
    return refused


def _content(session: requests.Session, url: str, wrong: Callable[[bytes], str | None], stop: threading.Event) -> bytes:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _attempt(session, url, wrong)
        except _Again as reason:
            if stop.is_set() or attempt == ATTEMPTS:
                raise FetchError(f"{url}: given up after {attempt} attempts ({reason}); run again to go on") from reason
            stop.wait(min(2.0**attempt, LONGEST_PAUSE_S))
    raise AssertionError


def _attempt(session: requests.Session, url: str, wrong: Callable[[bytes], str | None]) -> bytes:
    try:
        with session.get(url, timeout=TIMEOUT_S, stream=True, headers={"Accept-Encoding": "identity"}) as response:
            if response.status_code in NOT_THERE:
                raise _NotThere(f"HTTP {response.status_code}")
            if response.status_code != requests.codes.ok:
                raise _Again(f"HTTP {response.status_code} {response.reason}")
            length = int(response.headers.get("Content-Length", -1))
            if length > FILE_LIMIT:
                raise _Again(f"{length:,} bytes, expected {FILE_LIMIT:,} at most")
            content: bytes = response.content
            md5 = MD5.fullmatch(response.headers.get("ETag", ""))
    except requests.RequestException as error:
        raise _Again(f"{error}") from error
    if length not in (-1, len(content)):
        raise _Again(f"{len(content):,} of {length:,} bytes came")
    if md5 is not None and hashlib.md5(content, usedforsecurity=False).hexdigest() != md5[1]:
        raise _Again("came with another MD5 than the server says")
    if why := wrong(content):
        raise _Again(why)
    return content


def _write(target: Path, content: bytes) -> None:
    part = target.with_name(f"{target.name}.part")
    with opened(part, os.O_TRUNC) as file:
        file.write(content)
    part.replace(target)
