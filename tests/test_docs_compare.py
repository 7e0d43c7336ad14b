"""docs/compare.md: its commands have the options they use, its pipelines are YAML, its figures are the code's."""

from __future__ import annotations

import re
import shlex

import yaml

from harness.cli import build
from harness.comparison import comparison
from harness.comparison.judging import statistics
from tests.conftest import CHECKOUT

TEXT = (CHECKOUT / "docs/compare.md").read_text()
SUBVERBS = ("plan", "run", "noise")


def commands() -> list[list[str]]:
    """Every command line of the harness, in prose blocks and in pipelines."""
    joined = re.sub(r"\n\s+(?=--|'--)", " ", TEXT.replace("\\\n", "\n"))
    return [shlex.split(line) for line in re.findall(r"python -m harness (.+)", joined)]


def help_of(*verb: str) -> str:
    from typer.testing import CliRunner

    return CliRunner().invoke(build(), [*verb, "--help"]).output


def test_every_option_exists() -> None:
    found = commands()
    assert len(found) >= 12
    for words in found:
        verb = words[:2] if words[0] == "compare" and words[1] in SUBVERBS else words[:1]
        text = help_of(*verb)
        for option in (word.split("=")[0] for word in words if word.startswith("--")):
            assert option in text, f"{option} of {' '.join(words)}"


def test_every_plan_is_one() -> None:
    from harness.comparison.planning import plan

    for words in commands():
        if words[:2] == ["compare", "plan"]:
            arms = [words[place + 1] for place, word in enumerate(words) if word == "--arm"]
            assert len(plan.make(words[2], arms).schedule(1)) > 10
            assert list((CHECKOUT / "configs").glob(f"*/{words[2]}.toml"))


def test_every_run_has_what_its_configuration_wants() -> None:
    """A plan was written, and its first run refused: --initial-weights was missing."""
    training = [words for words in commands() if words[0] == "run" or words[1:2] in (["plan"], ["noise"])]
    assert len(training) >= 5
    for words in training:
        assert {"--data-dir", "--initial-weights"} <= {*words}, " ".join(words)


def test_the_pipelines_are_yaml() -> None:
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)]
    assert (
        blocks[0]["jobs"]["compare"]["steps"]
        and blocks[1]["driver-gate"]["artifacts"]["reports"]["junit"] == "gate.xml"
    )
    assert blocks[1]["driver-gate"]["allow_failure"]["exit_codes"] == [comparison.EXIT["CANNOT TELL"]]


def test_the_table_of_words_is_the_codes() -> None:
    for word, code in comparison.EXIT.items():
        assert f"| {word} | {code} |" in TEXT
    assert (
        f"| not comparable | {comparison.NOT_COMPARABLE} |" in TEXT
        and f"| invalid | {comparison.INVALID_RUNS} |" in TEXT
    )
    assert f"fewer than {statistics.FEW} of them" in TEXT and f"{100 * comparison.DELTA:g} %" in TEXT
