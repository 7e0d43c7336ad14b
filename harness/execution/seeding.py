"""Where a run's randomness comes from: one 32-bit seed from the operating system, shared by all ranks and logged."""

from __future__ import annotations

import random
from secrets import randbits

from harness.contract import Context

SEED_BITS = 32
FIXED = 1  # of a deterministic run whose user named none


def draw() -> int:
    """A new seed for a run whose user named none."""
    return randbits(SEED_BITS)


def seed_libraries(context: Context) -> None:
    """Seed Python, numpy and torch with this rank's seed; a benchmark seeds its own sources from the Context."""
    import numpy as np
    import torch

    random.seed(context.rank_seed)
    np.random.seed(context.rank_seed)
    torch.manual_seed(context.rank_seed)
    if context.deterministic:
        # an operator that has no deterministic form says so once and goes on: compare then shows A unlike A
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
