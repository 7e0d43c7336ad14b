"""JSON as logs hold it: what is no number stays text, and what says one thing twice, or is nested too deep, is refused.

This decodes alone; which lines hold JSON, and what it must say, is lines.py's matter.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

DEPTH_LIMIT = 32  # of nested JSON; the deepest known (a configuration) has 5
SHOWN = 80  # characters of what a message is about
OF_TWO = 100  # of each of two that are set against each other


def _finite(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


class _Ambiguous(ValueError):
    """A JSON object that says one key twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Ambiguous(f"{shortened(twice)} is there twice in one object")
    return content


# NaN, Infinity and 1e999, which are no JSON numbers, stay text: what reads a number then finds none.
_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=str)
_STRICT = json.JSONDecoder(parse_float=_finite, parse_constant=str, object_pairs_hook=_once)  # twice as slow


def decode(text: str, *, strict: bool = False) -> Any:
    """The value that the whole text is; `strict` refuses an object that says a key twice. ValueError, RecursionError."""
    content = (_STRICT if strict else _DECODER).decode(text)
    _check_depth(text)
    return _clean(content, text)


def decode_at(text: str, begin: int) -> tuple[Any, int]:
    """The value that begins there, read strictly, and where it ends. ValueError, RecursionError."""
    content, end = _STRICT.raw_decode(text, begin)
    _check_depth(text[begin:end])
    return _clean(content, text[begin:end]), end


def _check_depth(text: str) -> None:
    """ValueError for JSON nested deeper than DEPTH_LIMIT: what is read is walked again by code that recurses."""
    if text.count("{") + text.count("[") <= DEPTH_LIMIT:
        return
    depth = 0
    for each in re.findall(r'"(?:[^"\\]|\\.)*"|([][{}])', text, re.DOTALL):
        depth += (each in ("{", "[")) - (each in ("}", "]"))
        if depth > DEPTH_LIMIT:
            raise ValueError(f"nested deeper than {DEPTH_LIMIT}")


def _clean(content: Any, text: str) -> Any:
    """JSON's escapes can spell half a character, which no file or terminal takes."""
    if "\\ud" not in text and "\\uD" not in text:
        return content
    if isinstance(content, str):
        return content.encode("utf-8", "replace").decode()
    if isinstance(content, list):
        return [_clean(each, text) for each in content]
    if isinstance(content, dict):
        return {_clean(key, text): _clean(each, text) for key, each in content.items()}
    return content


def reason(error: Exception) -> str:
    """Why it could not be decoded."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg})"
    return f"ambiguous ({error})" if isinstance(error, _Ambiguous) else "not JSON (a number or nesting too large)"


def shortened(text: str, limit: int = SHOWN) -> str:
    """For a message, to so many characters."""
    text = text[: limit + 1].encode("utf-8", "replace").decode()
    return text if len(text) <= limit else text[: limit - 3] + "..."
