# shellcheck shell=bash
# shellcheck disable=SC2034  # $python is for the caller
# Sourced by run_and_time.sh and run_tests.sh: finds or makes a Python that has every package of the lock files.
#
#   set_up LOCK...     sets $python. An environment that has everything (the image, an active one) is used as it is; else
#                      .venv in the checkout is made or completed. Index, proxy and certificates are pip's own settings.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() { printf 'error: %s\n' "$1" >&2; exit "${2:-2}"; }

set_up() {
    local candidate
    for candidate in "$here/.venv/bin/python" python3 python; do
        if command -v "$candidate" >/dev/null && "$candidate" "$here/requirements/satisfied.py" "$@" >/dev/null 2>&1; then
            python=$candidate
            return
        fi
    done
    make_environment "$@"
    python=$here/.venv/bin/python
}

make_environment() {
    local began=$SECONDS log=$here/.venv/set-up.log base lock count=0
    [[ $(uname -sm) == "Linux x86_64" ]] || fail "the lock files are for Linux on x86-64, this is $(uname -sm)" 6
    [[ -w $here ]] || fail "$here is read-only and no Python on PATH has what the lock files name; use a copy that can be written"
    base=$(find_python) || fail "Python 3.11 or newer is needed, and python3 on PATH is $(python3 --version 2>&1)"
    if ! "$here/.venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        if "$base" -c 'import ensurepip' 2>/dev/null; then
            "$base" -m venv --clear "$here/.venv"
        elif "$base" -m pip --version >/dev/null 2>&1; then
            "$base" -m venv --clear --without-pip "$here/.venv"
        else
            fail "$("$base" --version) has neither ensurepip nor pip; on Debian and Ubuntu: apt-get install python3-venv"
        fi
    fi
    for lock in "$@"; do count=$((count + $(grep -c '==' "$lock"))); done
    printf 'set-up: installing %d packages into .venv (about 7 GB with CUDA; minutes, once)\n' "$count"
    local pip=("$here/.venv/bin/python" -m pip)
    "${pip[@]}" --version >/dev/null 2>&1 || pip=("$base" -m pip --python "$here/.venv/bin/python")
    local requirements=()
    for lock in "$@"; do requirements+=(-r "$lock"); done
    if ! "${pip[@]}" install --disable-pip-version-check --require-hashes --progress-bar off "${requirements[@]}" 2>&1 |
        tee "$log" | show_progress "$count" "$began"; then
        grep -E '^(ERROR|error)' "$log" >&2 || tail -n 5 "$log" >&2
        fail "set-up did not finish; all of pip's output is in $log. Run again to go on where it stopped"
    fi
    printf 'set-up: done in %d s\n' "$((SECONDS - began))"
}

# On a terminal one line that counts packages; in a file or pipe nothing between the first line and the last.
show_progress() {
    local line done=0
    while IFS= read -r line; do
        [[ -t 1 ]] || continue
        case $line in
            Collecting*) done=$((done + 1)); line=${line#Collecting } ;;
            Installing*) line="installing" ;;
            *) continue ;;
        esac
        printf '\rset-up: %3d of %d, %4d s  %-40.40s' "$done" "$1" "$((SECONDS - $2))" "${line%% *}"
    done
    if [[ -t 1 ]]; then printf '\r%-70s\r' ''; fi
}

find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}
