"""What names people, places or single parts of a machine, taken out of texts that leave the house.

GPU UUIDs, serial numbers, ids of boots, host and user names, paths outside the system's own folders, addresses, keys and
passwords. The same original has the same stand-in throughout, so that runs of one GPU are still seen to be of one GPU; salted
anew each time, since a short name is soon found by trying names. Logs are JSON, in which k\\u00f6ln-07 is köln-07: a word is
known in each of its spellings.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
import re
import secrets
from collections.abc import Iterable

from harness.names import UNNAMED

# What lies there is the system's and a driver's, and no person's
_SYSTEM = r"(?:usr|lib|lib32|lib64|bin|sbin|proc|sys|dev|etc|run|opt/nvidia|opt/rocm)(?:/|\b)"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_SECRET = r"(?:api[_-]?key|access[_-]?key|secret|token|passw(?:or)?d|passphrase|authorization|credential)[\w-]{0,40}"
_NAMED = r"(?:user|username|logname|host|hostname|nodename|serial|serial_number|board_serial|boot_id|(?:nccl_)?hostid)"
_ORG = r"(?:submission_org|submitter|org)"
_QUOTED = r"(?:[^\"\\]|\\.)"  # a character of a JSON text, whose quotes are escaped
_BETWEEN = r"[^{}\n]{0,200}?"  # two keys of a line
_HEX = "[0-9a-fA-F]{1,4}"

# Each with the kind of its stand-in, which takes the place of the group `word`
PATTERNS = tuple(
    (kind, re.compile(pattern, re.DOTALL))
    for kind, pattern in (
        ("key", r"(?P<word>-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z))"),
        ("key", r"(?P<word>\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}\b|(?:gh[pousr]_|hf_|glpat-|xox[abp]-|sk-)[\w-]{16,}))"),
        ("key", r"\bssh-(?:rsa|ed25519|dss) (?P<word>[A-Za-z0-9+/=]{20,})"),
        ("key", r"(?i)\b(?:bearer|basic) (?P<word>[\w.~+/-]{8,}=*)"),
        ("key", r"://(?P<word>[^\s/@\"']{1,200})@"),
        ("key", rf"(?i){_SECRET}[\"']?\s*[:=]\s*[\"']?(?P<word>(?:[^\s\"',;\\]|\\.)+)"),
        ("gpu", r"\b(?P<word>(?:GPU|MIG)-[0-9a-fA-F]{4,}(?:-[0-9a-fA-F]{2,})*)"),
        ("mail", r"\b(?P<word>[\w.+-]{1,64}@[\w-]{1,64}\.[\w.-]{1,200})\b"),
        ("path", rf"\"(?P<word>/(?!{_SYSTEM})[^\"]*)\""),  # a whole text, which may have blanks
        ("path", rf"(?<![\w./<\\])(?P<word>(?:/(?!{_SYSTEM})|~[\w-]*/|[A-Za-z]:\\)[\w.@~+-][^\s\"',;:)\]}}|]*)"),
        ("address", rf"(?<![\w.-])(?P<word>{_OCTET}(?:\.{_OCTET}){{3}})(?!\.?\d)(?!\w)"),
        ("address", rf"(?<![\w:.-])(?P<word>(?:{_HEX}:){{3,7}}{_HEX})(?![\w:])"),
        ("address", rf"(?<![\w:.-])(?P<word>(?:{_HEX}:)+(?::{_HEX})+|::(?:{_HEX}:)*{_HEX})(?![\w:])"),
        ("redacted", rf"(?i)\"{_NAMED}\"\s*:\s*\"(?P<word>{_QUOTED}+)\""),
        ("redacted", rf"(?i)\b{_NAMED}\"?\s*[:=]\s*(?P<word>(?:[^\s\"',;\[\]{{}}\\]|\\.)+)"),
        ("submitter", rf"\b{_ORG}\"?\s*:\s*\"(?P<word>{_QUOTED}+)\""),
        ("submitter", rf"\"key\"\s*:\s*\"submission_org\"{_BETWEEN}\"value\"\s*:\s*\"(?P<word>{_QUOTED}+)\""),
        ("submitter", rf"\"value\"\s*:\s*\"(?P<word>{_QUOTED}+)\"{_BETWEEN}\"key\"\s*:\s*\"submission_org\""),
    )
)
STAND_IN = re.compile(r"[a-z]+-[0-9a-f]{8}")
NAMED = re.compile(rf'(?i)"{_NAMED}"\s*:\s*"({_QUOTED}+)"', re.DOTALL)
KEPT = ("none", "null", "true", "false", UNNAMED)


class Redaction:
    """Replaces words for good; the same word by the same stand-in."""

    def __init__(self, words: Iterable[tuple[str, str]] = ()) -> None:
        """`words`: (kind, word) to be replaced wherever they stand as a whole word."""
        self._salt = secrets.token_bytes(16)
        self._words: dict[str, re.Pattern[str]] = {}
        self._kinds: dict[str, str] = {}
        self.learn(words)

    def learn(self, words: Iterable[tuple[str, str]]) -> None:
        """More of them."""
        for kind, word in words:
            if len(word) > 2 and not STAND_IN.fullmatch(word):
                self._kinds.setdefault(word, kind)
                self._words.setdefault(word, _anywhere(word))

    def learn_from(self, text: str) -> None:
        """What a log calls its host or its user stands elsewhere too, without being called so."""
        found = map(_decoded, dict.fromkeys(NAMED.findall(text)))
        self.learn(("redacted", word) for word in found if word not in ("none", "root"))

    def __call__(self, text: str) -> str:
        for word, pattern in self._words.items():
            if word in text or json.dumps(word)[1:-1] != word:  # by far the quicker question
                text = self._replaced(pattern, self._kinds[word], text)
        for kind, pattern in PATTERNS:
            text = self._replaced(pattern, kind, text)
        return text

    def _replaced(self, pattern: re.Pattern[str], kind: str, text: str) -> str:
        def instead(found: re.Match[str]) -> str:
            begin, end = found.span("word")
            word = text[begin:end]
            if STAND_IN.fullmatch(word) or word in KEPT:
                return found[0]
            return text[found.start() : begin] + self._stand_in(_decoded(word), kind) + text[end : found.end()]

        return pattern.sub(instead, text)

    def _stand_in(self, word: str, kind: str) -> str:
        return f"{kind}-{hashlib.sha256(self._salt + word.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _anywhere(word: str) -> re.Pattern[str]:
    """The word as a text has it and as JSON writes it, behind an escaped line break too, whose letter is none of a word."""
    spelled = "".join(
        re.escape(each)
        if (escaped := json.dumps(each)[1:-1]) == each
        else f"(?:{re.escape(each)}|(?i:{re.escape(escaped)}))"
        for each in word
    )
    return re.compile(rf"(?:(?<![\w-])|(?<=\\[bfnrt]))(?P<word>{spelled})(?![\w-])")


def _decoded(word: str) -> str:
    """As it is, of one that JSON has escaped."""
    try:
        return str(json.loads(f'"{word}"'))
    except ValueError:
        return word


def of_this_machine() -> list[tuple[str, str]]:
    """Its name, long and short, and the user's."""
    node = platform.node()
    return [("host", each) for each in dict.fromkeys((node, node.partition(".")[0]))] + [
        ("user", user) for user in (_user(),) if user not in ("root", "")
    ]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return str(os.getuid())
