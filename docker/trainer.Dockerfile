# The trainer's images: Python, one lock's packages, our trainer. Layers from what changes least to
# what changes most. The CUDA libraries come with torch's wheels: no second CUDA underneath.
#
# Every file of our layers bears one date, so that a layer that is made again is the same layer;
# /etc and /run too, where BuildKit puts a step's mounts and some stores keep the trace.
# No `# syntax=` line: it would fetch a build frontend from a registry before the first step.

ARG BASE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

FROM ${BASE} AS packages
ARG LOCK
ENV PATH=/opt/venv/bin:$PATH
# uv comes in as a named context, from the host's own lock: nothing is fetched unpinned. `ca` is a
# company's certificates, `wheels` a folder of wheels to use instead of the index's; both are
# empty where nobody gives them.
#
# A stage cannot write bytecode (its root is read-only, its user is anybody), and without it takes
# twice as long to import torch. So it comes with the image, of the kind that holds no date of its
# source: compiled on purpose (PYC_INVALIDATION_MODE is uv's), never in passing. python:slim has none
# of the standard library's either. What does not compile (a test for a newer Python) stays as it is.
RUN --mount=type=bind,from=uv,target=/uv \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=bind,source=docker/locks,target=/locks \
    --mount=type=secret,id=ca,target=/run/ca.crt,required=false \
    --mount=type=tmpfs,target=/tmp \
    if [ -s /run/ca.crt ]; then export SSL_CERT_FILE=/run/ca.crt; fi; \
    index=''; if [ -n "$(ls /wheels)" ]; then index=--no-index; fi; \
    export UV_CACHE_DIR=/opt/uv-cache UV_LINK_MODE=hardlink UV_FIND_LINKS=/wheels; \
    export PYC_INVALIDATION_MODE=UNCHECKED_HASH PYTHONDONTWRITEBYTECODE=1; \
    python=$(command -v python3.11 || command -v python3.12 || command -v python3.13) || \
    { echo "affineur: the base image has no Python 3.11, 3.12 or 3.13" >&2; exit 1; }; \
    touch /tmp/started && \
    /uv/uv venv --quiet --no-python-downloads --python "$python" /opt/venv && \
    /uv/uv pip sync --quiet $index --require-hashes --no-build --compile-bytecode \
    --python /opt/venv/bin/python "/locks/${LOCK}.lock" && \
    stdlib=$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))') && \
    { /opt/venv/bin/python -m compileall -qq -j 0 --invalidation-mode unchecked-hash \
    -x '/(site|dist)-packages/' "$stdlib" || true; } && \
    find "$stdlib" -depth -newer /tmp/started -exec touch --no-dereference --date=@0 {} + && \
    rm -rf /opt/uv-cache && mkdir /opt/affineur && \
    find /opt -depth -exec touch --no-dereference --date=@0 {} + && touch --date=@0 /etc /run

FROM packages AS trainer
ARG CONTRACT
ARG LOCK
# What an NVIDIA container toolkit looks for, without an nvidia/cuda base.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
LABEL dev.affineur.project=affineur dev.affineur.contract=${CONTRACT} dev.affineur.lock=${LOCK}
WORKDIR /opt/affineur
# Not COPY, which keeps the dates that the files happen to have in this clone.
RUN --mount=type=bind,source=contract,target=/contract \
    --mount=type=bind,source=trainer,target=/trainer \
    cp -R /contract /trainer /opt/affineur/ && \
    python -m compileall -q --invalidation-mode unchecked-hash /opt/affineur && \
    chmod -R u=rwX,go=rX /opt/affineur && \
    find /opt/affineur -depth -exec touch --no-dereference --date=@0 {} + && touch --date=@0 /etc /run

# For the devcontainer: the trainer's packages, the launcher's and the checks' in one environment,
# and what an editor needs. The project itself is mounted.
FROM packages AS dev
ARG GIT=1:2.39.5-0+deb12u3
ARG OPENSSH=1:9.2p1-2+deb12u10
RUN apt-get update --quiet=2 && \
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends \
    git=${GIT} openssh-client=${OPENSSH} >/dev/null && \
    rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/ldconfig/aux-cache
ARG LOCK
# The locks beside the packages say which environment this is (launcher/runtime/environment.py).
RUN --mount=type=bind,from=uv,target=/uv \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=bind,source=docker/locks,target=/locks \
    --mount=type=secret,id=ca,target=/run/ca.crt,required=false \
    --mount=type=tmpfs,target=/tmp \
    if [ -s /run/ca.crt ]; then export SSL_CERT_FILE=/run/ca.crt; fi; \
    index=''; if [ -n "$(ls /wheels)" ]; then index=--no-index; fi; \
    export UV_CACHE_DIR=/opt/uv-cache UV_LINK_MODE=hardlink UV_FIND_LINKS=/wheels; \
    /uv/uv pip install --quiet $index --require-hashes --no-build --python /opt/venv/bin/python \
    -r "/locks/${LOCK}.lock" -r /locks/host.lock -r /locks/check.lock && \
    rm -rf /opt/uv-cache && mkdir /opt/venv/locks && \
    cp "/locks/${LOCK}.lock" /locks/host.lock /locks/check.lock /opt/venv/locks/
ENV AFFINEUR_ENVIRONMENT=/opt/venv \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN useradd --create-home --shell /bin/bash --uid 1000 affineur
USER affineur
