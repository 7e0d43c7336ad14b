"""Data sets that are published as archives: what of them is to be downloaded and unpacked, and that done.

What COCO and Pascal VOC have in common; what a whole folder is, each says itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.detection.download import tar_archive
from benchmarks.detection.download.fetching import (
    Progress,
    RemoteFile,
    Say,
    downloaded_bytes,
    fetch,
    gigabytes,
    set_aside,
    sha256,
    unpack,
    unpacked_bytes,
)
from benchmarks.detection.download.prepare import Needs, Problem


class Archived:
    """Of benchmarks.detection.download.prepare.DataSet what is alike for all of them. Every problem's remedy is a file."""

    backbone: RemoteFile

    @property
    def weights(self) -> str:
        return self.backbone.name

    def needs(self, data_dir: Path, problems: Sequence[Problem]) -> Needs | None:
        remedies = _remedies(problems)
        if not remedies:
            return None
        download = sum(remote.size - downloaded_bytes(remote, data_dir) for remote in remedies)
        unpacked = sum(remote.unpacked_size - unpacked_bytes(remote, data_dir) for remote in remedies)
        names = ", ".join(remote.name for remote in remedies)
        return Needs(
            f"{gigabytes(download)} to download, {gigabytes(unpacked)} to unpack",
            download + unpacked,
            f"Download {gigabytes(download)} to {data_dir} ({names})?" if download else "",
        )

    def get(self, data_dir: Path, problems: Sequence[Problem], say: Say, progress: Progress) -> list[str]:
        for remote in _remedies(problems):
            archive = fetch(remote, data_dir, say, progress)
            # a damaged image may have the right size, at which unpacking would pass it by
            for damaged in (path for problem in problems if problem.remedy == remote for path in problem.damaged):
                damaged.unlink()
            for own in (path for problem in problems if problem.remedy == remote for path in problem.aside):
                say(f"{own}: kept as {set_aside(own).name}")
            if remote.members:
                with_form = tar_archive.unpack if archive.suffix == ".tar" else unpack
                written = with_form(archive, data_dir, remote.members, say, progress)
                say(f"{remote.name}: {written:,} files unpacked")
        return []

    def make(self, data_dir: Path, progress: Progress) -> None:
        """All of it is published."""

    def check_weights(self, data_dir: Path, progress: Progress) -> list[Problem]:
        """Whether the backbone's weights are there and whole."""
        path, remote = data_dir / self.backbone.name, self.backbone
        if not path.is_file():
            return [Problem(f"{path}: no such file", remote)]
        size = path.stat().st_size
        if size != remote.size:
            return [Problem(f"{path}: {size:,} bytes, expected {remote.size:,}", remote)]
        if sha256(path, progress) != remote.sha256:
            return [Problem(f"{path}: damaged: its SHA-256 is not {remote.sha256}", remote)]
        return []


def _remedies(problems: Sequence[Problem]) -> list[RemoteFile]:
    """What is small first."""
    return sorted({each.remedy for each in problems if each.remedy}, key=lambda remote: remote.size)
