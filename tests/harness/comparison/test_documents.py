"""What a comparison writes: JSON, JUnit, Markdown, the page and the bundle."""

from __future__ import annotations

import json
import re
import signal
import tarfile
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.comparison.reporting import bundle
from harness.comparison.reporting.redaction import STAND_IN, Redaction
from harness.execution.signals import Interrupted
from tests.harness.comparison import arms
from tests.harness.comparison.arms import NEW, judged, run
from tests.harness.comparison.test_comparability import logged
from tests.harness.comparison.test_words import PHASES


def test_json_junit_and_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = arms.in_turns(tmp_path, slower=1.013, b={"software": NEW})
    junit, markdown = tmp_path / "j.xml", tmp_path / "m.md"
    code = main(["compare", str(a), str(b), "--json", "--junit", str(junit), "--markdown", str(markdown)])
    content = json.loads(capsys.readouterr().out)

    assert code == 1 and content["exit_code"] == 1 and content["verdict"] == "SLOWER"
    (metric,) = [each for each in content["metrics"] if each["metric"] == "seconds_per_epoch"]
    assert metric["interval_percent"][0] < metric["slower_percent"] < metric["interval_percent"][1]
    assert len(metric["values"]) == 10 and metric["resamples"] == 10_000
    suite = ET.parse(junit).getroot()
    assert (suite.get("failures"), suite.get("errors")) == ("3", "0")
    assert "software.driver" in markdown.read_text()


@pytest.mark.parametrize(
    "name", ["plan.json", "ledger.jsonl", "noise.json", "host.json", "probe_0.json", "inference_3.json"]
)
def test_what_plans_and_verbs_leave_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A plan was gone, and could not be gone on with."""
    a, b = arms.in_turns(tmp_path, 2)
    (tmp_path / name).write_text("as it was")
    for option in ("--markdown", "--junit", "--html", "--bundle"):
        code, said = run(capsys, a, b, option, tmp_path / name)
        assert (code, (tmp_path / name).read_text()) == (2, "as it was") and f"{name}: so is called" in said


def test_a_log_that_is_compared_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By a name of its own it was not known again."""
    a, b = arms.in_turns(tmp_path, 2)
    log, other = a / "result_0.txt", tmp_path / "other"
    before = log.read_text()
    for way in (other.symlink_to, other.hardlink_to):
        way(log)
        code, said = run(capsys, a, b, "--markdown", other)
        assert code == 2 and "this is one of the files that are read" in said and other.read_text() == before
        other.unlink()
    code, said = run(capsys, a, b, "--markdown", a / "result_9.txt")
    assert code == 2 and "how a result is called" in said and not (a / "result_9.txt").exists()


