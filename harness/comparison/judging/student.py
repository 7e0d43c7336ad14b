"""Student's t by scipy, which is imported when it is first asked: a verb's help need not wait for it."""

from __future__ import annotations


def quantile(df: float, p: float) -> float:
    from scipy import special

    return float(special.stdtrit(df, p))


def upper(df: float, t: float) -> float:
    """The share above `t`."""
    from scipy import special

    return float(special.stdtr(df, -t))
