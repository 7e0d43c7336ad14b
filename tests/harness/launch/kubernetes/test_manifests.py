"""What a trial asks of a cluster: by the published schemas, without privileges, whatever the maker of the accelerators."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from harness import config
from harness.launch.kubernetes import checks, manifests
from harness.launch.kubernetes.manifests import Claim, Site, Trial
from harness.launch.trial import Order
from harness.request import Engine, Request
from tests.conftest import CHECKOUT
from tests.harness.execution import runs
from tests.toy import configuration as toy

VERSIONS = ("1.25", "1.30", "1.34", "1.37")


def trial(
    folder: Path, *, nodes: int = 1, device: str = "cuda", platform: str = "8x NVIDIA A100", **asked: Any
) -> Trial:
    raw = toy.raw(ranks=8, nodes=nodes, device=device)
    raw["submission"]["platform"] = platform
    path = toy.write(folder, raw)
    options = {"image": "registry.example/ssd:1", **asked}
    request = Request(configuration=str(path), engine=Engine.KUBERNETES, **options)
    chosen = config.load(path)
    site = Site.read(chosen, request)
    return manifests.of_trial(chosen, request, site, Order(3, folder / "out", None, False), "0123456789ab", "here")


def container(made: Trial) -> dict[str, Any]:
    (only,) = made.job["spec"]["template"]["spec"]["containers"]
    return dict(only)


EVERYTHING = {
    "data_claim": "coco/coco2017",
    "results_claim": "results",
    "shm_size": "16g",
    "initial_weights": Path("/data/resnet34.pth"),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("nodes", [1, 64])
def test_the_published_schemas_take_them(tmp_path: Path, version: str, nodes: int) -> None:
    made = trial(tmp_path, nodes=nodes, **EVERYTHING)
    printed = list(yaml.safe_load_all(made.yaml()))
    assert [each["kind"] for each in printed] == [*(["Service"] if nodes > 1 else []), "ConfigMap", "Job"]
    for each in printed:
        kubernetes_validate.validate(each, version, strict=True)
    printed[-1]["spec"]["completion"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):  # the schemas say no to a slip of the pen
        kubernetes_validate.validate(printed[-1], version, strict=True)


def test_no_privileges(tmp_path: Path) -> None:
    """As the Pod Security Standard "restricted" asks, and beyond."""
    made = trial(tmp_path, **EVERYTHING)
    pod = made.job["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] != 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(made)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds == {"configMap", "emptyDir", "persistentVolumeClaim"}, "no path of the nodes"


def test_one_failure_ends_all_and_nothing_stays(tmp_path: Path) -> None:
    spec = trial(tmp_path, nodes=2).job["spec"]
    assert (spec["backoffLimit"], spec["template"]["spec"]["restartPolicy"]) == (0, "Never")
    assert spec["ttlSecondsAfterFinished"] == manifests.KEPT_S


def test_data_is_read_only_and_shared_memory_is_memory(tmp_path: Path) -> None:
    made = trial(tmp_path, **EVERYTHING)
    volumes = {each["name"]: each for each in made.job["spec"]["template"]["spec"]["volumes"]}
    mounts = {each["mountPath"]: each for each in container(made)["volumeMounts"]}
    assert volumes["data"]["persistentVolumeClaim"] == {"claimName": "coco", "readOnly": True}
    assert mounts["/data"] == {"name": "data", "mountPath": "/data", "readOnly": True, "subPath": "coco2017"}
    assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    words = container(made)["command"]
    assert words[words.index("--data-dir") + 1] == "/data", "what the claim holds is the data set, unless said"
    assert words[words.index("--initial-weights") + 1] == "/data/resnet34.pth"


@pytest.mark.parametrize(
    ("device", "platform", "resource"),
    [
        ("cuda", "8x NVIDIA A100-SXM4-40GB", "nvidia.com/gpu"),
        ("cuda", "8x accelerators of nobody", "nvidia.com/gpu"),
        ("cuda", "8x AMD Instinct MI300X", "amd.com/gpu"),
        ("cuda", "8x Iluvatar BI-V100", "iluvatar.com/gpu"),
        ("xpu", "4x Intel Data Center GPU Max 1550", "gpu.intel.com/xe"),
        ("musa", "8x Moore Threads S4000", "mthreads.com/gpu"),
        ("hpu", "8x Intel Gaudi 2", "habana.ai/gaudi"),
        ("npu", "8x Ascend 910B", "huawei.com/Ascend910"),
        ("accelerator", "8x NVIDIA H100-SXM5-80GB", "nvidia.com/gpu"),
        ("accelerator", "8xNVIDIA A100, 128 threads", "nvidia.com/gpu"),
        ("cuda", "Supermicro 8xH100 AMD EPYC", "nvidia.com/gpu"),
        ("cuda", "DGX A100 (2x AMD EPYC 7742)", "nvidia.com/gpu"),
        ("cuda", "8x MI300X AMD Instinct, AMD EPYC", "amd.com/gpu"),
        ("cuda", "8x MI300X, 2x AMD EPYC 9654", "amd.com/gpu"),
        ("cuda", "8x Instinct MI250 (AMD EPYC)", "amd.com/gpu"),
        ("accelerator", "8x MI300X, 2x AMD EPYC 9654", "amd.com/gpu"),
        ("cuda", "AMD Threadripper PRO 7995WX, 4x H100", "nvidia.com/gpu"),
        ("cuda", "8x IluvatarCoreX BI-V150", "iluvatar.com/gpu"),
        ("accelerator", "MooreThreads S4000", "mthreads.com/gpu"),
        ("accelerator", "8x NVIDIA L40S, 2x Intel(R) Xeon(R)", "nvidia.com/gpu"),
        ("accelerator", "8x AMD MI300X, 2x Intel Xeon", "amd.com/gpu"),
        ("accelerator", "4x Intel Max 1550", "gpu.intel.com/xe"),
        ("accelerator", "Intel Habana Gaudi3", "habana.ai/gaudi"),
        ("accelerator", "8x Intel Gaudi 2", "habana.ai/gaudi"),
        ("accelerator", "8x Ascend 910B", "huawei.com/Ascend910"),
    ],
)
def test_accelerators_are_their_maker_s_resource(tmp_path: Path, device: str, platform: str, resource: str) -> None:
    """And not that of the processors' maker, nor of another of its accelerators: such a Job waits for ever."""
    made = trial(tmp_path, device=device, platform=platform)
    assert container(made)["resources"] == {"limits": {resource: "8"}}
    mine = trial(tmp_path, device=device, platform=platform, accelerator_resource="example.com/one")
    assert container(mine)["resources"] == {"limits": {"example.com/one": "8"}}


