#!/usr/bin/env bash
# Set-up if needed, then the linters and the tests; with a selection the tests alone (it goes to pytest).
#   ./run_tests.sh               minutes on two cores
#   ./run_tests.sh --all         the long tests too: full size, kills, true containers, a browser
#   ./run_tests.sh -k boxes      a selection
#   ./run_tests.sh -m gpu        what runs on a GPU
set -euo pipefail

# shellcheck source=requirements/set_up.sh
. "$(dirname "${BASH_SOURCE[0]}")/requirements/set_up.sh"
cd "$here"
set_up requirements/run.lock requirements/dev.lock

if [[ $* == "" || $* == --all ]]; then
    PATH=$(dirname "$(command -v "$python")"):$PATH
    shellcheck -x ./*.sh requirements/*.sh docker/*.sh docker/run.sub .ci/*
    ruff check .
    ruff format --check .
    mypy
fi
exec "$python" -m pytest "$@"
