#!/usr/bin/env bash
# Set-up if needed, then every check and test; with arguments, a selection of the tests alone (they go to pytest).
#   ./run_tests.sh
#   ./run_tests.sh -k boxes
set -euo pipefail

# shellcheck source=requirements/set_up.sh
. "$(dirname "${BASH_SOURCE[0]}")/requirements/set_up.sh"
cd "$here"
set_up requirements/run.lock requirements/dev.lock

if [[ $# -eq 0 ]]; then
    PATH=$(dirname "$(command -v "$python")"):$PATH
    shellcheck -x ./*.sh requirements/*.sh docker/*.sh docker/run.sub .ci/*
    ruff check .
    ruff format --check .
    mypy
fi
exec "$python" -m pytest "$@"
