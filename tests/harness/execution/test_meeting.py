"""Ranks whose MASTER_ADDR or MASTER_PORT is wrong and leads somewhere all the same: what is said meanwhile, and in the end."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from harness.execution import meeting
from harness.execution.meeting import MeetingPlace
from tests.harness.execution.runs import run
from tests.patience import PATIENCE_S
from tests.toy import configuration as toy

HERE = "127.0.0.1"


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port whose machine never answers: its queue of connections is full, and the kernel drops what comes."""
    with contextlib.ExitStack() as closing:
        server = closing.enter_context(socket.socket())
        server.bind((HERE, 0))
        server.listen(0)
        for _ in range(8):
            client = closing.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        probe = closing.enter_context(socket.socket())
        probe.settimeout(0.3)
        if probe.connect_ex(server.getsockname()) == 0:
            pytest.skip("this kernel's queues are never full")
        yield int(server.getsockname()[1])


@pytest.fixture(params=[b"", b"SSH-2.0-OpenSSH_9.2p1\r\n"], ids=["silent", "talkative"])
def another_program(request: pytest.FixtureRequest) -> Iterator[int]:
    """Takes connections, and is no store."""
    taken = []
    with socket.create_server((HERE, 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    taken.append(connection)
                    connection.sendall(request.param)

        Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
        for each in taken:
            each.close()


def test_an_address_that_never_answers(black_hole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "FIRST_S", 0.5)
    monkeypatch.setattr(meeting, "TELL_S", 0.5)
    monkeypatch.setattr(meeting, "TRY_S", 0.3)
    monkeypatch.setattr(meeting, "AGAIN_S", 0.1)
    said: list[str] = []
    with pytest.raises(ValueError, match=rf"rank 3 has tried to reach rank 0 at {HERE}:{black_hole} .*nothing answers"):
        meeting.reach("rank 3", MeetingPlace(HERE, black_hole, 6.0), said.append)
    assert 2 <= len(said) <= 13
    assert said[0].startswith(f"rank 3 cannot reach rank 0 at {HERE}:{black_hole} (MASTER_ADDR, MASTER_PORT) yet: ")
    assert "s so far" in said[0]


def test_a_machine_that_answers_and_where_nobody_listens(free_port: int) -> None:
    with pytest.raises(
        ValueError, match=r"nothing listens on the port; is rank 0 started there\?.*--rendezvous-timeout"
    ):
        meeting.reach("rank 1", MeetingPlace(HERE, free_port, 0.5))


def test_rank_0_may_come_later(free_port: int) -> None:
    found: list[object] = []
    place = MeetingPlace(HERE, free_port, 60.0)
    other = Thread(target=lambda: found.append(meeting.of_ranks(place, 1, 2, keeps=False)))
    other.start()
    time.sleep(1.5)
    kept = meeting.of_ranks(place, 0, 2, keeps=True)
    other.join(PATIENCE_S)
    assert len(found) == 1
    assert kept.get("here/1")


def test_a_rank_of_another_run_on_the_same_port_is_told_so(free_port: int) -> None:
    """It would wait for connections that nobody makes, for as long as a collective may take."""
    place = MeetingPlace(HERE, free_port, 60.0)
    kept: list[object] = []
    first = Thread(target=lambda: kept.append(meeting.of_ranks(place, 0, 2, keeps=True)))
    first.start()
    meeting.of_ranks(place, 1, 2, keeps=False)
    first.join(PATIENCE_S)
    assert kept
    with pytest.raises(
        ValueError, match=rf"RANK=1 is at {HERE}:{free_port} .* already, or was, on .*: another run meets there"
    ):
        meeting.of_ranks(place, 1, 2, keeps=False)


def test_ranks_that_torchrun_starts_again_meet_anew(free_port: int) -> None:
    """Its store outlives them: what the dead ones left there is not for the next, who got gloo's addresses of dead ranks."""
    import torch.distributed as dist

    agent = dist.TCPStore(HERE, free_port, 2, True, wait_for_workers=False)  # type: ignore[attr-defined]
    place = MeetingPlace(HERE, free_port, 60.0)

    def met(attempt: str) -> object:
        other = Thread(target=lambda: meeting.of_ranks(place, 1, 2, keeps=False, attempt=attempt))
        other.start()
        found = meeting.of_ranks(place, 0, 2, keeps=False, attempt=attempt)
        other.join(PATIENCE_S)
        return found

    for attempt in ("0", "1"):
        met(attempt).set("left by it", attempt)  # type: ignore[attr-defined]
    assert [agent.get(f"harness/{attempt}/left by it") for attempt in (0, 1)] == [b"0", b"1"]


def test_another_program_on_the_port(another_program: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "ANSWER_S", 1.0)
    monkeypatch.setattr(meeting, "TRY_S", 0.3)
    with pytest.raises(ValueError, match="what answers there is not rank 0 of a run: another program has that port"):
        meeting.of_ranks(MeetingPlace(HERE, another_program, 30.0), 1, 2, keeps=False)


def test_rank_0_that_does_not_find_itself(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its port is free on its machine, and the address is another's: one of those that the documents have for examples."""
    monkeypatch.setattr(meeting, "TRY_S", 1.0)
    said = rf"rank 0 waits for the others on .* and does not reach itself at 192\.0\.2\.1:{free_port}"
    with pytest.raises(ValueError, match=said):
        meeting.of_ranks(MeetingPlace("192.0.2.1", free_port, 2.0), 0, 2, keeps=True)


def test_a_run_whose_rank_0_is_nowhere_is_over_in_seconds(tmp_path: Path, black_hole: int) -> None:
    rank = {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
    meets = {"MASTER_ADDR": HERE, "MASTER_PORT": str(black_hole)}
    words = [toy.write(tmp_path, toy.raw(ranks=1, nodes=2)), "--out", tmp_path / "out", "--rendezvous-timeout", "2"]
    ended = run(*words, **rank, **meets)
    assert ended.returncode == 2, ended.stderr
    assert f"rank 1 has tried to reach rank 0 at {HERE}:{black_hole} (MASTER_ADDR, MASTER_PORT)" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert not list(tmp_path.glob("out/result_*"))


def test_who_has_not_come_is_said_while_rank_0_waits(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "ALL_S", 5.0)
    monkeypatch.setattr(meeting, "FIRST_S", 0.5)
    said: list[str] = []
    with pytest.raises(ValueError, match=r"of 3 ranks 2 did not come"):
        meeting.of_ranks(MeetingPlace(HERE, free_port), 0, 3, keeps=True, say=said.append)
    assert said[0].startswith("of 3 ranks 2 are not at") and "rank 1, 2" in said[0]
