"""What a run was asked for: each option of `run` once, with its environment variable, both ways.

A field of `Request` is an option (harness/options.py makes the command line of the fields, and says a request again to the
ranks of a run, to a trial, to a container). So a new option is one line here, and its use where it is used.

What a field's annotation holds: typer's option, how far the option reaches (`Reach`), and of a path that a container needs,
where it is seen inside (`Inside`), and of what not every engine can do, which do (`Of`). Every option has an environment
variable: MLPerf's name where submitters know one, else HARNESS_ and its own. The command line wins.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

from typer import Argument, BadParameter, Option

from harness import names, options, outside
from harness.options import Field

# What submitters know from MLPerf's scripts
CONFIGURATION, DATA_DIR, OUT, SEED, CLEAR_CACHES = "DGXSYSTEM", "DATADIR", "LOGDIR", "SEED", "CLEAR_CACHES"
# By which torchrun, and who does as it does, tells a process that it is a rank
RANK = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "HARNESS_LOG",
    "HARNESS_PARENT",
    "HARNESS_LAUNCHER",
)
MOST_TRIALS = 10_000  # more is a slip of the hand, and years of it


class Engine(enum.StrEnum):
    """Who starts the trials of a series."""

    PROCESS = "process"
    DOCKER = "docker"
    SLURM = "slurm"
    KUBERNETES = "kubernetes"


class Reach(enum.Enum):
    """Whom an option is for."""

    ALL = "every process of a run, in containers too"
    ONE = "a single run and its ranks"
    SERIES = "a series of trials"


@dataclass(frozen=True)
class Inside:
    """Where a container sees this path of the host: as this folder, or as a file of its own name in it."""

    folder: PurePosixPath
    as_file: bool = False
    writable: bool = False

    def of(self, path: Path) -> PurePosixPath:
        return self.folder / path.name if self.as_file else self.folder


@dataclass(frozen=True)
class Of:
    """Which engines know what to do with this option of a series."""

    engines: frozenset[Engine]

    def __init__(self, *engines: Engine) -> None:
        object.__setattr__(self, "engines", frozenset(engines))


DATA, WEIGHTS = Inside(PurePosixPath("/data")), Inside(PurePosixPath("/weights"), as_file=True)
CACHE = Inside(PurePosixPath("/cache"), writable=True)
ALL, ONE, SERIES = Reach
HAS_CACHES = Of(Engine.PROCESS, Engine.DOCKER, Engine.SLURM)  # those of machines that outlive a trial


@dataclass(frozen=True)
class Request:
    """Everything that `run` can be asked for. None and False: not asked for."""

    configuration: Annotated[
        str | None, Argument(envvar=CONFIGURATION, help="A name under configs/, or a path. `configs` lists them."), ALL
    ] = None
    data_dir: Annotated[
        Path | None, Option(envvar=DATA_DIR, help="The data set, a folder in COCO form."), ALL, DATA
    ] = None
    initial_weights: Annotated[
        Path | None,
        Option(
            "--initial-weights",
            "--backbone-path",
            help="File of initial weights, where the configuration wants them. (--backbone-path is the name "
            "in published recipes.)",
        ),
        ALL,
        WEIGHTS,
    ] = None
    out: Annotated[
        Path | None,
        Option(
            envvar=OUT,
            help="Folder of the log result_N.txt.  [default: out/CONFIGURATION in the checkout, of a series "
            "out/SYSTEM/BENCHMARK; where it is installed or read-only, in the current folder]",
        ),
        ALL,
    ] = None
    seed: Annotated[
        int | None,
        Option(
            envvar=SEED,
            min=0,
            max=2**32 - 1,
            help="A new one for each run when left out; trial N of a series has seed + N.",
        ),
        ALL,
    ] = None
    max_steps: Annotated[
        int | None,
        Option(
            min=1,
            help="End after so many optimizer steps of the whole run, its schedule unchanged: equal work, "
            "to compare speeds.",
        ),
        ALL,
    ] = None
    deterministic: Annotated[
        bool,
        Option(
            "--deterministic",
            help="Repeatable to the bit: fixed seed, deterministic algorithms, no autotuning; hashes of its numbers in the "
            "log. No timed result.",
        ),
        ALL,
    ] = False
    chosen: Annotated[
        str | None,
        Option(
            help="What another run chose by its speed, as its log has it under chosen, in JSON: nothing of it is measured "
            "anew. Series and comparisons hand it on by themselves."
        ),
        ALL,
    ] = None
    target: Annotated[float | None, Option(help="Quality at which the run ends; open division only."), ALL] = None
    org: Annotated[
        str | None,
        Option(
            help="Whose result it is, in place of the configuration's; a package needs a name.",
            metavar="NAME",
        ),
        ALL,
    ] = None
    cache_dir: Annotated[
        Path | None,
        Option(
            help="Where made data, what the check of a data set leaves and compiled parts are kept.  [default: .cache in the "
            "checkout; /cache in the image; else $XDG_CACHE_HOME/harness, by default ~/.cache/harness]"
        ),
        ALL,
        CACHE,
        HAS_CACHES,
    ] = None
    rendezvous_timeout: Annotated[
        int | None,
        Option(
            min=1,
            help="Seconds in which a run's other ranks, or nodes, must reach rank 0 at MASTER_ADDR:MASTER_PORT.  "
            "[default: 300]",
        ),
        ALL,
    ] = None
    number: Annotated[
        int | None, Option(min=0, max=names.LARGEST, help="N of result_N.txt.  [default: the next free one]"), ONE
    ] = None
    checkpoint_dir: Annotated[
        Path | None,
        Option(
            help="Keep checkpoints there: the last epoch's and the best one's. Those of an earlier run go to earlier_N in it."
        ),
        ONE,
    ] = None
    from_checkpoint: Annotated[
        bool,
        Option("--from-checkpoint", help="Go on from the checkpoint in --checkpoint-dir; never a timed result."),
        ONE,
    ] = False
    trials: Annotated[
        int | None,
        Option(min=1, max=MOST_TRIALS, help="So many runs, each started afresh and entered in a ledger."),
        SERIES,
    ] = None
    resume: Annotated[
        bool,
        Option(
            "--resume",
            help="Go on with a series: finished trials stay, broken ones are marked and run again. (With "
            "--checkpoint-dir and no --trials it is the old name of --from-checkpoint.)",
        ),
        SERIES,
    ] = False
    system: Annotated[
        str | None, Option(help="Trials land in OUT/SYSTEM/BENCHMARK.  [default: from the platform's name]"), SERIES
    ] = None
    datestamp: Annotated[
        str | None,
        Option(
            envvar="DATESTAMP",
            help="Each trial's log also as OUT/DATESTAMP_N.log, N from 1: a link, for submitters' scripts.",
        ),
        SERIES,
    ] = None
    clear_caches: Annotated[
        bool | None,
        Option(
            envvar=CLEAR_CACHES,
            help="Drop the page cache before each trial, where that is permitted.  [default: clear-caches]",
        ),
        SERIES,
        HAS_CACHES,
    ] = None
    watchdog: Annotated[
        float | None,
        Option(
            min=0,
            help="Seconds without a line in the log after which a trial is stopped; 0 for never.  [default: 1800]",
        ),
        SERIES,
    ] = None
    engine: Annotated[
        Engine | None,
        Option(help="Who starts each trial.  [default: docker with --image, else process]"),
        SERIES,
    ] = None
    image: Annotated[
        str | None,
        Option(help="Run each trial in a container of this image."),
        SERIES,
        Of(Engine.DOCKER, Engine.SLURM, Engine.KUBERNETES),
    ] = None
    gpus: Annotated[
        str | None,
        Option(help="GPUs of a container: indices or UUIDs, with commas.  [default: the first ones]"),
        SERIES,
        Of(Engine.DOCKER),
    ] = None
    shm_size: Annotated[
        str | None,
        Option(
            help="Shared memory of a container of its own, such as 8g, instead of the host's; of a pod: at most so much."
        ),
        SERIES,
        Of(Engine.DOCKER, Engine.KUBERNETES),
    ] = None
    dry_run: Annotated[
        bool,
        Option("--dry-run", help="Print what would be asked of the cluster, and ask nothing."),
        SERIES,
        Of(Engine.KUBERNETES),
    ] = False
    kube_context: Annotated[
        str | None,
        Option(help="Which context of the kubeconfig.  [default: its current one]"),
        SERIES,
        Of(Engine.KUBERNETES),
    ] = None
    namespace: Annotated[
        str | None,
        Option(help="Which namespace of the cluster.  [default: the context's]"),
        SERIES,
        Of(Engine.KUBERNETES),
    ] = None
    data_claim: Annotated[
        str | None,
        Option(help="PersistentVolumeClaim with the data, or CLAIM/FOLDER of it; read-only at /data."),
        SERIES,
        Of(Engine.KUBERNETES),
    ] = None
    results_claim: Annotated[
        str | None,
        Option(help="PersistentVolumeClaim, or CLAIM/FOLDER, that keeps the results in the cluster too."),
        SERIES,
        Of(Engine.KUBERNETES),
    ] = None
    accelerator_resource: Annotated[
        str | None,
        Option(
            help="What the cluster calls one accelerator, such as amd.com/gpu.  [default: by the configuration's platform]"
        ),
        SERIES,
        Of(Engine.KUBERNETES),
    ] = None
    pod_template: Annotated[
        Path | None,
        Option(
            help="YAML of a PodTemplateSpec, added to each pod's: node selector, tolerations, queue, network cards."
        ),
        SERIES,
        Of(Engine.KUBERNETES),
    ] = None
    slurm_options: Annotated[
        str | None,
        Option(help="What else Slurm is asked for, as on salloc's command line: '-p gpu -t 240'. SALLOC_* count too."),
        SERIES,
        Of(Engine.SLURM),
    ] = None

    @property
    def series(self) -> bool:
        """Whether a series of trials is asked for, not a single run."""
        return self.trials is not None or self.image is not None or self.engine is not None

    @property
    def started_by(self) -> Engine:
        """The engine of a series."""
        return self.engine or (Engine.PROCESS if self.image is None else Engine.DOCKER)

    @property
    def folder(self) -> Path:
        """Where the log goes, once that is settled."""
        assert self.out is not None
        return self.out

    # --- from the command line ---------------------------------------------------------------------------------------

    def as_meant(self, named: Iterable[str]) -> tuple[Self, list[str]]:
        """The request without what has no effect in it, and a sentence for each thing left out.

        `named`: the fields that stood on the command line. What has no effect there is refused, BadParameter; what the
        environment says to every run of a shell is left out.
        """
        asked = self
        if self.resume and not self.series and self.checkpoint_dir is not None:
            asked = replace(self, resume=False, from_checkpoint=True)
        if asked.resume and not asked.series:
            raise BadParameter(
                "--resume goes on with a series: say --trials, --image or --engine too; a single run goes on by "
                "--from-checkpoint with --checkpoint-dir, where the checkpoint lies"
            )
        if asked.from_checkpoint and asked.checkpoint_dir is None:
            raise BadParameter("--from-checkpoint needs --checkpoint-dir, where the checkpoint lies")
        if asked.started_by in (Engine.DOCKER, Engine.KUBERNETES) and asked.image is None:
            raise BadParameter(f"--engine {asked.started_by} needs --image, the image to run")
        left_out = {}
        for option, reason in asked._without_effect():
            if option.name in named:
                raise BadParameter(f"{option.spelt(getattr(asked, option.name))} {reason}; leave it out")
            left_out[option.name] = f"the environment variable {option.variable} is not read here: it {reason}"
        return asked._without(left_out), list(left_out.values())

    def _without_effect(self) -> Iterator[tuple[Field, str]]:
        for option, _ in options.given(self):
            reach, of = option.note(Reach), option.note(Of)
            if reach is Reach.ONE and self.series:
                yield option, "is for a single run, not for a series of trials"
            elif of is not None and self.started_by not in of.engines:
                yield option, self._not_of_this_engine(of.engines)
            elif reach is Reach.SERIES and not self.series:
                yield option, "has no effect without --trials, --image or --engine"

    def _not_of_this_engine(self, engines: frozenset[Engine]) -> str:
        if self.engine is None and Engine.DOCKER in engines:
            return "has no effect without --image"
        return f"is for --engine {' or '.join(sorted(engines))}, not for {self.started_by}"

    # --- to others ---------------------------------------------------------------------------------------------------

    def argv(self) -> list[str]:
        """The words behind `python -m harness` that ask for the same."""
        return ["run", *options.argv(self)]

    def environment(self) -> dict[str, str]:
        """The variables that ask for the same."""
        return options.environment(self)

    def of_ranks(self, seed: int | None) -> Self:
        """For the ranks of this run: all that must be equal on every rank is settled, and the log is another's matter."""
        return replace(self._only(ALL, ONE), number=None, seed=seed)

    def of_trial(self, number: int, folder: Path, seed: int | None) -> Self:
        """For one trial of this series as a process of this machine."""
        return replace(self._only(ALL), number=number, out=folder, seed=seed)._absolute()

    def inside(self, configuration: PurePosixPath, results: PurePosixPath) -> tuple[Self, list[tuple[Path, Inside]]]:
        """One trial's request as its container is to be told, and where inside it each path of the host is to be seen.

        One path may be two options'.
        """
        moved: dict[str, Any] = {"configuration": str(configuration), "out": Path(results)}
        mounts = []
        for option, path in options.given(self):
            inside = option.note(Inside)
            if inside is not None:
                mounts.append((path, inside))
                moved[option.name] = Path(inside.of(path))
        return replace(self, **moved), mounts

    def _only(self, *reaches: Reach) -> Self:
        return self._without(option.name for option in FIELDS if option.note(Reach) not in reaches)

    def _without(self, names: Iterable[str]) -> Self:
        defaults = {option.name: option.default for option in FIELDS}
        return replace(self, **{name: defaults[name] for name in names})

    def _absolute(self) -> Self:
        given = options.given(self)
        moved: dict[str, Any] = {option.name: outside.real(path) for option, path in given if isinstance(path, Path)}
        return replace(self, **moved)


