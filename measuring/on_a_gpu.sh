#!/usr/bin/env bash
# What a GPU that is lent for a quarter of an hour is to be asked, the most important first. From the checkout:
#
#   DATA=/data/coco2017 PYTHON=.venv/bin/python ./measuring/on_a_gpu.sh [CONFIGURATION [PART...]]
#
#   correct      120 s   does anybody wait for the whole device, are lent batches whole when they are read, losses against recorded
#                        ones, the recorded step, cuDNN's plans
#   turns        280 s   each choice end to end, in turns, all of them together the last, once its gradients are the configuration's
#   end_to_end   140 s   the run itself
#   fused        240 s   the step with and without each part of compute.fused that is not judged yet
#   kernels      150 s   ours, compiled, against float64
#   parts        240 s   the step, an evaluation, the kernels' table, constants of the kernels in turns, all of cuDNN's plans
#   tests        240 s   every test of a GPU
#
# Without PART all of them, in this order. Each has a limit of its own, prints its figures as they come, and leaves them in OUT
# (default out/gpu), so that one that fails or takes too long keeps no other from being measured. Nothing is downloaded and
# nothing installed. What is compiled is kept in the user's cache: a second part does not compile again. The first four take
# 13 minutes at most.
set -uo pipefail
script=$(readlink -f -- "${BASH_SOURCE[0]}")
cd "${script%/*}/.." || exit 2

configuration=${1:-H100_1x1x256}
shift $(($# > 0))
asked=${*:-correct turns end_to_end fused kernels parts tests}
python=${PYTHON:-python3}
out=${OUT:-out/gpu}
: "${DATA:?names a folder in COCO form}"
mkdir -p "$out"
failed=0

# without its graphs tests of them skip, and what is measured beside them is not what is asked
"$python" -c 'import cudnn, nvidia.dali, torch; print(
    f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, its graphs {cudnn.backend_version()}, "
    f"DALI {nvidia.dali.__version__}, {torch.cuda.get_device_name()}")' || {
    echo "error: $python lacks what a GPU is measured with: torch, nvidia-dali, nvidia-cudnn-frontend (requirements/run.lock), a GPU" >&2
    exit 2
}

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

# several at a time: one after the other they would take three times as long, most of it on the host. The plans of their small
# graphs are not to be among those that are measured
compiled=$(mktemp -d)
trap 'rm -rf "$compiled"' EXIT
tests=(env "TORCHINDUCTOR_CACHE_DIR=$compiled" "$python" -m pytest -q -p no:cacheprovider)
part correct 120 "${tests[@]}" -m gpu --numprocesses 8 --dist load --durations=10 \
    tests/detection/test_waiting.py tests/ssd/test_image_format.py tests/ssd/test_recorded.py tests/ssd/test_golden.py tests/ssd/test_plans.py
measured turns 280 turns
measured end_to_end 140 end-to-end
measured fused 240 fused
part kernels 150 "${tests[@]}" --numprocesses 12 --dist load --durations=10 \
    tests/ssd/norm_cases.py tests/ssd/convolution_cases.py tests/ssd/loss_cases.py
measured parts 240 step,evaluation,kernels,constants,plans
part tests 240 "${tests[@]}" -m gpu --numprocesses 6 --dist loadfile --durations=25 tests
exit $failed
