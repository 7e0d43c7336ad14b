"""Environment variables: ours, those that look like ours, and where a launcher says that a process is a rank."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

import pytest

from harness import request
from harness.cli import environment
from harness.comparison.history import points
from harness.execution.context import Launch, keep_compiled
from harness.results.checking import official
from harness.system import places
from tests.conftest import CHECKOUT


@pytest.mark.parametrize(
    ("name", "meant"),
    [("DATA_DIR", "DATADIR"), ("datadir", "DATADIR"), ("LOG_DIR", "LOGDIR"), ("DGX_SYSTEM", "DGXSYSTEM"), ("SEEDS", "SEED"),
     ("DATADIRS", "DATADIR"), ("HARNESS_CACHEDIR", "HARNESS_CACHE_DIR"), ("CLEAR_CACHE", "CLEAR_CACHES")],
)  # fmt: skip
def test_lookalikes(name: str, meant: str) -> None:
    (sentence,) = environment.lookalikes({name: "x", "PATH": "/bin"})
    assert sentence == f"the environment variable {name} is not read; did you mean {meant}?"


def test_what_is_ours_and_what_is_nobodys_business() -> None:
    ours = dict.fromkeys(environment.DECLARED, "x")
    others = dict.fromkeys(
        ("PATH", "HOME", "LANG", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "LOGNAME", "USER", "TERM", "COUNT"), "x"
    )
    launchers = dict.fromkeys(environment.OF_LAUNCHERS, "x")
    assert environment.lookalikes(ours | others | launchers | {"HARNESS_IMAGE_COMMIT": "x"}) == []


def test_an_unknown_name_with_our_prefix() -> None:
    (sentence,) = environment.lookalikes({"HARNESS_BATCH": "4"})
    assert sentence.startswith("the environment variable HARNESS_BATCH is not read; known are DGXSYSTEM")


def test_each_variable_that_decides_where_things_lie_is_documented() -> None:
    """XDG_CACHE_HOME moved the cache, and no page and no help said so."""
    source = Path(environment.__file__).read_text()
    read = set(re.findall(r'environment(?:\.get\(|\[)"([A-Z_]+)"', source)) - {"HOME"}  # which is said as ~
    assert "XDG_CACHE_HOME" in read
    pages = "".join(path.read_text() for path in (CHECKOUT / "run_and_time.sh", *(CHECKOUT / "docs").glob("*.md")))
    for name in (*read, environment.CACHE_DIR, environment.BENCHMARKS, "TMPDIR"):
        assert name in pages, name
    (option,) = (each for each in request.FIELDS if each.name == "cache_dir")
    assert "$XDG_CACHE_HOME/harness, by default ~/.cache/harness" in option.annotation.__metadata__[0].help


def test_cache_dir(tmp_path: Path) -> None:
    assert environment.cache_dir(tmp_path, {}) == tmp_path / ".cache"
    assert environment.cache_dir(tmp_path, {"HARNESS_CACHE_DIR": "/somewhere"}) == Path("/somewhere")
    assert environment.cache_dir(tmp_path, {"HARNESS_CACHE_DIR": ""}) == tmp_path / ".cache"


def test_the_images_own_cache_comes_first_where_this_user_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume mounted there keeps what one container made for the next; another user's is passed over."""
    image = {"HARNESS_IMAGE_LOCK": "run.lock"}
    monkeypatch.setattr(environment.request, "CACHE", request.Inside(PurePosixPath(tmp_path / "volume")))
    (tmp_path / "volume").mkdir(mode=0o700)
    assert environment.cache_dir(tmp_path, image) == tmp_path / "volume"
    assert environment.cache_dir(tmp_path, {}) == tmp_path / ".cache"
    (tmp_path / "volume").chmod(0o777)
    assert environment.cache_dir(tmp_path, image) == tmp_path / ".cache"


def test_a_cache_in_which_others_could_have_been_first_is_passed_over(tmp_path: Path) -> None:
    users = {"XDG_CACHE_HOME": str(tmp_path / "users")}
    (tmp_path / ".cache").mkdir(mode=0o700)
    assert environment.cache_dir(tmp_path, users) == tmp_path / ".cache"
    assert environment.passed_over(tmp_path, users) == environment.passed_over(None, users) == []
    (tmp_path / ".cache").chmod(0o777)
    assert environment.cache_dir(tmp_path, users) == tmp_path / "users" / "harness"
    (said,) = environment.passed_over(tmp_path, users)
    assert f"{tmp_path}/.cache is passed over for {tmp_path}/users/harness" in said and "chmod go-w" in said
    assert environment.passed_over(tmp_path, {"HARNESS_CACHE_DIR": "/x"}) == []
    (tmp_path / ".cache").chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 4711)
        (said,) = environment.passed_over(tmp_path, users)
    assert said.endswith(": it is of another user than this one")
    (tmp_path / ".cache").chmod(0o777)
    assert environment.cache_dir(tmp_path, {"HOME": str(tmp_path)}) == tmp_path / ".cache" / "harness"
    (tmp_path / "users" / "harness").mkdir(parents=True, mode=0o700)
    (tmp_path / "users" / "harness").chmod(0o770)
    assert environment.cache_dir(tmp_path, users).name == f"harness-{os.getuid()}"
    (tmp_path / ".cache").rmdir()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    (tmp_path / ".cache").symlink_to(tmp_path / "shared")
    assert environment.cache_dir(tmp_path, users).name == f"harness-{os.getuid()}"
    (tmp_path / "shared").chmod(0o700)
    assert environment.cache_dir(tmp_path, users) == tmp_path / ".cache"


