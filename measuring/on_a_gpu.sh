#!/usr/bin/env bash
# What a GPU that is lent for a quarter of an hour is to be asked, the most important first. From the checkout:
#
#   DATA=/data/coco2017 PYTHON=.venv/bin/python ./measuring/on_a_gpu.sh [CONFIGURATION]
#
# Each part has a limit of its own, prints its figures as they come, and leaves them in OUT (default out/gpu), so that a part that
# fails or takes too long keeps no other from being measured. Nothing is downloaded and nothing installed. Kernels that are
# compiled are kept in the user's cache: a second part does not compile again.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

configuration=${1:-H100_1x1x256}
python=${PYTHON:-python3}
out=${OUT:-out/gpu}
: "${DATA:?names a folder in COCO form}"
mkdir -p "$out"
failed=0

part() { # name, seconds, command...
    local name=$1 seconds=$2
    shift 2
    printf '\n== %s: at most %s s: %s\n' "$name" "$seconds" "$*"
    timeout --signal=INT --kill-after=20 "$seconds" "$@" 2>&1 | tee "$out/$name.txt" || failed=1
}

measured() { # name, seconds, sections
    part "$1" "$(($2 + 30))" "$python" -m measuring.ssd "$configuration" --data-dir "$DATA" --only "$3" --budget "$2" \
        --rounds 3 --json "$out/$1.json" --chart "$out/$1.png"
}

# 1. whether it is right: kernels compiled, losses against recorded ones, phases, the session, what training reads
part correct 150 "$python" -m pytest -q -p no:cacheprovider -m gpu --durations=10 \
    "tests/ssd/test_kernels.py::test_the_cases" tests/ssd/test_golden.py tests/ssd/test_phases.py tests/ssd/test_image_format.py \
    tests/ssd/test_session.py
# 2. end to end, then its choices in turns
measured end_to_end 270 end-to-end,turns
# 3. its parts
measured parts 210 step,constants,evaluation,kernels,plans
# 4. what is left of the tests, as far as time is
part tests 240 "$python" -m pytest -q -p no:cacheprovider -m gpu --durations=25 tests
exit $failed
