#!/usr/bin/env bash
# One timed run: to a target quality, on this machine or inside the image. `./run_and_time.sh --help` says everything.
set -euo pipefail

usage() {
    cat <<'END'
./run_and_time.sh [CONFIGURATION] [options]

One timed run. Trains to the target and leaves a log that MLPerf's checker accepts, result_N.txt, and a picture of
it, result_N.png. The first call makes .venv from the lock file (minutes, about 7 GB); later ones, and calls where
everything is installed, skip that.

CONFIGURATION is a name under configs/ or the path of a file. Without one a machine without accelerators runs the
embedded demonstration on its CPU; a machine with them is told which configurations there are.

  --data-dir DIR         the data set, a folder in COCO form (the embedded demonstration makes its own)
  --initial-weights FILE initial weights, where the configuration wants them (--backbone-path, as published recipes
                         have it, is the same)
  --out DIR              where the log goes (default: out/CONFIGURATION in the checkout, of a
                         series out/SYSTEM/BENCHMARK); N is the next free number,
                         nothing is ever written over
  --cache-dir DIR        where made data, the check of a data set and compiled parts are kept (default: see HARNESS_CACHE_DIR)
  --number N             exactly this number
  --seed N               0 to 4294967295; a new one for each run when left out
  --max-steps N          ends after N optimizer steps of the run, its schedule unchanged: equal work, to compare speeds
  --deterministic        repeatable to the bit, with hashes of its numbers in the log, for compare; no timed result
  --chosen JSON          what another run chose by its speed (number format, threads), as its log's line `chosen` has it
  --rendezvous-timeout SECONDS  of a run on several machines: in which rank 0 must be reached (300)
  --target QUALITY       ends the run at another quality (open division only)
  --org NAME             whose result it is, as the log says (default: the configuration's, which is nobody's)
  --checkpoint-dir DIR   keeps checkpoints there: the last epoch's and the best one's; an earlier run's go to earlier_N in it
  --from-checkpoint      goes on from the checkpoint there; such a result is never a timed one
  --trials N             so many runs, each started afresh and entered in a ledger
  --resume               goes on with a series (with --checkpoint-dir and no --trials: the old name of --from-checkpoint)
  --engine ENGINE        who starts each trial: process, docker (with --image; the default there), slurm, with
                         --slurm-options, or kubernetes, with
                         --dry-run, --kube-context, --namespace, --data-claim, --results-claim, --accelerator-resource,
                         --pod-template (docs/engines.md)
  --image IMAGE          each trial in a fresh container of this image (--gpus, --shm-size: its devices and memory)
  --system NAME          trials land in OUT/NAME/BENCHMARK (default: from the platform's name)
  --datestamp NAME       each trial's log also as OUT/NAME_N.log, N from 1, as submitters' scripts name it
  --no-clear-caches      leave the page cache alone before a trial
  --watchdog SECONDS     stop a trial whose log stands still for so long (1800); 0 never
  -h, --help             this text; more with `python -m harness run --help`

Environment, for those who know MLPerf's scripts: DGXSYSTEM is CONFIGURATION, DATADIR --data-dir, LOGDIR --out,
SEED --seed, DATESTAMP --datestamp, CLEAR_CACHES=0 --no-clear-caches; any other option is read from HARNESS_ and its
name (HARNESS_MAX_STEPS=200).
Options win. HARNESS_CACHE_DIR is where the embedded data, what the check of a data set leaves and compiled parts are kept
(default: .cache in the checkout; where that is not yours alone $XDG_CACHE_HOME/harness, by default ~/.cache/harness, and
where not even that is, harness-UID in $TMPDIR, by default /tmp).

Exit codes: 0 target met; 1 epochs (or --max-steps) spent without it; 2 usage or configuration; 5 the run broke; 6 no
suitable device or driver; 130 interrupted. Whatever began leaves its status in the log; a wrong command line,
or an input that is not there, leaves none.
END
}

for argument in "$@"; do
    if [[ $argument == -h || $argument == --help ]]; then
        usage
        exit 0
    fi
done

script=$(readlink -f -- "${BASH_SOURCE[0]}") # a link to it may be what is called
# shellcheck source=requirements/set_up.sh
. "${script%/*}/requirements/set_up.sh"
# An active environment of CUDA 12 is one for older GPUs and drivers: CUDA 13 would not run on what it was made for
ready "$here/requirements/run.lock" || ready "$here/requirements/cuda12.lock" || set_up "$(lock_of_environment)"
# -P: a folder called harness in the caller's directory is not ours
PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} exec "$python" -P -m harness run "$@"
