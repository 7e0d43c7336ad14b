# shellcheck shell=bash
# shellcheck disable=SC2034  # $python is for the caller
# Sourced by run_and_time.sh and run_tests.sh: finds or makes a Python that has every package of the lock files. By hand, with pip
# in that Python or without:
#
#   bash requirements/set_up.sh requirements/run.lock requirements/export.lock
#
#   set_up LOCK...     sets $python. An environment that has everything (the image, an active one) is used as it is; else
#                      .venv in the checkout is made or completed. Index, proxy and certificates are pip's own settings.

here=$(readlink -f -- "${BASH_SOURCE[0]}")
here=${here%/requirements/*}
mark=$here/.venv/set-up.lock # held by whoever sets up; empty unless he is at it, or was killed
of=$here/.venv/made-of # names the lock file that .venv is of, or is to be

fail() { printf 'error: %s\n' "$1" >&2; exit "${2:-2}"; }

[[ $here != *:* ]] || fail "$here: no folder of Python's may have a colon in its name; move the checkout"

set_up() {
    ready "$@" && return
    [[ $(uname -sm) == "Linux x86_64" ]] || fail "the lock files are for Linux on x86-64, this is $(uname -sm)" 6
    local base
    base=$(find_python) || fail "the lock files are for Python 3.11, 3.12 and 3.13, and python3 on PATH is $(python3 --version 2>&1)\
; install one of them beside it, as python3.13"
    { mkdir -p "$here/.venv" && : >> "$mark"; } 2>/dev/null ||
        fail "$here/.venv cannot be written and no Python on PATH has what the lock files name; use a copy that can be written"
    exec {held}>> "$mark"
    if [[ $(try_lock) == taken ]]; then
        printf 'set-up: another one is installing into .venv; waiting for it\n'
        flock "$held"
    fi
    ready "$@" || make_environment "$base" "$@"
    exec {held}>&- # or the run would hold it
}

# Whether there is an environment that has everything; sets $python.
ready() {
    local candidate found
    for candidate in "$here/.venv/bin/python" python3 python; do
        found=$(command -v "$candidate") || continue
        [[ ! -s $mark || ! ${found%/*} -ef $here/.venv/bin ]] || continue # half made; an active one is python3 on PATH
        if "$candidate" "$here/requirements/satisfied.py" "$@" >/dev/null 2>&1; then
            python=$candidate
            return
        fi
    done
    return 1
}

# A file system without locks has none that could be taken; there it is as if nobody else were.
try_lock() {
    local code=0
    flock --nonblock --conflict-exit-code 75 "$held" 2>/dev/null || code=$?
    if [[ $code == 75 ]]; then printf taken; fi
}

# That of .venv where it is another CUDA's, which older GPUs and drivers need, and else the one for everybody.
lock_of_environment() {
    local name=""
    read -r name 2>/dev/null < "$of" || true
    printf '%s' "$here/requirements/${name:-run.lock}"
}

make_environment() {
    local began=$SECONDS log=$here/.venv/set-up.log base=$1 lock info count=0 before
    shift
    before=$(lock_of_environment)
    printf 'unfinished\n' > "$mark" || fail "$mark cannot be written"
    python=$here/.venv/bin/python
    # A killed pip leaves packages of which it has the name and version and not all files: it would call them installed
    for info in "$here"/.venv/lib/python3*/site-packages/*.dist-info; do
        [[ -e $info/INSTALLER ]] || rm -rf "$info" || fail "$info is unfinished and cannot be removed, for the reason above"
    done
    # Nor into one of another CUDA: both have their libraries in the same folders, and pip leaves what the other's had there
    if [[ ${1##*/} != "${before##*/}" ]] || ! fits "$python" || ! { has_pip "$python" || has_pip "$base"; }; then
        make_empty_one "$base" || fail "no environment could be made in $here/.venv, for the reason above"
    fi
    printf '%s\n' "${1##*/}" > "$of" || fail "$of cannot be written"
    for lock in "$@"; do count=$((count + $(grep -c '==' "$lock"))); done
    printf 'set-up: installing %d packages into .venv (about 7 GB with CUDA; minutes, once)\n' "$count"
    local pip=("$python" -m pip)
    has_pip "$python" || pip=("$base" -m pip --python "$python")
    local requirements=()
    for lock in "$@"; do requirements+=(-r "$lock"); done
    if ! "${pip[@]}" install --disable-pip-version-check --require-hashes --progress-bar off "${requirements[@]}" 2>&1 |
        tee "$log" | show_progress "$count" "$began"; then
        grep -E '^(ERROR|error)' "$log" >&2 || tail -n 5 "$log" >&2
        fail "set-up did not finish; all of pip's output is in $log. Run again to go on where it stopped"
    fi
    : > "$mark"
    printf 'set-up: done in %d s\n' "$((SECONDS - began))"
}

make_empty_one() {
    local how=()
    if ! "$1" -c 'import ensurepip' 2>/dev/null; then
        has_pip "$1" || fail "$("$1" --version) has neither ensurepip nor pip; on Debian and Ubuntu: apt-get install python3-venv"
        how=(--without-pip)
    fi
    find "$here/.venv/" -mindepth 1 -maxdepth 1 ! -name "${mark##*/}" -exec rm -rf {} + || return # as venv --clear would, but the lock
    "$1" -m venv "${how[@]}" "$here/.venv"
}

has_pip() { "$1" -c 'from importlib.metadata import version; version("pip")' 2>/dev/null; }

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

# ruptures has no release for 3.14 (1.1.10, its newest, wants an older Python)
fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }

find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11 python; do
        if fits "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    set -euo pipefail
    [[ $# != 0 ]] || fail "which lock files? bash requirements/set_up.sh requirements/run.lock"
    set_up "$@"
    printf 'set-up: %s has all of it\n' "$python"
fi
