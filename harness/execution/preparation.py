"""What comes before a run's clocks: whether this machine can do what is asked, on which processors, and with which data; and,
once the ranks have met, that all of them were asked for the same thing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from harness import outside
from harness.config import Configuration
from harness.contract import Context, NotSuitable, Plain
from harness.execution import binding, checkpoint, context, process_group, provenance, seeding
from harness.execution.binding import Bound
from harness.execution.checkpoint import Checkpoint
from harness.execution.run import Run
from harness.exit_codes import DISK_FULL
from harness.request import Request
from harness.system import host, places
from harness.system.accelerator import CPU


@contextmanager
def with_checkpoints(run: Run) -> Iterator[None]:
    """Inside the block --checkpoint-dir, if asked for, is there and this run's alone. ValueError where that cannot be."""
    folder = run.request.checkpoint_dir
    if folder is None or run.launch.rank != 0 or (run.request.from_checkpoint and not outside.is_folder(folder)):
        yield
        return
    checkpoint.usable(folder)
    with checkpoint.of_one_run(folder):
        yield


def resumed(run: Run) -> Checkpoint | None:
    """The checkpoint that the run is to go on from. ValueError where it cannot."""
    request = run.request
    if not request.from_checkpoint:
        return None
    binding.load_torch()
    found = checkpoint.load(run.checkpoints, run.configuration)
    if request.seed not in (None, found.seed):
        raise ValueError(f"the checkpoint is of a run with seed {found.seed}, not {request.seed}; leave --seed out")
    return found


def prepare(run: Run, resumed: Checkpoint | None) -> tuple[Context, Bound]:
    """Where this rank stands, once this machine is found to be able to, and the processors that it is bound to.

    Its seed is the run's only once all ranks have agreed. ValueError, NotSuitable, and OSError of a full disk.
    """
    configuration, request = run.configuration, run.request
    if why := places.no_temporary_files():
        raise NotSuitable(why)
    seed = _asked_seed(run, resumed)
    here = context.build(
        configuration,
        run.launch,
        seed=seeding.draw() if seed is None else seed,
        initial_weights=request.initial_weights,
        deterministic=request.deterministic,
        chosen=_chosen(request, resumed),
    )
    bound = binding.bind(configuration.run.cpu_binding, here, run.launch.local_world_size)
    assert request.cache_dir is not None  # the command line settles it
    benchmark = configuration.benchmark
    configuration.check(here)
    if request.data_dir is not None and not outside.is_folder(
        request.data_dir
    ):  # also where a benchmark would not look
        raise ValueError(f"--data-dir {request.data_dir}: {outside.no_folder(request.data_dir)}")
    try:
        data_dir = benchmark.provide_data(configuration.tables, request.data_dir, request.cache_dir, run.screen.working)
    except OSError as error:
        raise _no_data(error, request.cache_dir) from error
    context.keep_compiled(request.cache_dir)
    binding.load_torch(bound.cpus)
    return replace(here, data_dir=data_dir), bound


def _no_data(error: OSError, cache_dir: Path) -> OSError | ValueError:
    """What to raise: what the error names is to blame, and the cache only where that lies in it, or where nothing is named."""
    named = None if error.filename is None else Path(os.fsdecode(error.filename)).absolute()
    in_cache = named is not None and named.is_relative_to(cache_dir.absolute())
    if error.errno in DISK_FULL:
        place = str(cache_dir) if named is None or in_cache else str(named)
        fix = "name a folder on another disk with --cache-dir" if named is None or in_cache else "make room there"
        return OSError(
            error.errno, f"{error.strerror}, while data was made in {place}, for bytes or for files (df -i); {fix}"
        )
    why = ""
    if in_cache:
        why = f"; data that a benchmark makes itself is kept in {cache_dir} (HARNESS_CACHE_DIR, --cache-dir)"
    elif named is None:
        why = (
            f"; no file is named: it is {cache_dir} (HARNESS_CACHE_DIR, --cache-dir), where data that a benchmark makes itself "
            "is kept, /dev/shm, or the folder for temporary files (TMPDIR)"
        )
    return ValueError(f"the data is not available: {error}{why}")


def _chosen(request: Request, resumed: Checkpoint | None) -> str | None:
    """--chosen, or what the run that this one goes on with had chosen: the next moment's noise chooses nothing for its rest."""
    before = None if resumed is None else resumed.state.get("chosen")
    return json.dumps(before) if request.chosen is None and before else request.chosen


def agree(run: Run, here: Context, bound: Bound, resumed: Checkpoint | None) -> tuple[Context, Mapping[str, Plain]]:
    """The same with rank 0's seed and this rank's threads, the libraries seeded; and what the log is to say of it.

    ValueError where the ranks were asked for different things, have other code, data, libraries or checkpoints, or two have one
    device; NotSuitable where their machines are of another kind.
    """
    several = here.world_size > 1
    asked_for: dict[str, object] = {
        "the configuration of SHA-256": run.configuration.sha256[:12],
        # whether each of these is there decides which collectives are called
        "--deterministic": run.request.deterministic,
        "--chosen": run.request.chosen,
        "--max-steps": run.request.max_steps,
        "--checkpoint-dir": "a folder" if run.request.checkpoint_dir is not None else None,
        "a checkpoint of epoch": resumed and resumed.epoch,
        "--seed": _asked_seed(run, resumed),
    }
    if several and here.local_rank == 0:  # the others of a machine have the same files
        asked_for["code of commit"] = provenance.of_this_code()
        asked_for["benchmark's code of SHA-256"] = provenance.of_benchmark(run.configuration.benchmark_name)[:12]
        asked_for["data of digest"] = _data_digest(run.configuration, here)
        asked_for["a checkpoint of SHA-256"] = resumed and _sha256(run.checkpoints / checkpoint.NAME)[:12]
        asked_for |= _libraries()
    first_of_several = run.configuration.run.nodes > 1 and here.local_rank == 0
    of_machine = machine(run.configuration.run.device) if first_of_several else {}
    here, run.ranks = process_group.agreed(here, asked_for, of_machine)
    here, where = binding.settled(here, bound)
    seeding.seed_libraries(here)
    told: dict[str, Plain] = {"cpu_binding": where}
    if several:
        told["collectives"] = process_group.collectives()
    return here, told


def machine(device: str) -> dict[str, object]:
    """What all machines of a run must have alike: a log describes that of rank 0, and a result is of one kind of machine."""
    if device == CPU:
        return {"the processor": host.read().cpu.model}
    found = context.this_machine(device).chosen
    return {
        "accelerators": ", ".join(sorted(set(found.names))),
        "the driver": found.software().get("driver", "unknown"),
    }


def _libraries() -> dict[str, object]:
    """Versions: by what is installed data paths are chosen and boxes evaluated. What the processor can do is none, and beside
    accelerators may differ."""
    return {name: version for name, version in provenance.libraries().items() if name != "cpu_capability"}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _asked_seed(run: Run, resumed: Checkpoint | None) -> int | None:
    """None: to be drawn, by rank 0 for all."""
    seed = resumed.seed if resumed else run.request.seed
    return seeding.FIXED if seed is None and run.request.deterministic else seed


def _data_digest(configuration: Configuration, here: Context) -> str:
    """Of the data that this rank would read, where the benchmark can tell before it reads any."""
    digest = getattr(configuration.benchmark, "data_digest", None)
    return str(digest(configuration.tables, here.data_dir)) if digest is not None else ""