def test_whoever_makes_the_cache_makes_it_for_its_user_alone(tmp_path: Path) -> None:
    """Under Debian's umask for a user's own group `check` and `history` made one that no run trusted afterwards."""
    before = os.umask(0o002)
    try:
        official._keep(tmp_path / "check" / ".cache" / "checks", "key", [])
        points._keep(tmp_path / "history" / ".cache" / "history.json", {})
    finally:
        os.umask(before)
    assert [places.own(tmp_path / verb / ".cache") for verb in ("check", "history")] == [True, True]
    assert (tmp_path / "history" / ".cache" / "history.json").exists()


def test_a_cache_of_a_checkout_that_is_mounted_read_only_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run from there was refused: "Permission denied; name a folder of your own"."""
    (tmp_path / ".cache").mkdir(mode=0o700)
    users = {"XDG_CACHE_HOME": str(tmp_path / "users")}
    assert environment.cache_dir(tmp_path, users) == tmp_path / ".cache"
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: real(path, mode) and not (Path(path) == tmp_path / ".cache" and mode & os.W_OK)
    )
    assert environment.cache_dir(tmp_path, users) == tmp_path / "users" / "harness"
    found = places.look_at_cache(tmp_path / ".cache")
    assert (found.own, found.place.writable) == (False, False)


def test_what_is_compiled_is_kept_with_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless he names another place, or others could put kernels there, which a run would execute."""
    names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH")
    for name in names:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRITON_CACHE_DIR", "/his/own")
    keep_compiled(tmp_path / "cache")
    kept = tmp_path / "cache" / "compiled"
    assert [os.environ[name] for name in names] == [str(kept / "inductor"), "/his/own", str(kept / "cuda")]
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o700, 0o700)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    kept.parent.chmod(0o777)
    keep_compiled(tmp_path / "cache")
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


def test_launch() -> None:
    assert Launch.from_environment({}) == Launch()
    ranks = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "HARNESS_LOG": "log"}
    assert Launch.from_environment(ranks) == Launch(3, 1, 4, 2, as_rank=True, log=Path("log"))
    assert Launch.from_environment({"HARNESS_CACHES_CLEARED": "1"}).caches_cleared
    for broken in ({"RANK": "0"}, {**ranks, "RANK": "zero"}, {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}):
        with pytest.raises(ValueError, match=r"this is taken for a rank of torchrun, but .* not all numbers"):
            Launch.from_environment(broken)
    # as Kubeflow sets it: a rank a container
    assert Launch.from_environment({"RANK": "3", "WORLD_SIZE": "4"}) == Launch(3, 0, 4, 1, as_rank=True)


@pytest.mark.parametrize(
    "numbers",
    [(5, 0, 1, 1), (-1, 0, 1, 1), (0, 0, 1, 0), (0, 0, 0, 1), (0, 1, 2, 2), (1, 2, 2, 2), (0, 0, 2, 4), (0, -1, 2, 2)],
)
def test_a_rank_that_there_is_not(numbers: tuple[int, ...]) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    with pytest.raises(ValueError, match=r"there is no such rank: RANK=.*; set them as torchrun does, or unset RANK"):
        Launch.from_environment({name: str(number) for name, number in zip(names, numbers, strict=True)})


def test_out_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.out_dir(tmp_path) == tmp_path / "out"
    monkeypatch.setattr(environment.os, "access", lambda *_: False)
    assert environment.out_dir(tmp_path) == Path("out")


def test_collections_and_packages_lie_in_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From whichever directory it is called, and `report` looks where `collect` puts them."""
    monkeypatch.chdir(tmp_path)
    checkout = tmp_path / "checkout"
    (checkout / "results").mkdir(parents=True)
    assert environment.collection(checkout) == checkout / "results"
    assert environment.packages(checkout) == checkout / "packages"
    assert environment.results(checkout) == [checkout / "results"]
    assert environment.results(None) == []
    (tmp_path / "results").mkdir()
    assert environment.results(None) == [environment.collection(None)] == [Path("results")]
    assert environment.results(checkout) == [checkout / "results"]
    monkeypatch.setattr(environment.os, "access", lambda *_: False)  # the image's, which ships results of its own
    assert environment.collection(checkout) == Path("results")
    assert environment.results(checkout) == [Path("results"), checkout / "results"]
    monkeypatch.chdir(checkout)
    assert environment.results(checkout) == [Path("results")]
