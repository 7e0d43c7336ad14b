"""By what the tasks of a Slurm step run: plain processes of this checkout, pyxis or Apptainer."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import ROOT
from harness.contract import NotSuitable
from harness.launch.container_spec import Mount
from harness.system.accelerator import CPU

IN_IMAGE = Path("/opt/harness")  # see the Dockerfile
# What docker takes for a registry in front of an image: it has a dot or a port, or is localhost. A path begins with . or /
REGISTRY = re.compile(r"^((?:docker://)?(?!\.)(?:[^/#]*[.:][^/#]*|(?:[^/#]*@)?localhost))/(?!/)")


@dataclass(frozen=True)
class Runtime:
    """By what a task's command runs: `srun` options, words before the command, the Python there."""

    options: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    python: str = sys.executable
    home: Path = ROOT  # where it finds the harness

    @classmethod
    def chosen(cls, image: str | None, mounts: Sequence[Mount], device: str) -> Runtime:
        """Of an image, what this cluster has for it.

        NotSuitable where the cluster runs no containers of that kind, ValueError for a path that it cannot have in one.
        """
        if image is None:
            return cls(options=(f"--chdir={ROOT}",))
        for each in mounts:
            if {":", ","} & set(str(each.source)):
                raise ValueError(
                    f"{each.source} is to be seen in the container of --image {image}, and neither pyxis nor Apptainer takes "
                    "a path with a colon or a comma: give it another name"
                )
        if image.endswith(".sif"):
            binds = [f"--bind={m.source}:{m.target}{':ro' * m.read_only}" for m in mounts]
            gpus = () if device == CPU else ("--rocm",) if Path("/dev/kfd").exists() else ("--nv",)
            program = next((each for each in ("apptainer", "singularity") if shutil.which(each)), "apptainer")
            words = (program, "exec", f"--pwd={IN_IMAGE}", *gpus, *binds, image)
            return cls(before=words, python="python", home=IN_IMAGE)
        said = subprocess.run(("srun", "--help"), capture_output=True, text=True, check=False).stdout
        if "--container-image" not in said or "pyxis" not in said:
            raise NotSuitable(
                f"--image {image}: this cluster's srun has no --container-image (NVIDIA's pyxis). With Apptainer on the nodes: "
                f"`apptainer build ssd.sif docker-daemon://{image}` and --image ssd.sif; without --image the ranks are plain "
                "processes of this checkout"
            )
        listed = ",".join(f"{m.source}:{m.target}{':ro' * m.read_only}" for m in mounts)
        named = REGISTRY.sub(r"\1#", image)  # pyxis looks for docker's spelling at Docker Hub
        options = (
            *(f"--container-image={named}", f"--container-mounts={listed}"),
            *("--no-container-mount-home", f"--container-workdir={IN_IMAGE}"),
        )
        return cls(options=options, python="python", home=IN_IMAGE)
