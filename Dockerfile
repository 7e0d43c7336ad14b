# The benchmark in one image:
#
#   docker build -t ssd .
#   mkdir -p out; docker run --rm --init --network none --user "$(id -u):$(id -g)" -v "$PWD/out:/results" ssd
#                                                                                  # the embedded job, without a GPU; its log in out/
#   docker run --rm --init --network none --gpus all ssd python -m harness doctor  # what this machine is, what to fix
#
# For what, the build argument ACCELERATOR says (requirements/README.md: the lock files):
#
#   cuda13   the default: NVIDIA's GPUs from Turing on, drivers from 580 on; and any processor
#   cuda12   Volta too (V100), drivers from 525 on: torch 2.7.1 and DALI of CUDA 12
#   cpu      the wheels of cuda13, since PyPI has no others of torch for x86-64, in an image that asks for no driver
#   rocm, vendor   BASE_IMAGE brings Python 3.11 to 3.13 with torch and torchvision of the maker's own, over which nothing of torch is
#                  installed:  docker build --build-arg ACCELERATOR=rocm --build-arg BASE_IMAGE=rocm/pytorch@sha256:... -t ssd-rocm .
#
# Pinned: Debian by digest, its packages by snapshot, Python's wheels (CUDA 13.0, cuDNN, NCCL, DALI, torch) by hash.
# Not pinned, because no image can: the host's kernel driver. It is required (NVIDIA_REQUIRE_CUDA), compared with
# harness/system/nvidia/drivers.toml before every run, and written into every log. The image has no libcuda of its own: wheels
# bring none, and there is no compat package, so that the user-mode driver is the host's too.
#
# A site's own sources leave no trace in the image (docker/install-*.sh): build arguments PIP_INDEX_URL and
# PIP_EXTRA_INDEX_URL, secrets pip_conf, ca_bundle and apt_sources. BASE_IMAGE may be another Debian 12.
#
# Any BuildKit builds it: Docker 23 and later, and 20.10 with DOCKER_BUILDKIT=1. There is no "syntax" line, so that no
# frontend is fetched. The build argument GIT_COMMIT puts the commit into a label; without it, git in the build context is
# asked, and the answer is in image.json, from which every log has it.

# The tag bookworm-slim of 2026-08-04, by the record of docker-library/repo-info (repos/debian/remote/bookworm-slim.md)
ARG BASE_IMAGE=debian:bookworm-20260803-slim@sha256:abd67ffcfa541b485a3dff59865ab629aa048a6c613e639d36e7456b0b229241
ARG ACCELERATOR=cuda13
# Of requirements/*.lock; the build stops where one is another
ARG CUDA12_LOCK_SHA256=e081f9632c7e6b9508ecc305d48bae3d5a89182e6852872b3f771400f279fb78
ARG VENDOR_LOCK_SHA256=838aa87181395b72a594c98f26d67be7a26565a8fc02e8f99bd64fb57cfc97d3
ARG RUN_LOCK_SHA256=8636156efdb64b2fedde6faba1ca5cbd7127ee2c37b5f4aa910bb41fe28aff5a


# What runs: Python, and what torch.compile needs, which every NVIDIA configuration uses. Triton compiles its driver's module
# with gcc and Python's headers on the machine it runs on; Inductor compiles with g++ what stays on the CPU, and calls
# openssl for a checksum.
FROM ${BASE_IMAGE} AS debian
RUN --mount=type=bind,source=docker/install-packages.sh,target=/tmp/install-packages.sh \
    --mount=type=secret,id=apt_sources --mount=type=secret,id=ca_bundle \
    /tmp/install-packages.sh python3 libpython3-dev gcc g++ openssl


FROM ${BASE_IMAGE} AS tools
RUN --mount=type=bind,source=docker/install-packages.sh,target=/tmp/install-packages.sh \
    --mount=type=secret,id=apt_sources --mount=type=secret,id=ca_bundle \
    /tmp/install-packages.sh python3-venv python3-pip ca-certificates git


# A stage for each lock file. A maker's torch is known to the maker's own Python alone
FROM tools AS run-wheels
ARG RUN_LOCK_SHA256
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN --mount=type=bind,source=docker/install-wheels.sh,target=/tmp/install-wheels.sh \
    --mount=type=bind,source=requirements/run.lock,target=/tmp/run.lock \
    --mount=type=secret,id=pip_conf --mount=type=secret,id=ca_bundle \
    /tmp/install-wheels.sh /tmp/run.lock RUN_LOCK_SHA256 "$RUN_LOCK_SHA256"

FROM tools AS cuda12-wheels
ARG CUDA12_LOCK_SHA256
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN --mount=type=bind,source=docker/install-wheels.sh,target=/tmp/install-wheels.sh \
    --mount=type=bind,source=requirements/cuda12.lock,target=/tmp/cuda12.lock \
    --mount=type=secret,id=pip_conf --mount=type=secret,id=ca_bundle \
    /tmp/install-wheels.sh /tmp/cuda12.lock CUDA12_LOCK_SHA256 "$CUDA12_LOCK_SHA256"