def test_two_outputs_are_no_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The later one took the place of the first, without a word."""
    a, b = arms.in_turns(tmp_path, 2)
    code, said = run(capsys, a, b, "--html", tmp_path / "x", "--markdown", f"{tmp_path}/b/../x")
    assert code == 2 and "two options name this one file" in said and not (tmp_path / "x").exists()
    code, _ = run(capsys, a, b, "--junit", "/dev/null", "--markdown", "/dev/null")
    assert code == 3
    code, said = run(capsys, a, b, "--html", tmp_path / ("x" * 300))
    assert code == 2 and "cannot be written" in said


def test_a_phase_s_name_is_no_markdown(tmp_path: Path) -> None:
    """Whoever made the log chose it: with a border in it the table had one column more, and HTML was HTML."""
    from harness.comparison.reporting import documents

    phases = {"a|b <img src=x>": 2.0, "`c`": 3.0}
    text = documents.markdown(judged(arms.in_turns(tmp_path, 2, a={"phases": phases}, b={"phases": phases})))
    rows = [line for line in text.splitlines() if "img src" in line or "c\\`" in line]
    assert len(rows) == 2
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) == 6 and not re.search(r"(?<!\\)[<`]", row)


MARKS = (
    *("&lt;b&gt; &amp;amp; &#36; &copy", "~struck~ ~~twice~~", "$x^2$ and $$y$$", "*a* _b_ `c` **d**", "a|b \\| c"),
    *("[x](y) ![z](w) <i>", "# a", "- a", "+ b", "1. c", "22) d", "> e", "---", "===", "\\* \\& \\\\", "-5 %"),
)


def test_what_a_log_says_is_shown_as_it_says_it(tmp_path: Path) -> None:
    """&lt; was shown as <, and what stood between tildes was struck out: as it is rendered it must be what the log has."""
    from markdown_it import MarkdownIt

    from harness.comparison.reporting import documents

    found = judged(arms.in_turns(tmp_path, 2, b={"software": NEW}))
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for said in MARKS:
        own = replace(found, notes=(said,), question=replace(found.question, labels=(said, "B")))
        text = documents.markdown(own)
        shown = [token.children or [] for token in parser.parse(text) if token.type == "inline"]
        assert {each.type for line in shown for each in line} <= {"text", "strong_open", "strong_close"}, said
        told = ["".join(each.content for each in line) for line in shown]
        assert told.count(said) == 3, f"in two tables' headings and as a note: {said}"
        assert any(line.startswith(f"{said}: 2 runs of ") for line in told), said
        assert not re.search(r"(?<!\\)(\\\\)*\$", text), "to others than this parser it begins a formula"


def test_junit_of_what_cannot_be_told_is_no_pass(tmp_path: Path) -> None:
    from harness.comparison.reporting import documents

    for found in (judged(arms.in_turns(tmp_path, 1)), judged(arms.in_turns(tmp_path / "2", a={"gpu": {"ecc": False}}))):
        suite = ET.fromstring(documents.junit(found))
        assert int(suite.get("errors", "0")) >= 1


def test_outputs_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, *arms.in_turns(tmp_path, 2), "--junit", tmp_path / "no" / "j.xml")
    assert code == 2 and "cannot be written" in out


def test_the_page_shows_all_and_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = arms.made(system="<script>alert(1)</script>")
    a, b = arms.in_turns(
        tmp_path,
        slower=1.018,
        a={"phases": PHASES, "made": hostile},
        b={"phases": PHASES, "made": hostile, "software": NEW},
    )
    for log in a.glob("*.txt"):
        arms.telemetry(log)
    page = tmp_path / "page.html"
    code, _ = run(capsys, a, b, "--html", page)
    text = page.read_text()

    assert code == 1
    assert "<script" not in text and "http://" not in text and "https://" not in text
    for part in (
        "What differs in the environment",
        "How much slower B is",
        "Where the time went",
        "in the order of time",
    ):
        assert part in text
    assert text.index("software.driver") < text.index("How much slower"), "the environment's differences first"
    assert text.count('class="dot arm-0"') >= 5 and text.count('class="dot arm-1"') >= 5
    assert "nan" not in text.lower().split()


def test_runs_of_one_name_in_both_arms_keep_their_own_marks(tmp_path: Path) -> None:
    """A plan's folders are called alike in both arms."""
    from harness.comparison.reporting import plots

    a, b = arms.in_turns(tmp_path, 3, slower=1.05)
    for arm in (a, b):
        for number, log in enumerate(sorted(arm.glob("*.txt")), 1):
            place = tmp_path / "arms" / arm.name / f"host-1_block-0_run-{number}"
            place.mkdir(parents=True)
            log.rename(place / "result_0.txt")
    found = judged((tmp_path / "arms/a", tmp_path / "arms/b"))
    time = plots.over_time(found)
    assert time is not None
    heights = [[dot.y for dot in time.strips[0].dots if dot.arm == arm] for arm in (0, 1)]
    assert max(heights[1]) < min(heights[0]), "slower is higher: smaller y"
    assert len({run.name for run in found.runs}) == 6


@pytest.mark.parametrize("days, ticks", [(1, ["09-21 14:13", "09-22 14:13"]), (731, ["2026-09-21", "2028-09-21"])])
def test_runs_that_are_years_apart_have_years(tmp_path: Path, days: int, ticks: list[str]) -> None:
    from harness.comparison.reporting import plots

    for arm, turn in (("a", 0), ("b", days * 144)):
        arms.write(tmp_path / arm, 0, turn=turn)
    time = plots.over_time(judged((tmp_path / "a", tmp_path / "b")))
    assert time is not None and [tick.text for tick in time.ticks] == ticks


def test_every_output_has_the_time_to_train(tmp_path: Path) -> None:
    """Markdown had none."""
    from harness.comparison.reporting import documents, page, terminal

    found = judged(arms.in_turns(tmp_path, 3, slower=1.05))
    outputs = {
        "terminal": " ".join(" ".join(terminal.lines(found)).split()),
        "page": re.sub(r"<[^>]*>", "", page.render(found)),
        "markdown": documents.markdown(found),
    }
    for name, text in outputs.items():
        for label in "AB":
            told = (
                rf"[Tt]ime to train, never gated: {label} +6 epochs x \d.*? s \+ .* = 0\.7\d min; 3 of 3 met the target"
            )
            assert re.search(told, text), name
    assert [each["reached"] for each in documents.as_json(found)["time_to_train"]] == [3, 3]


@pytest.mark.parametrize("what", ["one run", "not comparable", "invalid"])
def test_the_page_of_what_has_no_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    a, b = arms.in_turns(
        tmp_path, 1 if what == "one run" else 2, b={"gpu": {"ecc": False}} if what == "not comparable" else {}
    )
    if what == "invalid":
        (a / "result_0.txt").write_text((a / "result_0.txt").read_text()[:3000])
    page = tmp_path / "page.html"
    code, _ = run(capsys, a, b, "--html", page, "--markdown", tmp_path / "m.md", "--bundle", tmp_path / "b.tar")
    assert code == {"one run": 3, "not comparable": 4, "invalid": 5}[what]
    assert "</html>" in page.read_text()


