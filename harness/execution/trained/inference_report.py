"""What `harness inference` leaves: a file with every sample, and a table with a mark at what took less than MLPerf asks."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from harness.execution import provenance
from harness.execution.trained.inference import LEAST, OFFLINE, RULES, SINGLE_STREAM, Measured, ScenarioResult
from harness.system import accelerator

VERSION = 1  # of the file's shape
PERCENTILES = (50, 90, 99)
SHORT = " short"  # behind a figure of less than MLPerf asks for


def document(found: Measured) -> dict[str, Any]:
    """All of it: the machine as a run's log tells it, every figure with every sample."""
    configuration = found.model.configuration
    return {
        "version": VERSION,
        "note": f"in the terms of {RULES}; no result of MLPerf's",
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": found.model.told,
        "trained": found.model.state is not None,
        "configuration_name": configuration.name,
        "configuration_sha256": configuration.sha256,
        "device": found.here.device,
        "threads": found.here.threads,
        "pictures": found.pictures,
        "interrupted": found.interrupted or None,
        **provenance.surroundings(found.machine),
        "figures": [
            {
                "scenario": each.scenario,
                "begins_with": each.begins_with,
                "batch": each.batch,
                "images_per_s": each.images_per_s,
                **{f"latency_ms_p{of}": each.latency_ms(of) for of in PERCENTILES if each.scenario == SINGLE_STREAM},
                "long_enough_for_mlperf": each.long_enough,
                "total_s": each.total_s,
                "detections_per_picture": each.detections,
                **each.properties,
                "n": len(each.seconds),
                "seconds": each.seconds,
            }
            for each in found.figures
        ],
        "images_per_s_by_batch": {
            variant: {str(size): rate for size, rate in each.items()} for variant, each in found.batches.items()
        },
        "left_out": dict(found.left_out),
        "published": [vars(each) for each in found.published],
    }


def lines(found: Measured) -> Iterator[str]:
    """For a terminal of 80 columns."""
    on = found.machine.accelerators[0] if found.here.device != accelerator.CPU else found.machine.host.cpu.model
    yield from textwrap.wrap(f"{found.model.told}; {found.here.device}, {on}, {found.here.threads} threads", 80)
    yield f"pictures: {found.pictures}"
    singles = [each for each in found.figures if each.scenario == SINGLE_STREAM]
    if singles:
        yield ""
        percentiles = "".join(f"{f'p{of}':>9}" for of in PERCENTILES)
        yield f"{'single stream':22}{'begins with':>12}{percentiles}{'queries':>13}"
        for each in singles:
            latencies = "".join(f"{each.latency_ms(of):>9.2f}" for of in PERCENTILES)
            yield f"{_variant(each):22}{each.begins_with:>12}{latencies} ms{len(each.seconds):>10,}{_mark(each)}"
    offlines = [each for each in found.figures if each.scenario == OFFLINE]
    if offlines:
        yield ""
        yield f"{'offline':22}{'begins with':>12}{'batch':>9}{'images/s':>18}{'pictures':>13}"
        for each in offlines:
            count = each.batch * len(each.seconds)
            yield (
                f"{_variant(each):22}{each.begins_with:>12}{each.batch:>9}{each.images_per_s:>18,.1f}{count:>13,}{_mark(each)}"
            )
    yield ""
    for variant, reason in found.left_out.items():
        yield from textwrap.wrap(f"not measured: {variant}: {reason}", 80, subsequent_indent="    ")
    if found.interrupted:
        yield from textwrap.wrap(f"interrupted: not measured from there on: {found.interrupted}", 80)
    if short := [each for each in found.figures if not each.long_enough]:
        least_s = min(each.total_s for each in short)
        single, offline = LEAST[SINGLE_STREAM], LEAST[OFFLINE]
        yield from textwrap.wrap(
            f"{SHORT.strip()}: less than {RULES} asks for: {single['seconds']} s and {single['queries']:,} queries, or "
            f"{offline['seconds']} s and {offline['pictures']:,} pictures; the shortest here took {least_s:.1f} s. --full "
            "measures as much.",
            80,
            subsequent_indent="    ",
        )
    for paper in found.published:
        text = f"published: {paper.images_per_s:g} images/s, {paper.what}, on {paper.hardware} ({paper.source})"
        yield from textwrap.wrap(text, 80, subsequent_indent="    ")


def _mark(each: ScenarioResult) -> str:
    return "" if each.long_enough else SHORT


def _variant(each: ScenarioResult) -> str:
    return f"{each.properties.get('precision', '')}{', compiled' if each.properties.get('compiled') else ''}"