def test_an_image_by_its_digest_is_named_in_the_log(tmp_path: Path) -> None:
    by_tag = {each["name"] for each in container(trial(tmp_path))["env"]}
    assert "HARNESS_IMAGE_ID" not in by_tag, "which image that is, nobody knows yet"
    digest = "registry.example/ssd@sha256:" + "5d" * 32
    variables = {each["name"]: each["value"] for each in container(trial(tmp_path, image=digest))["env"]}
    assert variables["HARNESS_IMAGE_ID"] == digest


def test_a_processor_asks_for_none(tmp_path: Path) -> None:
    assert container(trial(tmp_path, device="cpu"))["resources"] == {}


def test_several_nodes_meet_at_the_first_and_are_told_one_seed(tmp_path: Path) -> None:
    made = trial(tmp_path, nodes=4)
    assert made.service is not None
    assert made.service["spec"]["clusterIP"] == "None"
    pod = made.job["spec"]["template"]["spec"]
    assert pod["subdomain"] == made.service["metadata"]["name"] == made.name
    assert (made.job["spec"]["completions"], made.job["spec"]["parallelism"]) == (4, 4)
    variables = {each["name"]: each for each in container(made)["env"]}
    assert variables["MASTER_ADDR"]["value"] == f"{made.name}-0.{made.name}"
    assert "job-completion-index" in variables["NODE_RANK"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert "--seed" in container(made)["command"]
    assert len(f"{made.name}-63") <= 63, "the host's name of the last pod of 64"
    alone = trial(tmp_path)
    assert alone.service is None
    assert "--seed" not in container(alone)["command"]


@pytest.mark.parametrize(("asked", "seconds"), [({}, "900"), ({"rendezvous_timeout": 7200}, "7200")])
def test_a_pod_waits_for_node_0_as_long_as_its_ranks_do(tmp_path: Path, asked: dict[str, Any], seconds: str) -> None:
    """It gave up after ten minutes, whatever was said, where a second GPU node was still to come."""
    made = trial(tmp_path, nodes=2, **asked)
    words = container(made)["command"]
    assert words[words.index("--wait-for") + 1 :][:2] == [f"{made.name}-0.{made.name}", seconds]
    assert words[words.index("--rendezvous-timeout") + 1] == seconds


def test_a_pod_template_adds_and_takes_nothing_away(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(
        """
metadata: {labels: {kueue.x-k8s.io/queue-name: gpus}}
spec:
  nodeSelector: {nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}
  tolerations: [{key: nvidia.com/gpu, operator: Exists}]
  containers:
  - name: trial
    resources: {limits: {rdma/ib: "8"}}
    env: [{name: NCCL_DEBUG, value: INFO}]
"""
    )
    made = trial(tmp_path, pod_template=path)
    kubernetes_validate.validate(made.job, "1.34", strict=True)
    template = made.job["spec"]["template"]
    assert made.job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert template["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert container(made)["resources"] == {"limits": {"nvidia.com/gpu": "8", "rdma/ib": "8"}}
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in container(made)["env"]

    path.write_text("spec: {securityContext: {runAsNonRoot: false}}")
    with pytest.raises(ValueError, match=r"spec\.securityContext\.runAsNonRoot: False would take the place of True"):
        trial(tmp_path, pod_template=path)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"data_claim": "/data"}, "--data-claim /data: the name of a PersistentVolumeClaim"),
        ({"data_claim": "coco/../.."}, "--data-claim coco/../..: the name"),
        ({"results_claim": "Results"}, "--results-claim Results"),
        ({"shm_size": "much"}, "--shm-size much: a number"),
        ({"accelerator_resource": "gpu"}, "--accelerator-resource gpu: MAKER/KIND"),
        ({"device": "cpu", "accelerator_resource": "nvidia.com/gpu"}, 'the configuration says run.device = "cpu"'),
        ({"device": "accelerator", "platform": "8x of nobody"}, "name it by --accelerator-resource"),
        ({"device": "accelerator", "platform": "8x GPU, Intel Xeon, 64 threads"}, "name it by --accelerator-resource"),
        ({"pod_template": Path("nowhere.yaml")}, "--pod-template nowhere.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refused:
        trial(tmp_path, **asked)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metadata: {annotations: {until: 2026-12-31}}", "metadata.annotations.until: YAML reads 2026-12-31 there"),
        ("metadata: {labels: {a: x, b: true}}", "metadata.labels.b: YAML reads true there, and no text: put quotes"),
        ("spec: {nodeSelector: {rack: 12}}", r"spec.nodeSelector.rack: YAML reads 12 there"),
        (
            "spec: {containers: [{name: trial, env: [{name: A, value: 1}]}]}",
            r"spec.containers\[0\].env\[0\].value: YAML reads 1 there",
        ),
        (
            "spec: {containers: [{name: trial, resources: {limits: {cpu: 4}}}]}",
            r"spec.containers\[0\].resources.limits.cpu: YAML reads 4 there",
        ),
        ("spec: {nodeSelector: {on: x}}", "spec.nodeSelector, a name: YAML reads true there"),
        ("spec: {x: 2026-12-31}", "spec.x: YAML reads 2026-12-31 there"),
        ("spec: {a: &a [*a]}", "an alias in it is part of what it stands for$"),
    ],
)
def test_what_yaml_makes_of_text_that_nobody_quoted_is_said_with_its_place(
    tmp_path: Path, text: str, said: str
) -> None:
    """It was the client's own dump, which names its function and not the file."""
    path = tmp_path / "pod.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^--pod-template {path}: {said}"):
        trial(tmp_path, pod_template=path)
    path.write_text("spec: {priority: 7, hostIPC: true, nodeSelector: {rack: '12'}}")
    assert trial(tmp_path, pod_template=path).job["spec"]["template"]["spec"]["priority"] == 7


