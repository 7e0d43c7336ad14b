"""The Dockerfile and its scripts, without an engine: linted, pinned, and true to the files that they speak of."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
DOCKERFILE = (CHECKOUT / "Dockerfile").read_text(encoding="utf-8")
LOCK = CHECKOUT / "requirements/run.lock"
TOOLS = Path(sys.executable).parent
# by the Dockerfile's argument that says the lock file's hash
LOCKS = {
    "RUN_LOCK_SHA256": LOCK,
    "CUDA12_LOCK_SHA256": LOCK.with_name("cuda12.lock"),
    "VENDOR_LOCK_SHA256": LOCK.with_name("vendor.lock"),
}
ACCELERATORS = ("cuda13", "cuda12", "cpu", "vendor", "rocm")


def locked(lock: Path) -> dict[str, str]:
    """Versions by name."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE))


LOCKED = locked(LOCK)


def default(argument: str) -> str:
    match = re.search(rf"^ARG {argument}=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert match, argument
    return match[1]


def stages() -> dict[str, str]:
    """The text of each stage by its name; the last one is ""."""
    parts = re.split(r"^FROM (\S+)(?: AS (\S+))?$", DOCKERFILE, flags=re.MULTILINE)
    return {parts[i + 1] or "": parts[i + 2] for i in range(1, len(parts), 3)}


def image_record() -> ModuleType:
    spec = importlib.util.spec_from_file_location("image_record", CHECKOUT / "docker/image_record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_hadolint() -> None:
    done = subprocess.run([TOOLS / "hadolint", "Dockerfile"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_shellcheck() -> None:
    scripts = [*CHECKOUT.glob("docker/*.sh"), CHECKOUT / ".ci/docker.sh"]
    done = subprocess.run(
        [TOOLS / "shellcheck", "-x", *scripts], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_pinned_by_digest_and_nothing_else_is_taken() -> None:
    assert re.fullmatch(r"debian:bookworm-\d{8}-slim@sha256:[0-9a-f]{64}", default("BASE_IMAGE"))
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    own = {base for base in bases if base != "${BASE_IMAGE}"}
    assert own == {
        "debian",
        "tools",
        "vendor",
        *(f"{lock}-venv" for lock in ("run", "cuda12", "vendor")),
        "${ACCELERATOR}",
    }
    assert {"debian", "tools", *ACCELERATORS} < set(stages())


def test_each_image_has_the_wheels_of_the_lock_that_it_names() -> None:
    bases = {name: base for base, name in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)}
    for name in ACCELERATORS:
        said = re.search(r"HARNESS_IMAGE_LOCK=(\S+)\.lock", stages()[name if name != "rocm" else "vendor"])
        assert said is not None
        assert bases[name if name != "rocm" else bases["rocm"]] == f"{said[1]}-venv"
        assert f"COPY --from={said[1]}-wheels /opt/venv /opt/venv" in stages()[f"{said[1]}-venv"]
        stage = stages()[f"{said[1]}-wheels"]
        assert f"/tmp/{said[1]}.lock {said[1].upper()}_LOCK_SHA256" in stage
    assert {bases["vendor-wheels"], bases["vendor-venv"]} == {"${BASE_IMAGE}"}, "the maker's own Python knows its torch"


def test_images_of_one_lock_file_share_its_layer() -> None:
    """An instruction before it that differs, be it a label, and each has 7 GB of its own: to copy, to hash, to keep."""
    for name, text in stages().items():
        if name.endswith("-venv"):
            assert re.findall(r"^[A-Z]+ ", text, re.MULTILINE) == ["COPY "], name


def test_the_default_is_cuda_13() -> None:
    assert default("ACCELERATOR") == "cuda13"


def test_only_an_image_for_nvidia_asks_for_its_driver() -> None:
    for name in ACCELERATORS:
        assert ("NVIDIA_REQUIRE_CUDA" in stages()[name]) == name.startswith("cuda"), name


def test_what_a_maker_brings_is_not_installed_over_it() -> None:
    names = locked(LOCKS["VENDOR_LOCK_SHA256"])
    assert not [name for name in names if name.startswith(("torch", "triton", "nvidia-")) and name != "nvidia-ml-py"]
    for name, version in names.items():
        assert LOCKED[name] == version, "the same as in run.lock, so that results differ by torch alone"
    script = (CHECKOUT / "docker/install-wheels.sh").read_text(encoding="utf-8")
    assert "--system-site-packages" in script


def test_cuda_12_differs_by_torch_and_what_comes_with_it_alone() -> None:
    older = locked(LOCKS["CUDA12_LOCK_SHA256"])
    assert (older["torch"], older["torchvision"], older["nvidia-dali-cuda120"]) == ("2.7.1", "0.22.1", "2.4.0")
    for name, version in locked(LOCKS["VENDOR_LOCK_SHA256"]).items():
        assert older[name] == version


def test_the_lock_file_is_the_one_that_the_dockerfile_names() -> None:
    for argument, lock in LOCKS.items():
        assert default(argument) == hashlib.sha256(lock.read_bytes()).hexdigest(), argument


def test_wheels_of_another_lock_file_are_refused_before_anything_is_installed() -> None:
    command = ["sh", CHECKOUT / "docker/install-wheels.sh", LOCK, "RUN_LOCK_SHA256", "0" * 64]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert f"RUN_LOCK_SHA256={default('RUN_LOCK_SHA256')}" in done.stderr


def test_labels_carry_the_locked_versions() -> None:
    said = {name: re.search(r'HARNESS_IMAGE_VERSIONS="([^"]+)"', stages()[name]) for name in ("cuda13", "cuda12")}
    by_image = {name: dict(each.split("=") for each in text[1].split()) for name, text in said.items() if text}
    older = locked(LOCKS["CUDA12_LOCK_SHA256"])
    assert by_image["cuda12"] == {
        "torch": older["torch"],
        "cuda": ".".join(older["nvidia-cuda-runtime-cu12"].split(".")[:2]),
        "cudnn": older["nvidia-cudnn-cu12"],
        "nccl": older["nvidia-nccl-cu12"],
        "dali": older["nvidia-dali-cuda120"],
        "triton": older["triton"],
    }
    assert by_image["cuda13"] == {
        "torch": LOCKED["torch"],
        "cuda": ".".join(LOCKED["cuda-toolkit"].split(".")[:2]),
        "cudnn": LOCKED["nvidia-cudnn-cu13"],
        "nccl": LOCKED["nvidia-nccl-cu13"],
        "dali": LOCKED["nvidia-dali-cuda130"],
        "triton": LOCKED["triton"],
    }


def test_the_required_driver_is_that_of_the_locked_cuda() -> None:
    import torch

    drivers = tomllib.loads((CHECKOUT / "harness/system/nvidia/drivers.toml").read_text(encoding="utf-8"))
    newest, older = drivers["cuda"]
    assert newest["version"] == ".".join(LOCKED["cuda-toolkit"].split(".")[:2])
    assert f'NVIDIA_REQUIRE_CUDA="cuda>={newest["version"]}"' in stages()["cuda13"]
    older_cuda = locked(LOCKS["CUDA12_LOCK_SHA256"])["nvidia-cuda-runtime-cu12"]
    assert older["version"] == ".".join(older_cuda.split(".")[:2])
    assert 'NVIDIA_REQUIRE_CUDA="cuda>=12.0"' in stages()["cuda12"], "minor versions are compatible from 12.0 on"
    if torch.__version__.split("+")[0] == LOCKED["torch"] and torch.version.cuda:
        assert newest["version"] == torch.version.cuda
        oldest = min(int(arch.removeprefix("sm_")) for arch in torch._C._cuda_getArchFlags().split())
        assert newest["minimum_compute_capability"] == f"{oldest // 10}.{oldest % 10}"


def test_a_sites_own_sources_stay_out_of_the_image() -> None:
    """Build arguments of a stage are in its history; secrets are mounted where no layer holds them."""
    for name, text in stages().items():
        assert ("ARG PIP_" in text) == name.endswith("-wheels"), name
    mounts = re.findall(r"--mount=(type=secret\S*)", DOCKERFILE)
    assert set(mounts) == {f"type=secret,id={name}" for name in ("apt_sources", "ca_bundle", "pip_conf")}


def test_everything_that_is_copied_is_in_the_build_context() -> None:
    allowed = {
        line[1:] for line in (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"
    }
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", stages()[""], re.MULTILINE) for name in line.split()
    }
    assert copied == allowed - {".git"}
    assert all((CHECKOUT / name).exists() for name in copied)


def test_code_comes_after_the_wheels_and_the_user_is_not_root() -> None:
    last = stages()[""]
    assert last.index("useradd") < last.index("COPY harness")
    assert re.findall(r"^USER (\S+)$", last, re.MULTILINE) == ["1000:1000"]


# --- the commit that the image names -----------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(context: Path, argument: str = "") -> tuple[str, bool]:
    command = ["sh", str(CHECKOUT / "docker/commit.sh"), str(context), argument]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return told["commit"], told["tree_dirty"]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A build context: a checkout of which some files have been left out."""
    (tmp_path / "harness").mkdir()
    for name in ("harness/cli.py", "run.sh", "README.md"):
        (tmp_path / name).write_text(name)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    (tmp_path / "README.md").unlink()  # as .dockerignore does
    return tmp_path


def test_commit_of_a_clean_checkout(context: Path) -> None:
    assert commit(context) == (git(context, "rev-parse", "HEAD"), False)


def test_commit_of_a_changed_checkout(context: Path) -> None:
    head = git(context, "rev-parse", "HEAD")
    (context / "harness/new.py").touch()
    assert commit(context) == (head, True)
    (context / "harness/new.py").unlink()
    (context / "harness/cli.py").write_text("changed")
    assert commit(context) == (head, True)
    git(context, "add", "harness")
    assert commit(context) == (head, True)


def test_commit_by_build_argument_and_without_git(context: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert commit(context, "1234abc") == ("1234abc", False)
    assert commit(context, "1234abc-dirty") == ("1234abc", True)
    assert commit(tmp_path_factory.mktemp("archive")) == ("unknown", True)


# --- the bill of materials ---------------------------------------------------------------------------------------------


def test_python_components_are_what_is_installed() -> None:
    components = {each["name"]: each for each in image_record().python_components()}

    for name in ("numpy", "pydantic", "typer"):
        assert components[name]["purl"].startswith(f"pkg:pypi/{name}@")
        assert re.fullmatch(r"[0-9a-f]{64}", components[name]["properties"][0]["value"])
    assert list(components) == sorted(components)


def test_debian_components() -> None:
    listing = "zlib1g\t1:1.2.13.dfsg-1\tamd64\nlibstdc++6\t12.2.0-14+deb12u1\tamd64\n"
    purls = [each["purl"] for each in image_record().debian_components(listing)]

    assert purls == [
        "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12",
        "pkg:deb/debian/zlib1g@1%3A1.2.13.dfsg-1?arch=amd64&distro=debian-12",
    ]


def test_bill_of_materials_is_the_same_for_the_same_things() -> None:
    record = image_record()
    parts = record.debian_components("sed\t4.9-1\tamd64\n")
    first, second = record.sbom("harness", "abc", parts), record.sbom("harness", "abc", parts)

    assert first == second
    assert (first["bomFormat"], first["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", first["serialNumber"])
    assert record.sbom("harness", "abd", parts)["serialNumber"] != first["serialNumber"]
