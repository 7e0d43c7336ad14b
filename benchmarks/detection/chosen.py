"""What init chooses by its speed where the configuration says auto: what an earlier run of a series or a comparison chose."""

from __future__ import annotations

from pydantic import PositiveInt, ValidationError

from benchmarks.detection.tables import Table
from harness.contract import Context, Precision


class Chosen(Table):
    """None: nobody chose yet, and init measures."""

    precision: Precision | None = None
    threads: PositiveInt | None = None  # of the processor, each rank's


def of(context: Context) -> Chosen:
    """As the context has it. ValueError for a name or a value that is none, and for more threads than there are."""
    try:
        chosen = Chosen.model_validate(dict(context.chosen))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"--chosen: {where}: {first['msg']}; it is what another run's log has in its line `chosen`"
        ) from error
    if chosen.threads is not None and chosen.threads > context.threads:
        raise ValueError(
            f"{chosen.threads} threads of a processor were chosen by speed, by the first trial of this series or by the run "
            f"that --chosen is from, and each rank may use {context.threads} here now (taskset, a cgroup, another machine): "
            "give it as many as then, or begin a new series, in which init chooses again"
        )
    return chosen