def test_a_dry_run_s_text_is_text_to_any_reader_and_where_it_was_asked_for(tmp_path: Path) -> None:
    """kubectl reads y, n and 12345e7 otherwise than the YAML of Python does; and of --namespace nothing was printed."""
    path = tmp_path / "pod.yaml"
    path.write_text("metadata: {labels: {commit: '12345e7', y: 'n', 'on': 'off', '7e1': 'Y'}}")
    made = trial(tmp_path, nodes=2, pod_template=path, namespace="lab")
    said = made.yaml()
    for line in (
        'commit: "12345e7"',
        '"y": "n"',
        "'on': \"off\"",
        '"7e1": "Y"',
        'kind: "Job"',
        'image: "registry.example/ssd:1"',
    ):
        assert f" {line}\n" in said or f"\n{line}\n" in said, (line, said)
    printed = list(yaml.safe_load_all(said))
    assert printed == [made.service, made.config_map, made.job]
    assert [each["metadata"]["namespace"] for each in printed] == ["lab"] * 3
    assert "namespace" not in trial(tmp_path).yaml()


def test_sizes_as_docker_writes_them() -> None:
    assert [manifests.quantity(each) for each in ("8g", "512m", "8GiB", "1024", "64k")] == [
        "8Gi",
        "512Mi",
        "8Gi",
        "1024",
        "64Ki",
    ]


