"""Student's t by scipy, which is imported when it is first asked: a verb's help need not wait for it."""

from __future__ import annotations

GRID = 100  # points of an integral over chi-squared


def quantile(df: float, p: float) -> float:
    from scipy import special

    return float(special.stdtrit(df, p))


def upper(df: float, t: float) -> float:
    """The share above `t`."""
    from scipy import special

    return float(special.stdtr(df, -t))


def detected(df: float, p: float, power: float) -> float:
    """The true difference, in standard errors, that lies above the quantile `p` in this share of cases: by noncentral t."""
    from scipy import special

    return float(special.nctdtrinc(df, 1 - power, quantile(df, p)))


def power(df: float, size: float, bound: float, beyond: float, no_change: float) -> float:
    """How often a true difference is found beyond `bound`, or within it where it is smaller; both in standard errors, above 0.

    Beyond: one-sided t past the bound at level `beyond`, and past 0 at `no_change`, both in one comparison. Within: both
    one-sided tests at `beyond`. By the mean over the standard error that a comparison sees, a chi-squared of `df`.
    """
    import numpy as np
    from scipy import special

    seen = np.sqrt(2 / df * special.gammaincinv(df / 2, (np.arange(GRID) + 0.5) / GRID))
    if size > bound:
        needed = np.maximum(bound + quantile(df, 1 - beyond) * seen, quantile(df, 1 - no_change) * seen)
        return float(special.ndtr(size - needed).mean())
    half = np.maximum(bound - quantile(df, 1 - beyond) * seen, 0.0)
    return float((special.ndtr(half - size) - special.ndtr(-half - size)).mean())