FROM ${BASE_IMAGE} AS vendor-wheels
ARG VENDOR_LOCK_SHA256
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN --mount=type=bind,source=docker/install-wheels.sh,target=/tmp/install-wheels.sh \
    --mount=type=bind,source=requirements/vendor.lock,target=/tmp/vendor.lock \
    --mount=type=secret,id=pip_conf --mount=type=secret,id=ca_bundle \
    /tmp/install-wheels.sh /tmp/vendor.lock VENDOR_LOCK_SHA256 "$VENDOR_LOCK_SHA256"


# The layer of 7 GB comes before what an image says of itself, so that images of one lock file share it
FROM debian AS run-venv
COPY --from=run-wheels /opt/venv /opt/venv

FROM debian AS cuda12-venv
COPY --from=cuda12-wheels /opt/venv /opt/venv

FROM ${BASE_IMAGE} AS vendor-venv
COPY --from=vendor-wheels /opt/venv /opt/venv


# Without "video" the driver's JPEG decoder stays hidden (NVIDIA/nvImageCodec, 26)
FROM run-venv AS cuda13
ARG RUN_LOCK_SHA256
ENV HARNESS_IMAGE_LOCK=run.lock \
    HARNESS_IMAGE_LOCK_SHA256=$RUN_LOCK_SHA256 \
    HARNESS_IMAGE_VERSIONS="torch=2.14.1 cuda=13.0 cudnn=9.24.0.43 nccl=2.30.7 dali=2.4.0 triton=3.8.0" \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    NVIDIA_REQUIRE_CUDA="cuda>=13.0"

FROM cuda12-venv AS cuda12
ARG CUDA12_LOCK_SHA256
ENV HARNESS_IMAGE_LOCK=cuda12.lock \
    HARNESS_IMAGE_LOCK_SHA256=$CUDA12_LOCK_SHA256 \
    HARNESS_IMAGE_VERSIONS="torch=2.7.1 cuda=12.6 cudnn=9.5.1.17 nccl=2.26.2 dali=2.4.0 triton=3.3.1" \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    NVIDIA_REQUIRE_CUDA="cuda>=12.0"

FROM run-venv AS cpu
ARG RUN_LOCK_SHA256
ENV HARNESS_IMAGE_LOCK=run.lock \
    HARNESS_IMAGE_LOCK_SHA256=$RUN_LOCK_SHA256 \
    HARNESS_IMAGE_VERSIONS="torch=2.14.1 dali=2.4.0"

FROM vendor-venv AS vendor
ARG VENDOR_LOCK_SHA256
ENV HARNESS_IMAGE_LOCK=vendor.lock \
    HARNESS_IMAGE_LOCK_SHA256=$VENDOR_LOCK_SHA256 \
    HARNESS_IMAGE_VERSIONS="torch=of-the-base-image"

FROM vendor AS rocm


FROM tools AS commit
ARG GIT_COMMIT
RUN --mount=type=bind,target=/context sh /context/docker/commit.sh /context "$GIT_COMMIT" > /commit.json


# hadolint ignore=DL3006
FROM ${ACCELERATOR}
# HOME and USER: whatever user the container is given, with an entry in passwd or without one, has a place to write its
# caches, and torch finds a name for it.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    USER=harness \
    LOGDIR=/results \
    PYTHONUNBUFFERED=1
# /cache: what a run keeps for the next one (compiled kernels, the check of a data set), as a volume: docker run -v ssd-cache:/cache
RUN { getent passwd 1000 || useradd --uid 1000 --no-create-home --home-dir /tmp harness; } \
    && install --directory --mode 1777 /results \
    && install --directory --owner 1000 --group 1000 --mode 700 /cache
WORKDIR /opt/harness
CMD ["./run_and_time.sh"]

# What changes with the code comes last
COPY run_and_time.sh pyproject.toml LICENSE ./
COPY requirements requirements
COPY docker docker
COPY configs configs
COPY harness harness
COPY benchmarks benchmarks
COPY measuring measuring
ARG BASE_IMAGE
ARG GIT_COMMIT
# What is installed is this image's run.lock: run_and_time.sh compares the two and installs nothing
RUN --mount=type=bind,from=commit,source=/commit.json,target=/tmp/commit.json \
    if [ "$HARNESS_IMAGE_LOCK" != run.lock ]; then cp "requirements/$HARNESS_IMAGE_LOCK" requirements/run.lock; fi \
    && python docker/image_record.py . /tmp/commit.json "$BASE_IMAGE" requirements/run.lock \
    && python -m compileall -q --invalidation-mode unchecked-hash harness benchmarks measuring
ENV HARNESS_IMAGE_COMMIT="${GIT_COMMIT:-see /opt/harness/image.json}"
LABEL org.opencontainers.image.title="ssd" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$HARNESS_IMAGE_COMMIT" \
      org.opencontainers.image.base.name=$BASE_IMAGE \
      harness.lock-sha256=$HARNESS_IMAGE_LOCK_SHA256 \
      harness.versions="$HARNESS_IMAGE_VERSIONS"
USER 1000:1000
