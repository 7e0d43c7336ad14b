#!/usr/bin/env bash
# N timed trials, each in a fresh container: MLPerf's inputs, translated for `python -m harness run`, which does all the work.
# Usage: see `inputs` below, or run_with_docker.sh --help.
set -euo pipefail

inputs() {
    cat << 'HELP'
Usage: CONT=IMAGE DGXSYSTEM=CONFIGURATION [DATADIR=DIR] [...] docker/run_with_docker.sh [OPTION...]

Runs NEXP timed trials of one configuration, each in a fresh container of CONT, and leaves under
LOGDIR/<system>/<benchmark>/: result_0.txt ... (the logs), result_0.json ... (what ran where), ledger.jsonl (every trial, as
it began and ended).

Inputs, all from the environment:
  CONT            image to run, required:                  docker build -t ssd .  makes  CONT=ssd
  DGXSYSTEM       configuration, required:                 a name under configs/, or a path to a TOML file
  DATADIR         the data set on this machine:            mounted read-only (left out: the benchmark's own data)
  BACKBONE_DIR    initial weights on this machine:         the file, or a folder with one .pth in it
  PRETRAINED_DIR  another name of BACKBONE_DIR
  LOGDIR          where results go                         [./results]
  NEXP            number of trials                         [5]
  CLEAR_CACHES    1: drop the page cache before each trial, where this user may; 0: do not   [1]
  SEED            seed of trial 0; trial N has SEED + N    [each trial draws its own]
  NV_GPU          which GPUs, by number or UUID: 0,1       [as many as the configuration says]
  SYSTEM          folder name of this machine's results    [made out of the configuration's platform]
  DATESTAMP       each trial's log also as LOGDIR/DATESTAMP_N.log, N from 1: DATESTAMP=$(date +'%y%m%d%H%M%S%N')
  HARNESS_ORG     whose results they are, in the log; without a name none can be packaged   [the configuration's]
  WATCHDOG        seconds without progress after which a trial is stopped; 0: never          [1800]
  DOCKER_HOST     the Docker engine                        [unix:///var/run/docker.sock]

Options are passed on to `python -m harness run`, which lists them with --help; the one most often wanted:
  --resume        go on with a series that was broken off: finished trials stay, broken ones are marked and run again

Exit codes: 0 all trials met the target, 1 one did not, 2 usage, 5 a trial broke, 6 no engine, image's driver or GPUs
unsuitable, disk full; 130 interrupted.
HELP
}

for option in "$@"; do
    if [ "$option" = --help ] || [ "$option" = -h ]; then
        inputs
        exit 0
    fi
done

checkout=$(readlink -f -- "${BASH_SOURCE[0]}") # a link to it may be what is called
checkout=${checkout%/docker/*}

# Any Python from 3.11 on with the few packages that the host's side needs. -P: a folder called harness in the caller's
# directory is not ours
python=
for candidate in "$checkout/.venv/bin/python" python3 python; do
    if "$candidate" -P -c 'import tomllib, docker.client, psutil, pydantic, typer, mlperf_logging.mllog' 2> /dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "No Python 3.11 or later here has what the host's side of this needs. Make one:" >&2
    echo "    python3 -m venv $checkout/.venv" >&2
    echo "    $checkout/.venv/bin/pip install docker nvidia-ml-py psutil pydantic typer mlperf-logging" >&2
    exit 6
fi
export PYTHONPATH="$checkout${PYTHONPATH:+:$PYTHONPATH}"

missing=0
for name in CONT DGXSYSTEM; do
    if [ -z "${!name:-}" ]; then
        echo "$name is not set; --help lists all inputs" >&2
        missing=1
    fi
done
if [ "$missing" = 1 ]; then
    "$python" -P -c 'from harness.cli.environment import lookalikes; print(*lookalikes(), sep="\n")' >&2
    exit 2
fi

arguments=("$DGXSYSTEM" --image "$CONT" --trials "${NEXP:-5}" --out "${LOGDIR:-$PWD/results}")
if [ -n "${DATADIR:-}" ]; then arguments+=(--data-dir "$DATADIR"); fi
if [ -n "${SEED:-}" ]; then arguments+=(--seed "$SEED"); fi
if [ -n "${SYSTEM:-}" ]; then arguments+=(--system "$SYSTEM"); fi
if [ -n "${NV_GPU:-}" ]; then arguments+=(--gpus "$NV_GPU"); fi
if [ -n "${WATCHDOG:-}" ]; then arguments+=(--watchdog "$WATCHDOG"); fi
case "${CLEAR_CACHES:-1}" in
    1) arguments+=(--clear-caches) ;;
    0) arguments+=(--no-clear-caches) ;;
    *)
        echo "CLEAR_CACHES=$CLEAR_CACHES: 1 or 0 is needed" >&2
        exit 2
        ;;
esac

backbone=${BACKBONE_DIR:-${PRETRAINED_DIR:-}}
if [ -d "$backbone" ]; then
    found=("$backbone"/*.pth)
    if [ "${#found[@]}" -ne 1 ] || [ ! -f "${found[0]}" ]; then
        echo "BACKBONE_DIR=$backbone: one .pth file is expected there, found: ${found[*]}; name the file itself" >&2
        exit 2
    fi
    backbone=${found[0]}
fi
if [ -n "$backbone" ]; then arguments+=(--initial-weights "$backbone"); fi

exec "$python" -P -m harness run "${arguments[@]}" "$@"
