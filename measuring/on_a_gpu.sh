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
#   accuracy     240 s   the losses of 200 steps of 64 pictures in the configuration's precision, with its kernels, and in fp32,
#                        beside the spread between two seeds
#   tests        240 s   every test of a GPU
#
# Without PART all of them, in this order. Each has a limit of its own, prints its figures as they come, and leaves them in OUT
# (default out/gpu), so that one that fails or takes too long keeps no other from being measured. Nothing is downloaded and
# nothing installed. What is compiled is kept in the user's cache: a second part of as many pictures does not compile again. The
# first four take 13 minutes at most.
#
# Exit codes: 0 all well, 1 a part failed or was cut off, 2 usage, 6 no GPU, 130 interrupted.
set -uo pipefail
parts='correct turns end_to_end fused kernels parts accuracy tests'
if [[ ${1-} == -h || ${1-} == --help ]]; then
    sed -n '2,/^$/{/^set /q; s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0
fi

wrong() {
    echo "error: $*" >&2
    exit 2
}

absolute() { # a path as it was typed, before this goes to the checkout
    [[ $1 == /* ]] && echo "$1" || echo "$PWD/$1"
}

configuration=${1:-H100_1x1x256}
[[ -f $configuration ]] && configuration=$(absolute "$configuration")
shift $(($# > 0))
asked=$*
[[ $# == 0 ]] && asked=$parts
[[ -n ${asked//[[:space:]]/} ]] || wrong "no part is named; one or more of $parts"
for each in $asked; do
    [[ " $parts " == *" $each "* ]] || wrong "there is no part $each; one or more of $parts"
done
[[ -n ${DATA-} ]] || wrong 'DATA=FOLDER names a folder in COCO form'
data=$(absolute "$DATA")
python=${PYTHON:-python3}
[[ $python == */* ]] && python=$(absolute "$python")
out=${OUT:+$(absolute "$OUT")}
script=$(readlink -f -- "${BASH_SOURCE[0]}")
cd "${script%/*}/.." || exit 2
out=${out:-out/gpu}
mkdir -p "$out" || exit 2
failed=0

# an error where a part cannot be had; without cuDNN's graphs tests of them skip, and parts of compute.fused by them are left out
"$python" -c 'import importlib, pathlib, sys
if tests := ", ".join(sorted({"correct", "kernels", "tests"} & set(sys.argv[3].split()))):
    try:
        import pytest, pytest_timeout, xdist
    except ImportError as error:
        sys.stderr.write(f"error: {sys.executable} lacks what {tests} run with (requirements/dev.lock): {error}; "
            "install it, or name other parts\n")
        sys.exit(2)
from benchmarks.detection.data_path import nvjpeg
nvjpeg.prefer_installed()  # as each part does, before others bring theirs
try:
    import torch
    from benchmarks.detection import capabilities
    from benchmarks.ssd.benchmark import BENCHMARK
    from harness.contract import Context, NotSuitable
    from harness.execution import lifecycle  # of a run, as end_to_end and parts make some
    from measuring.ssd import command, options, setup
except ImportError as error:
    sys.stderr.write(f"error: {sys.executable} lacks what a GPU is measured with (requirements/run.lock): {error}\n")
    sys.exit(2)
versions = [f"torch {torch.__version__}", f"cuDNN {torch.backends.cudnn.version()}"]
for name, module, version, lost in (
    ("its graphs", "cudnn", "backend_version", "without tests of them and convolutions of compute.fused"),
    ("DALI", "nvidia.dali", "__version__", "without all that is by it"),
    ("matplotlib", "matplotlib", "__version__", "without charts"),
):
    try:
        found = getattr(importlib.import_module(module), version)
        versions.append(f"{name} {found() if callable(found) else found}")
    except ImportError as error:
        versions.append(f"{name}: missing ({error}; requirements/run.lock): {lost}")
if not torch.cuda.is_available():
    sys.stderr.write(f"error: PyTorch finds no CUDA device; why says {sys.executable} -m harness doctor\n")
    sys.exit(6)
here = Context(device="cuda:0")
try:
    asked = ["--only", "accuracy"] if "accuracy" in sys.argv[3].split() else []
    config = command.fitted(options.arguments([sys.argv[1], *asked]), here.device)
    setup.check_folder(config, pathlib.Path(sys.argv[2]))
    if measured := ", ".join(sorted({"turns", "end_to_end", "fused", "parts", "accuracy"} & set(sys.argv[3].split()))):
        BENCHMARK.check(config, here)
except NotSuitable as error:
    sys.stderr.write(f"error: {measured} cannot be measured here: {error}; or name other parts\n")
    sys.exit(2)
except ValueError as error:
    sys.stderr.write(f"error: {error}\n")
    sys.exit(2)
print(*versions, torch.cuda.get_device_name(), sep=", ")
version = ".".join(map(str, nvjpeg.first() or ["none is loaded"]))
print(f"nvJPEG {version}", *(path for path, each in nvjpeg.loaded().items() if each == version))
for name, why in capabilities.settle(config, here).left_out.items():
    print(f"{name} is not as configured: {why}")' "$configuration" "$data" "$asked" ||
    exit $(($? == 6 ? 6 : 2))

# each part is a job with a group of processes of its own, so that all of it ends when its time is over; Ctrl-C, which comes
# to this script alone, is handed on
set -m

# shellcheck disable=SC2329  # by the trap
interrupted() {
    local running
    trap '' INT TERM HUP
    # of bash, not noted by `part`: this may come between a part's beginning and its next line
    running=$(jobs -p)
    [[ -n $running ]] && kill -INT "$running" 2>/dev/null && wait "$running"
    exit 130
}
trap interrupted INT TERM HUP

part() { # name, seconds, command...
    local name=$1 seconds=$2 screen tee tenths
    shift 2
    [[ " $asked " == *" $name "* ]] || return 0
    printf '\n== %s: at most %s s: %s\n' "$name" "$seconds" "$*"
    exec {screen}> >(tee -i "$out/$name.txt")
    tee=$!
    timeout --signal=INT --kill-after=20 "$seconds" "$@" >&"$screen" 2>&1 &
    exec {screen}>&-
    wait $! || failed=1
    # it has written all that there is long before, unless a process that the part left behind holds its output open
    for ((tenths = 0; tenths < 30; tenths++)); do
        kill -0 "$tee" 2>/dev/null || break
        sleep 0.1
    done
    kill "$tee" 2>/dev/null && echo "$name left a process behind, which may still be at work beside what comes next" >&2
    wait "$tee" || failed=1
}

measured() { # name, seconds, sections, options...
    part "$1" "$2" "$python" -m measuring.ssd "$configuration" --data-dir "$data" --only "$3" --budget "$(($2 - 30))" \
        --rounds 3 --json "$out/$1.json" --chart "$out/$1.png" "${@:4}"
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
measured accuracy 240 accuracy --batch-size 64 # in fp32 without compiling, which takes ten times as long
part tests 240 "${tests[@]}" -m gpu --numprocesses 6 --dist loadfile --durations=25 tests
exit $failed
