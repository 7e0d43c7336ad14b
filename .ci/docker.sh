#!/usr/bin/env bash
# Builds the true image with a true Docker engine, runs some steps of the embedded job in it without a network, and then whatever
# is named:
#   .ci/docker.sh [COMMAND...]       COMMAND finds the engine by DOCKER_HOST and the image's name in IMAGE
# Needs root on a Debian or Ubuntu. Takes an engine that answers; otherwise it installs Docker, starts an engine of its own in
# a folder of its own and takes both away again. The base image is made here with debootstrap, so that no registry is needed.
# PIP_CERT and PIP_INDEX_URL, where set, go into the build as they would on any such site; ACCELERATOR says which image
# (cuda13, cuda12 or cpu: the others need a maker's base image). ALSO="cpu cuda12" builds these too, with a short run in each.
# PRUNE_BUILDS=1 takes the build's cache away between images, of an engine that was there too.
set -euo pipefail

IMAGE=${IMAGE:-ssd-ci}
BASE_IMAGE=${BASE_IMAGE:-}
root=$(readlink -f -- "$0")
root=${root%/.ci/*}
engine="" own_images=()
beside="" # process that builds the other images, beside the command
prebuilt="" # said where they were built so

say() { printf '\n== %s (%ss)\n' "$*" "$SECONDS"; }

take_away() { # the lock last, or what a kill leaves of it would be nobody's for ever
    find "$1" -mindepth 1 -maxdepth 1 ! -name lock -exec rm -rf {} +
    rm -rf "$1"
}

# An engine's data are 10 to 25 GB. Each run holds a lock on its folder while it lives; what nobody holds was left by one that
# was killed, and goes before a full disk ends this one.
take_away_leftovers() {
    local folder lock
    for folder in /var/tmp/ssd-ci.*; do
        [ -e "$folder/lock" ] || continue
        exec {lock}< "$folder/lock"
        if flock --nonblock "$lock"; then
            echo "taking away what a killed run left: $folder"
            take_away "$folder"
        fi
        exec {lock}<&-
    done
}

finish() {
    local status=$?
    trap '' INT TERM
    set +e # with a disk so full that nothing can be said any more, the folder must go all the same
    if [ -n "$beside" ]; then
        kill -STOP "$beside" # or it would begin the next build between these two
        pkill -P "$beside"
        kill -KILL "$beside"
        wait "$beside" 2> /dev/null
    fi
    if [ -n "$engine" ]; then
        kill "$engine" 2> /dev/null
        timeout 60 tail --pid="$engine" --follow /dev/null || kill -KILL "$engine" # one that waits for a build's container
        wait "$engine" 2> /dev/null
    elif [ ${#own_images[@]} -gt 0 ]; then
        docker image rm --force "${own_images[@]}" > /dev/null 2>&1
    fi
    if [ $status -ne 0 ] && [ -f "$work/dockerd.log" ]; then tail -n 20 "$work/dockerd.log" >&2; fi
    take_away "$work"
    exit $status
}

take_away_leftovers
work=$(mktemp -d /var/tmp/ssd-ci.XXXXXX)
trap finish EXIT
exec {held}> "$work/lock" # the engine inherits it: what a living one still uses stays
flock "$held"

# Room for what is built next: an image with CUDA's libraries and its build's cache take 12 to 16 GB.
free_gb() { df --output=avail --block-size=1G "$work" | tail -n 1; }
room_for() {
    local free
    free=$(free_gb)
    [ "$free" -ge "$1" ] || { echo "$2 needs about $1 GB in /var/tmp; $free GB are free" >&2; return 1; }
}

install_if_missing() {
    command -v "$1" > /dev/null && return
    say "installing $2"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=600 "$2" \
        > "$work/apt.log" 2>&1 || { cat "$work/apt.log" >&2; return 1; }
}

start_engine() {
    install_if_missing dockerd docker.io
    # The client of the engine's own package: another one may ask for the buildx plugin
    mkdir "$work/bin" && ln -s /usr/bin/docker "$work/bin/docker" && export PATH="$work/bin:$PATH"
    say "starting a Docker engine"
    # No bridge and no firewall rules: containers here have no network, and the build uses the host's
    dockerd --host "unix://$work/docker.sock" --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" \
        --bridge none --iptables=false --ip6tables=false > "$work/dockerd.log" 2>&1 &
    engine=$!
    export DOCKER_HOST="unix://$work/docker.sock"
    for _ in $(seq 60); do
        docker info > /dev/null 2>&1 && return
        kill -0 "$engine" 2> /dev/null || break
        sleep 1
    done
    echo "the Docker engine did not start" >&2
    return 1
}

make_base() {
    install_if_missing debootstrap debootstrap
    say "making the base image"
    debootstrap --variant=minbase bookworm "$work/base" > "$work/debootstrap.log" 2>&1 || { tail "$work/debootstrap.log" >&2; return 1; }
    tar -C "$work/base" -c . | docker import - "$IMAGE-base" > /dev/null
    rm -rf "$work/base"
    own_images+=("$IMAGE-base")
    BASE_IMAGE=$IMAGE-base
}

site=()
if [ -n "${PIP_CERT:-}" ]; then site+=(--secret "id=ca_bundle,src=$PIP_CERT"); fi

build() { # ACCELERATOR TAG
    local index=()
    if [ -n "${PIP_INDEX_URL:-}" ]; then index+=(--build-arg "PIP_INDEX_URL=$PIP_INDEX_URL"); fi
    DOCKER_BUILDKIT=1 docker build --network host --progress plain --build-arg "BASE_IMAGE=$BASE_IMAGE" "${site[@]}" "${index[@]}" \
        --build-arg "ACCELERATOR=$1" --tag "$2" "$root" > "$work/build.log" 2>&1 || { tail -n 40 "$work/build.log" >&2; return 1; }
}

# The other images' builds, which mostly wait for packages and the disk, beside the command. A build that fails says so, and is
# done again in its turn.
build_beside() {
    local others=()
    read -r -a others <<< "${ALSO:-}"
    [ ${#others[@]} -gt 0 ] && [ "$(free_gb)" -ge $((20 + 10 * ${#others[@]})) ] || return 0
    for each in "${others[@]}"; do own_images+=("$IMAGE-$each"); done
    (for each in "${others[@]}"; do build "$each" "$IMAGE-$each" || echo "the image $each was not built beside the tests" >&2; done) &
    beside=$! prebuilt=yes
}

not_to_the_target() { # CODE of a short run
    [ "$1" -eq 1 ] && return
    echo "it ended with $1 where 1 was due: the steps done, and not to the target" >&2
    return 1
}

# Another image of the same checkout: built, and a few steps of the embedded job in it, by which its own torch has trained.
also() {
    local tag=$IMAGE-$1 code=0 began=$SECONDS
    say "the image $1 too"
    if [ -n "$beside" ]; then
        wait "$beside" || true
        beside=""
    fi
    docker image inspect "$tag" > /dev/null 2>&1 || room_for 20 "the image $1"
    own_images+=("$tag")
    build "$1" "$tag" # from its cache, where that was done beside the command
    say "built in $((SECONDS - began)) s; some steps of the embedded job in it"
    install -d -m 1777 "$work/$1"
    docker run --rm --init --network none --user 12345:12345 --volume "$work/$1:/results" --volume "$work/cache:/cache" "$tag" \
        ./run_and_time.sh embedded --max-steps 20 || code=$?
    not_to_the_target "$code"
    python3 - "$work/$1/result_0.txt" "$root/requirements" "$1" << 'CHECK'
import json, pathlib, re, sys

log, requirements, accelerator = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
events = [json.loads(line[9:]) for line in log.read_text().splitlines() if line.startswith(":::MLLOG")]
value = {event["key"]: event for event in events}
lock = (requirements / ("cuda12.lock" if accelerator == "cuda12" else "run.lock")).read_text()
locked = re.search(r"^torch==(\S+)", lock, re.MULTILINE)[1]
assert value["software"]["value"]["torch"].split("+")[0] == locked, value["software"]
assert value["run_stop"]["metadata"]["reason"].startswith("steps spent: 20"), value["run_stop"]
print(f"{accelerator}: torch {value['software']['value']['torch']}, {value['run_stop']['metadata']['reason']}")
CHECK
    free_room "$tag"
}

# An image's room for the next one. The build's cache is taken away of our own engine, of another only where that is asked for.
free_room() {
    docker image rm --force "$@" > /dev/null
    [ -n "$prebuilt" ] || prune # what was built beside the command is still to be used
}
prune() {
    if [ -n "$engine${PRUNE_BUILDS:-}" ]; then docker builder prune --all --force > /dev/null; fi
}

# A small image by the same Dockerfile, with one wheel, from an index whose address holds a password: none of it may stay.
leaves_no_trace() {
    local small=$work/small lock index context
    mkdir "$small"
    mapfile -t context < <(sed -n 's/^!//p' "$root/.dockerignore" | grep -v '^\.git$') # all that the Dockerfile copies
    (cd "$root" && tar -c Dockerfile .dockerignore "${context[@]}") | tar -x -C "$small"
    lock=$small/requirements/run.lock
    sed -n '/^six==/,/[^\\]$/p' "$root/requirements/run.lock" > "$lock"
    index=$(python3 -c 'from pip._internal.models.index import PyPI; print(PyPI.simple_url)') # pip's own
    printf '[global]\nextra-index-url = %s\n' "${index/:\/\//:\/\/someone:secret-by-file@}" > "$work/pip.conf"
    DOCKER_BUILDKIT=1 docker build --network host --progress plain --build-arg "BASE_IMAGE=$BASE_IMAGE" \
        --build-arg PIP_INDEX_URL="${PIP_INDEX_URL:-${index/:\/\//:\/\/someone:secret-by-argument@}}" \
        --build-arg "RUN_LOCK_SHA256=$(sha256sum "$lock" | cut -d ' ' -f 1)" "${site[@]}" \
        --secret "id=pip_conf,src=$work/pip.conf" --tag "$IMAGE-small" "$small" > "$work/small.log" 2>&1 ||
        { tail -n 40 "$work/small.log" >&2; return 1; }
    own_images+=("$IMAGE-small")
    grep -q 'Looking in indexes: .*, ' "$work/small.log" # of the argument and of the file
    docker save "$IMAGE-small" > "$work/small.tar"
    if { docker history --no-trunc "$IMAGE-small"; cat "$work/small.tar"; } | grep -a -q 'secret-by-\(file\|argument\)'; then
        echo "the index's password is in the image" >&2
        return 1
    fi
    rm "$work/small.tar"
}

docker info > /dev/null 2>&1 || start_engine
[ -n "$BASE_IMAGE" ] || make_base

say "building the image"
room_for 20 "the image"
build "${ACCELERATOR:-cuda13}" "$IMAGE"
own_images+=("$IMAGE")
began=$SECONDS
build "${ACCELERATOR:-cuda13}" "$IMAGE"
say "built; once more with nothing changed: $((SECONDS - began)) s"

say "a site's own package index leaves no trace"
leaves_no_trace

say "doctor, as the image's user and as one without an entry in passwd"
docker run --rm --init --network none "$IMAGE" python -m harness doctor
docker run --rm --init --network none --user 12345:12345 --read-only --tmpfs /tmp --tmpfs /results "$IMAGE" python -m harness doctor --json > "$work/doctor.json"

say "some steps of the embedded job, as a user without an entry in passwd, without a network"
install -d -m 1777 "$work/results"
install -d -m 700 -o 12345 -g 12345 "$work/cache" # the other images' runs take the pictures from there: 20 s each to draw them
# evaluations in the image are tests/harness/launch/test_real_image.py's; the whole way is tests/test_readme.py's, with the same wheels
code=0
docker run --rm --init --network none --user 12345:12345 --volume "$work/results:/results" --volume "$work/cache:/cache" "$IMAGE" \
    ./run_and_time.sh --max-steps 20 || code=$?
not_to_the_target "$code"
python3 - "$work/results" "$work/doctor.json" << 'CHECK'
import json, pathlib, sys

log = pathlib.Path(sys.argv[1], "result_0.txt")
events = [json.loads(line[9:]) for line in log.read_text().splitlines() if line.startswith(":::MLLOG")]
value = {event["key"]: event for event in events}
assert value["run_stop"]["metadata"]["status"] == "aborted", value["run_stop"]
assert value["run_stop"]["metadata"]["reason"].startswith("steps spent: 20"), value["run_stop"]
image, known = value["image"]["value"], json.loads(pathlib.Path(sys.argv[2]).read_text())["image"]
assert image["sbom_sha256"] == known["sbom_sha256"] and image["commit"] != "unknown", image
assert log.stat().st_uid == 12345, log.stat()
print(value["run_stop"]["metadata"]["reason"], "- the log names the image:", image)
CHECK

build_beside
if [ $# -gt 0 ]; then
    say "$*"
    IMAGE=$IMAGE "$@"
fi
if [ -n "${ALSO:-}" ]; then docker image rm --force "$IMAGE" > /dev/null; fi # what was built stays in the cache for the next
for each in ${ALSO:-}; do also "$each"; done
[ -z "$prebuilt" ] || prune
say "done"
