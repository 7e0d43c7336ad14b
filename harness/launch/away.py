"""An engine or a controller that is asked something and does not answer for a while: it is asked again, and that is said."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from harness.contract import NotSuitable

Answer = TypeVar("Answer")


class Away(NotSuitable):
    """Nothing answers there, or not yet again: it is being restarted, or its machine is."""


def cleared(action: Callable[[], object], say: Callable[[str], None], what: str) -> bool:
    """Whether `action`, which clears up behind what is raised or has ended, did so; else it is said that `what` may be left.

    It raises nothing of its own: in place of an interruption that would be a refusal, or an engine to wait for, and the
    signals after the first are ignored.
    """
    try:
        action()
    except NotSuitable as error:
        say(f"{what} may be left until the series ends, or the next begins: {error}")
        return False
    return True


def patiently(
    action: Callable[[], Answer],
    say: Callable[[str], None],
    patience_s: float,
    again_s: float,
    away: Callable[[Away], None] = lambda _: None,
) -> Answer:
    """What `action` returns, if need be once it is answered again. Away when that is not within `patience_s` of the first try's
    end, which itself may have waited as long for an answer.

    `away` is called before each further try, `again_s` before it.
    """
    failed_s: float | None = None  # when the first try had
    while True:
        try:
            found = action()
        except Away as error:
            if failed_s is None:
                failed_s = time.monotonic()
                say(f"waiting, {patience_s:g} s at most: {error}")
            elif time.monotonic() - failed_s > patience_s:
                raise
            away(error)
            time.sleep(again_s)
        else:
            if failed_s is not None:
                say(f"there is an answer again, after {time.monotonic() - failed_s:.0f} s")
            return found