def test_a_dry_run_asks_no_cluster_and_writes_nothing(tmp_path: Path) -> None:
    path = toy.write(tmp_path, toy.raw(ranks=2, nodes=2))
    words = (path, "--engine", "kubernetes", "--image", "ssd:1", "--out", tmp_path / "out", "--data-dir", "/data/toys")
    done = runs.run(*words, "--dry-run", KUBECONFIG="/nowhere")
    assert done.returncode == 0, done.stderr
    for each in yaml.safe_load_all(done.stdout):
        kubernetes_validate.validate(each, "1.34", strict=True)
    assert not (tmp_path / "out").exists()
    wrong = runs.run(path, "--engine", "kubernetes", "--image", "ssd:1", "--data-dir", "toys", "--dry-run")
    assert wrong.returncode == 2
    assert "a path as the pods see it" in wrong.stderr


def test_claims_are_read_as_written() -> None:
    assert Claim.read("coco/a/b", "--data-claim") == Claim("coco", "a/b")
    assert dataclasses.astuple(Claim.read("coco", "--data-claim")) == ("coco", "")


def test_the_role_in_the_documents_is_what_trials_are_checked_for() -> None:
    """What was not asked for before the first trial was refused in the middle of one."""
    text = (CHECKOUT / "docs/engines.md").read_text()
    (role,) = [each for each in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "kind: Role" in each]
    granted = {
        (verb, group, *resource.partition("/")[::2])
        for rule in yaml.safe_load(role)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == {*checks.NEEDED, *checks.OF_SEVERAL_NODES}
