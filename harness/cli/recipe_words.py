"""Command lines of published recipes as they stand there, in the words of this one.

One table. What a recipe calls a configuration, the configuration's own file says (`also_called`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

# DeepSpark's recipes of Iluvatar: --name MAKER --config CONFIGURATION --data_dir DIR --backbone_path FILE
WORDS = {"--data_dir": "--data-dir", "--backbone_path": "--backbone-path"}
MAKER, CONFIGURATION = "--name", "--config"
VERBS = ("run", "prepare")


def translated(arguments: Sequence[str]) -> list[str]:
    """The arguments of a verb, with a recipe's words replaced; others stay as they are.

    --name MAKER --config NAME is the configuration MAKER/NAME, and means nothing to `prepare`, which is told.
    """
    if not arguments or arguments[0] not in VERBS:
        return list(arguments)
    verb, *rest = _parted(arguments)
    found: dict[str, str] = {}
    left: list[str] = []
    while rest:
        word = rest.pop(0)
        if word in (MAKER, CONFIGURATION) and rest:
            found[word] = rest.pop(0)
        else:
            left.append(WORDS.get(word, word))
    if verb == "prepare":
        if found:
            sys.stderr.write(f"note: nothing hangs on {' and '.join(found)} here: the data set is the same for all\n")
        return [verb, *left]
    if (
        CONFIGURATION not in found
    ):  # a maker alone chooses nothing: the command line will say that it does not know --name
        return [verb, *(word for pair in found.items() for word in pair), *left]
    return [verb, "/".join(found[each] for each in (MAKER, CONFIGURATION) if each in found), *left]


def _parted(arguments: Sequence[str]) -> list[str]:
    """`--name=x` as two words, where it is one of a recipe's."""
    parted: list[str] = []
    for each in arguments:
        word, sign, value = each.partition("=")
        parted += [word, value] if sign and word in (MAKER, CONFIGURATION, *WORDS) else [each]
    return parted