FIELDS = options.fields(Request)
VARIABLES = tuple(option.variable for option in FIELDS)  # of the environment, that ask for something


def variable(name: str) -> str:
    """The environment variable of the field `name`."""
    return next(option.variable for option in FIELDS if option.name == name)


def check_inputs(request: Request, prepared_by: str | None) -> None:
    """ValueError when what is to be read is not there, on this machine; where pods read it, when it is no path of theirs.

    `prepared_by`: as a configuration has it.
    """
    data_dir, weights = request.data_dir, request.initial_weights
    if request.started_by is Engine.KUBERNETES:
        for option, path in (("--data-dir", data_dir), ("--initial-weights", weights)):
            if path is not None and not path.is_absolute():
                raise ValueError(f"{option} {path}: a path as the pods see it is needed, such as /data/{path}")
        return
    if data_dir is not None:
        if not outside.is_folder(data_dir):
            raise ValueError(f"--data-dir {data_dir}: {outside.no_folder(data_dir)}")
        try:
            first = next(data_dir.iterdir(), None)
        except OSError as error:
            raise ValueError(f"--data-dir {data_dir}: cannot be read: {error.strerror}") from error
        if first is None:
            raise ValueError(
                f"--data-dir {data_dir}: the folder is empty; is its disk mounted?"
                + (f" `{names.prepare_command(prepared_by, data_dir)}` fills it" if prepared_by is not None else "")
            )
    if weights is not None and not outside.is_file(weights):
        raise ValueError(f"--initial-weights {weights}: there is no such file")
