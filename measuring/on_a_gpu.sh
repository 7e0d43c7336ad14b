#!/usr/bin/env bash
# What a GPU that is lent for a quarter of an hour is to be asked, the most important first. From the checkout:
#
#   DATA=/data/coco2017 PYTHON=.venv/bin/python ./measuring/on_a_gpu.sh [CONFIGURATION [PART...]]
#
#   correct      180 s   kernels compiled, losses against recorded ones, what training reads, phases, the session
#   end_to_end   300 s   the run itself, then the step with and without each part of compute.fused that is not judged yet
#   turns        240 s   each choice end to end, in turns
#   parts        240 s   the step, constants of the kernels in turns, an evaluation, the kernels' table, all of cuDNN's plans
#   tests        240 s   every test of a GPU
#
# Without PART all of them, in this order. Each has a limit of its own, prints its figures as they come, and leaves them in OUT
# (default out/gpu), so that one that fails or takes too long keeps no other from being measured. Nothing is downloaded and
# nothing installed. What is compiled is kept in the user's cache: a second part does not compile again.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

configuration=${1:-H100_1x1x256}
shift $(($# > 0))
asked=${*:-correct end_to_end turns parts tests}
python=${PYTHON:-python3}
out=${OUT:-out/gpu}
: "${DATA:?names a folder in COCO form}"
mkdir -p "$out"
failed=0

part() { # name, seconds, command...
    local name=$1 seconds=$2
    shift 2
    [[ " $asked " == *" $name "* ]] || return 0
    printf '\n== %s: at most %s s: %s\n' "$name" "$seconds" "$*"
    timeout --signal=INT --kill-after=20 "$seconds" "$@" 2>&1 | tee "$out/$name.txt" || failed=1
}

measured() { # name, seconds, sections
    part "$1" "$2" "$python" -m measuring.ssd "$configuration" --data-dir "$DATA" --only "$3" --budget "$(($2 - 30))" \
        --rounds 3 --json "$out/$1.json" --chart "$out/$1.png"
}

# several at a time: one after the other they would take three times as long, most of it on the host
tests=("$python" -m pytest -q -p no:cacheprovider -m gpu --numprocesses 6 --dist loadfile)
part correct 180 "${tests[@]}" --durations=10 \
    tests/ssd/test_image_format.py tests/ssd/test_kernels.py::test_the_cases tests/ssd/test_plans.py tests/ssd/test_golden.py \
    tests/ssd/test_phases.py tests/ssd/test_session.py tests/ssd/test_recorded.py tests/detection/test_waiting.py
measured end_to_end 300 end-to-end,fused
measured turns 240 turns
measured parts 240 step,constants,evaluation,kernels,plans
part tests 240 "${tests[@]}" --durations=25 tests
exit $failed
