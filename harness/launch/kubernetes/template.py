"""What a site adds to each pod by --pod-template: a file of YAML, read and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic

OF_TEXT = ("labels", "annotations", "nodeSelector", "matchLabels", "limits", "requests")  # tables of text alone
ENTRY_OF_ENV = re.compile(r"\.env\[\d+\]$")


def read(path: Path | None) -> Mapping[str, Any]:
    """ValueError, with the place in it, for what a cluster would not take for one."""
    if path is None:
        return {}
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"--pod-template {path}: cannot be read: {error}") from error
    if not isinstance(found, dict) or not found.keys() <= {"metadata", "spec"}:
        raise ValueError(
            f"--pod-template {path}: a PodTemplateSpec is needed: `metadata:` and `spec:`, such as spec.nodeSelector"
        )
    try:
        wrong = next(_no_text(found), None)
    except RecursionError as error:
        raise ValueError(f"--pod-template {path}: an alias in it is part of what it stands for") from error
    if wrong is not None:
        place, value = wrong
        shown = json.dumps(value, default=str).strip('"')  # which may be another than was written: 1:30 is 90
        raise ValueError(f"--pod-template {path}: {place}: YAML reads {shown} there, and no text: put quotes around it")
    return found


def of_another_type(error: pydantic.ValidationError) -> ValueError:
    """What the client says of a Job in which a field has another type than it takes: all that is not the template's is ours."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"][1:])).removeprefix("spec.template.")
    return ValueError(
        f"--pod-template: {place}: {first['msg'].lower()}, and is {first['input']!r}; `kubectl explain "
        f"pod.{re.sub(r'[.][0-9]+', '', place)}` says what it takes"
    )


def _no_text(found: Any, place: str = "", *, of_text: bool = False) -> Iterator[tuple[str, Any]]:
    """Places and values that are no text where a cluster wants one, or are nothing that JSON has: a date for example."""
    if isinstance(found, dict):
        for key, value in found.items():
            below = f"{place}.{key}" if place else str(key)
            if not isinstance(key, str):
                yield f"{place}, a name", key
            in_table = key in OF_TEXT if isinstance(value, dict) else of_text
            is_value = key == "value" and ENTRY_OF_ENV.search(place) is not None
            yield from _no_text(value, below, of_text=in_table or is_value)
    elif isinstance(found, list):
        for number, each in enumerate(found):
            yield from _no_text(each, f"{place}[{number}]")
    elif not isinstance(found, str) and (of_text or not isinstance(found, int | float | None)):
        yield place, found
