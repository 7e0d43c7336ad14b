"""torch.compile, for every benchmark here: what it finds in its cache was compiled of these sources.

Its key for a graph forwards and backwards has the names of operators and not how their gradients are found, which is compiled
too: an operator with another `register_autograd` had the gradients of an earlier checkout for as long as the cache was kept.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

# Whole: what gradients and shapes are found with lies in other files than the operators, too
ALL = Path(__file__).resolve().parents[1]


def compiled(what: Any, **options: Any) -> Any:
    """A function compiled, or a module in place, whose state keeps its names."""
    config: Any = getattr(torch.compiler, "config", None)
    if not hasattr(config, "cache_key_tag"):  # an older PyTorch's
        from torch._functorch import config as of_gradients

        of_gradients.enable_autograd_cache = False
    elif _sources() not in config.cache_key_tag:
        config.cache_key_tag += _sources()
    if isinstance(what, nn.Module):
        what.compile(**options)
        return what
    return torch.compile(what, **options)


@cache
def _sources() -> str:
    """Hexadecimal SHA-256 of the benchmarks' own modules."""
    found = hashlib.sha256()
    for path in sorted(ALL.rglob("[!.]*.py")):  # an editor's lock beside one is a link to nowhere
        found.update(path.read_bytes())
    return found.hexdigest()
