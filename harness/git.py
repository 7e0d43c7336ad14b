"""Git, asked about a checkout of this project alone: its own repository, whatever repository the caller stands in.

Within a hook, `git rebase --exec` or another tool of git's, variables name that one's repository, index and files. A folder
without a repository of its own that lies within another's work tree has no commit, and not that one's.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from harness.contract import NotSuitable

LIMIT_S = 120  # a checkout on a network disk may take some; one that is gone takes for ever
# Where git itself and its user's settings lie, and how it fetches what a partial clone lacks; all others that begin with GIT_
# say what to ask about, and how
KEPT = (
    *("GIT_EXEC_PATH", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"),
    *("GIT_SSH", "GIT_ASKPASS", "GIT_PROXY", "GIT_SSL"),
)


def has_repository(root: Path) -> bool:
    """Whether `root` is a checkout: that of a clone, or as a work tree or submodule has it."""
    return (root / ".git").exists()


def ask(root: Path, *arguments: str, limit_s: float | None = LIMIT_S) -> subprocess.CompletedProcess[bytes]:
    """What git says of the checkout `root`, also where that is another user's. NotSuitable where git says nothing."""
    # With the folder named git neither looks for one further up nor asks whose it is: its code is what runs here anyway.
    # The lock that `status` takes to refresh the index would be a write into the checkout
    words = ["git", "--no-optional-locks", f"--git-dir={root / '.git'}", f"--work-tree={root}", "-C", str(root)]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name.startswith(KEPT)}
    ours["GIT_TERMINAL_PROMPT"] = "0"  # nobody would see what it asks
    try:
        return subprocess.run(
            [*words, *arguments], env=ours, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=limit_s
        )
    except subprocess.TimeoutExpired as error:
        raise NotSuitable(
            f"git did not answer within {limit_s:g} s about {root}: is its disk there, and idle?"
        ) from error
    except OSError as error:
        raise NotSuitable(
            f"git cannot be started ({error.strerror}), and is needed for the commits of {root}: install it"
        ) from error


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """Its complaint, for a message."""
    return done.stderr.decode(errors="replace").strip()