def test_a_bundle_that_was_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise Interrupted(signal.SIGTERM)

    a, b = arms.in_turns(tmp_path / "runs")
    (tmp_path / "to").mkdir()
    monkeypatch.setattr(bundle, "_add", interrupted)
    with pytest.raises(Interrupted):
        bundle.write(judged((a, b)), tmp_path / "to" / "bundle.tar")
    assert list((tmp_path / "to").iterdir()) == []


def test_what_markdown_escapes_is_redacted_in_a_bundle_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As lab\\_node\\_7 and jane\\_doe\\@corp.example they were neither a host's name nor an address."""

    def of(host: str, person: str) -> dict[str, Any]:
        return {"change": logged("environment", {"NCCL_HOSTID": host, "NCCL_CONTACT": person})}

    a, b = arms.in_turns(
        tmp_path, 3, a=of("lab_node_7", "jane_doe@corp.example"), b=of("lab_node_8", "j_d@corp.example")
    )
    target = tmp_path / "for_vendor.tar"
    run(capsys, a, b, "--allow-diff", "environment.*", "--bundle", target)
    texts = in_bundle(target)
    assert "NCCL\\_CONTACT" in texts["comparison/README.md"]
    for name, text in texts.items():
        assert not re.search("lab.{0,2}node|jane|corp.example", text), name


def test_bundle_is_redacted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uuid = "GPU-7c8e4c1e-0f0b-44c5-9c55-2b0f3d5e9c11"
    each = {"gpu": {"uuid": uuid, "serial": "1653922"}, "made": arms.made(org="Secret Corp")}
    a, b = arms.in_turns(tmp_path, a=each, b=each)
    arms.telemetry(a / "result_0.txt")
    target = tmp_path / "for_vendor.tar.gz"
    code, _ = run(capsys, a, b, "--bundle", target)

    assert code == 0
    texts = in_bundle(target)
    assert "comparison/README.md" in texts and "comparison/A/000_result_0.txt" in texts
    assert "comparison/A/000_result_0_telemetry.jsonl" in texts
    for name, text in texts.items():
        for secret in (uuid, "1653922", "Secret Corp", str(tmp_path)):
            assert secret not in text, name
    assert "580.65.06" in texts["comparison/environment.json"]


SPELLINGS = {
    "Universität Köln": r"Universit\\u00e4t|Universität|K\\u00f6ln|Köln",
    'AT&T "Labs"': r"AT&T|Labs",
    "HP": r'"HP"',
}


@pytest.mark.parametrize("org", SPELLINGS)
@pytest.mark.parametrize("escaped", [True, False])
def test_a_submitter_is_in_no_file_of_a_bundle_however_json_writes_it(tmp_path: Path, org: str, escaped: bool) -> None:
    """Logs hold Universit\\u00e4t K\\u00f6ln, AT&T \\"Labs\\", and names of two letters."""
    a, b = arms.in_turns(tmp_path, 3, a={"made": arms.made(org=org)}, b={"made": arms.made(org=org)})
    for log in (*a.iterdir(), *b.iterdir()):
        events = [json.loads(line.removeprefix(":::MLLOG ")) for line in log.read_text().splitlines()]
        lines = (f":::MLLOG {json.dumps(event, ensure_ascii=escaped)}\n" for event in events)
        log.write_text("".join(lines), encoding="utf-8")
    bundle.write(judged((a, b)), tmp_path / "bundle.tar")
    texts = in_bundle(tmp_path / "bundle.tar")
    assert len(texts) == 3 + 6
    for name, text in texts.items():
        assert not re.search(SPELLINGS[org], text), name
    stand_ins = re.findall(r'"submission_org", "value": "(submitter-[0-9a-f]{8})"', "".join(texts.values()))
    assert len(stand_ins) == 6 and len(set(stand_ins)) == 1


def test_a_host_of_a_log_is_redacted_in_each_of_its_spellings() -> None:
    redact = Redaction()
    redact.learn_from(r'{"hostname": "k\u00f6ln-07", "user": "j \"o\" doe"}')
    told = redact(
        'köln-07, {"note": "on k\\u00f6ln-07", "trace": "1\\nK\\u00F6ln\\nk\\u00F6ln-07"}, "by j \\"o\\" doe"'
    )
    (stand_in,) = set(re.findall(r"redacted-[0-9a-f]{8}(?=,|\"\,|\"})", told))
    person = told.partition('"by ')[2].removesuffix('"')
    assert STAND_IN.fullmatch(person)
    assert told == (f'{stand_in}, {{"note": "on {stand_in}", "trace": "1\\nK\\u00F6ln\\n{stand_in}"}}, "by {person}"')


@pytest.mark.parametrize("text", [r'{"password": "uv\"xy"}', r'{"cmd": "run --token=\"uvxy\""}', r'{"host": "uv\"xy"}'])
def test_an_escaped_quote_ends_no_secret(text: str) -> None:
    told = Redaction()(text)
    assert "xy" not in told, "which no stand-in has, of the digits of a hash"
    json.loads(told)


def in_bundle(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read().decode() for member in archive}  # type: ignore[union-attr]
