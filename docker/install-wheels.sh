#!/bin/sh
# While the image is built: makes /opt/venv out of the lock file and nothing else.  install-wheels.sh LOCK NAME SHA256
# NAME is the Dockerfile's argument that says the lock file's hash. Of vendor.lock, which has no torch, the environment sees the
# packages of the Python that is here too, and torch and torchvision must be among them.
# A site's own package index: build arguments PIP_INDEX_URL and PIP_EXTRA_INDEX_URL, or, where it holds a password, a pip.conf
# as the build secret pip_conf; a certificate authority of its own: the build secret ca_bundle. This runs in a stage of which
# only /opt/venv is taken over, and pip writes no index into it.
set -eu

lock=$1
if [ "$(uname -m)" != x86_64 ]; then
    echo "The lock file is for x86-64, and this builds for $(uname -m): docker build --platform linux/amd64 -t ssd ." >&2
    exit 1
fi
if ! echo "$3  $lock" | sha256sum --check --status; then
    echo "requirements/${lock##*/} is not the file that the Dockerfile names. After a change on purpose, set there" >&2
    echo "ARG $2=$(sha256sum < "$lock" | cut -d ' ' -f 1), and the versions in its labels." >&2
    exit 1
fi
if [ -f /run/secrets/pip_conf ]; then export PIP_CONFIG_FILE=/run/secrets/pip_conf; fi
if [ -f /run/secrets/ca_bundle ]; then export PIP_CERT=/run/secrets/ca_bundle; fi
if [ -z "${PIP_INDEX_URL:-}" ]; then unset PIP_INDEX_URL; fi # pip takes an empty one for "no index"
if [ -z "${PIP_EXTRA_INDEX_URL:-}" ]; then unset PIP_EXTRA_INDEX_URL; fi

more=""
if [ "${lock##*/}" = vendor.lock ]; then
    more=--system-site-packages
    if ! python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' ||
        ! python3 -c 'from importlib.metadata import version; version("torch"), version("torchvision")'; then
        echo "ACCELERATOR=vendor and rocm take torch and torchvision from the base image, and this one has none for Python 3.11," >&2
        echo "3.12 or 3.13: name another with --build-arg BASE_IMAGE=..." >&2
        exit 1
    fi
fi
# shellcheck disable=SC2086  # nothing, or one word
python3 -m venv --without-pip $more /opt/venv
python3 -m pip --python /opt/venv/bin/python --disable-pip-version-check install --requirement "$lock" \
    --require-hashes --only-binary :all: --no-deps --no-compile --no-cache-dir --progress-bar off
# Byte code with a hash in place of a time: the same bytes in every build, and never stale where nobody may write. One file of
# torch's tests is for Python 3.12 alone.
/opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/py312_intrinsics\.py$' /opt/venv/lib
