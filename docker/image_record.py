"""While the image is built: writes what the image is made of. Standard library only; run with the image's Python.

    python image_record.py FOLDER COMMIT_JSON BASE_IMAGE LOCK

FOLDER/sbom.cdx.json is a software bill of materials (CycloneDX 1.6): every Debian package by dpkg, every Python
distribution by its metadata, each with the hash of what was installed. FOLDER/image.json is the image's identity, which
harness/system/image.py reads and every log carries; the SBOM's hash is in it because no ENV can hold a value that a build
computes. Both come out the same byte for byte when the same things are installed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

Component = dict[str, Any]


def sbom(name: str, version: str, components: list[Component]) -> dict[str, Any]:
    """The CycloneDX document; its serial number follows from its content."""
    content = json.dumps([name, version, components], sort_keys=True)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content)}",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": name, "name": name, "version": version}},
        "components": components,
    }


def python_components() -> list[Component]:
    """Every distribution that this Python can import, by name."""
    found = {}
    for each in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", each.name).lower()
        component = _library(name, each.version, f"pkg:pypi/{name}@{quote(each.version)}")
        expression = each.metadata.get("License-Expression")
        if expression:
            component["licenses"] = [{"expression": expression}]
        # RECORD lists a hash of every installed file
        record = each.read_text("RECORD") or ""
        component["properties"] = [{"name": "RECORD:sha256", "value": hashlib.sha256(record.encode()).hexdigest()}]
        found[name] = component
    return [found[name] for name in sorted(found)]


def debian_components(listing: str) -> list[Component]:
    """The packages of `dpkg-query -W -f '${Package}\\t${Version}\\t${Architecture}\\n'`."""
    components = []
    for line in sorted(listing.splitlines()):
        name, version, architecture = line.split("\t")
        purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}&distro=debian-12"
        components.append(_library(name, version, purl))
    return components


def _library(name: str, version: str, purl: str) -> Component:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def main(folder: Path, commit_json: Path, base_image: str, lock: Path) -> None:
    dpkg = ["dpkg-query", "--show", "--showformat", "${Package}\t${Version}\t${Architecture}\n"]
    # a maker's base image may be of another family
    listing = subprocess.run(dpkg, check=True, capture_output=True, text=True).stdout if shutil.which(dpkg[0]) else ""
    commit = json.loads(commit_json.read_text(encoding="utf-8"))
    document = sbom("harness", commit["commit"], python_components() + debian_components(listing))
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    (folder / "sbom.cdx.json").write_text(text, encoding="utf-8")
    identity = {
        **commit,
        "base_image": base_image,
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest(),
        "sbom_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    (folder / "image.json").write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
