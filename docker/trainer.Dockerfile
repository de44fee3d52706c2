# The trainer's image: Python, one lock's packages, our trainer. Layers from what changes least to
# what changes most. The CUDA libraries come with torch's wheels: no second CUDA underneath.
#
# No `# syntax=` line: it would fetch a build frontend from a registry before the first step.

ARG BASE=python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

FROM ${BASE} AS packages
ARG LOCK
ENV PATH=/opt/venv/bin:$PATH
# uv comes in as a named context, from the host's own lock: nothing is fetched unpinned. `ca` is a
# company's certificates, `wheels` a folder of wheels; both are empty where nobody gives them.
# One date for every file: a layer that is made again is the same layer.
RUN --mount=type=bind,from=uv,target=/uv \
    --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=bind,source=docker/locks,target=/locks \
    --mount=type=secret,id=ca,target=/run/ca.crt,required=false \
    --mount=type=tmpfs,target=/tmp \
    if [ -s /run/ca.crt ]; then export SSL_CERT_FILE=/run/ca.crt; fi; \
    export UV_NO_CACHE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_FIND_LINKS=/wheels; \
    /uv/uv venv --quiet --python python3.11 /opt/venv && \
    /uv/uv pip sync --quiet --require-hashes --python /opt/venv/bin/python "/locks/${LOCK}.lock" && \
    find /opt -depth -exec touch --no-dereference --date=@0 {} +

FROM packages AS trainer
ARG CONTRACT
ARG LOCK
# What an NVIDIA container toolkit looks for, without an nvidia/cuda base.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
LABEL dev.affineur.contract=${CONTRACT} dev.affineur.lock=${LOCK}
WORKDIR /opt/affineur
COPY trainer ./trainer
