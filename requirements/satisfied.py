"""Exit 0 when this Python has every package of the given lock files in its locked version, else 1. Standard library only."""

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def differences(lock: Path) -> list[str]:
    """The requirements of a lock file that are not met."""
    found = []
    for line in lock.read_text(encoding="utf-8").splitlines():
        match = re.match(r'([A-Za-z0-9_.-]+)==(\S+)(?: ; python_version == "([\d.]+)")?', line)
        if match and match[3] not in (None, f"{sys.version_info[0]}.{sys.version_info[1]}"):
            continue
        try:
            if match and version(match[1]) != match[2]:
                found.append(f"{match[1]}=={match[2]}, here {version(match[1])}")
        except PackageNotFoundError:
            found.append(f"{match[1]}=={match[2]}, here none")  # type: ignore[index]
    return found


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - any Python on PATH may be asked
        sys.exit(1)
    missing = [text for name in sys.argv[1:] for text in differences(Path(name))]
    if missing:
        sys.stdout.write(f"{len(missing)} packages differ, the first being {missing[0]}\n")
    sys.exit(1 if missing else 0)
