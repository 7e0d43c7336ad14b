#!/usr/bin/env bash
# Set-up if needed, then the tests with the linters beside them; with a selection the tests alone (it goes to pytest).
#   ./run_tests.sh               minutes on two cores
#   ./run_tests.sh --all         the long tests too: full size, kills, true containers, a browser
#   ./run_tests.sh -k boxes      a selection
#   ./run_tests.sh -m gpu        what runs on a GPU
set -euo pipefail

script=$(readlink -f -- "${BASH_SOURCE[0]}") # a link to it may be what is called
# shellcheck source=requirements/set_up.sh
. "${script%/*}/requirements/set_up.sh"
cd "$here"
set_up "$(lock_of_environment)" requirements/dev.lock

lint() {
    local failed=0
    PATH=$(dirname "$(command -v "$python")"):$PATH
    shellcheck -x ./*.sh requirements/*.sh docker/*.sh docker/run.sub measuring/*.sh .ci/* || failed=1
    ruff check . || failed=1
    ruff format --check . || failed=1
    mypy || failed=1
    return $failed
}

unset PYTHONDONTWRITEBYTECODE # else each of the tests' hundred processes compiles the harness anew, 0.3 s each
# A file's tests stay together: they share what their fixtures make. In the order of tests/conftest.py, not xdist's own, which
# has the files of one long test last
processors=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) # which believes those
together=(--maxprocesses 8 --dist loadfile --no-loadscope-reorder)
if [[ " $* " == *" -m gpu "* ]]; then
    # several on one GPU: their models are small, and each process waits for its host most of the time
    exec "$python" -m pytest --numprocesses "$((processors < 6 ? processors : 6))" "${together[@]}" "$@"
elif [[ $* != "" && $* != --all ]]; then
    exec "$python" -m pytest "$@"
fi
said=$(mktemp)
trap 'rm -f "$said"' EXIT
lint > "$said" 2>&1 & # mypy takes a minute
linting=$!
status=0
# Twice as many processes as processors: many tests wait, for Slurm, signals, a watchdog, and three on two processors left a
# third of them idle
"$python" -m pytest --numprocesses "$((2 * processors))" "${together[@]}" --durations 15 --durations-min 10 "$@" || status=$?
wait $linting || status=1
printf '\nlinters:\n'
cat "$said"
exit $status
