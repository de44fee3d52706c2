"""What a child process may know of the environment that we run in: names, by what it is for.

No child is given the whole environment: a token for one of them is nobody else's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum, auto

_EVERYWHERE = ("PATH", "HOME", "TMPDIR")
_PERSON = ("USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
# Files of certificates that a company's proxy signs with.
CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXIES = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
_NETWORK = (*PROXIES, *CERTIFICATES, "SSL_CERT_DIR")
_GPU = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
# How many threads there are and how they wait: without it, two busy cores come to a halt.
_THREADS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "LLAMA_ARG_THREADS")


class Purpose(Enum):
    """What a child process is for."""

    STAGE = auto()
    NETWORK_STAGE = auto()
    PACKAGES = auto()
    DOCKER = auto()
    LLAMA_CPP = auto()
    GPU_QUERY = auto()
    TRACKING = auto()


# The names that each may see besides those above.
_NAMES: Mapping[Purpose, tuple[str, ...]] = {
    Purpose.STAGE: (*_PERSON, *_GPU),
    Purpose.NETWORK_STAGE: (*_PERSON, *_GPU, *_NETWORK, "HF_ENDPOINT"),
    Purpose.PACKAGES: (*_PERSON, *_NETWORK, "NETRC", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"),
    # An engine may be reached by ssh.
    Purpose.DOCKER: (
        *_PERSON,
        *_NETWORK,
        "SSH_AUTH_SOCK",
        "XDG_RUNTIME_DIR",
        "XDG_CONFIG_HOME",
    ),
    Purpose.LLAMA_CPP: (*_PERSON, *_THREADS),
    Purpose.GPU_QUERY: (*_PERSON, *_GPU),
    # Of these two, a server's credentials are among their own settings.
    Purpose.TRACKING: (*_PERSON, *_NETWORK),
}
# Settings of the programs' own: indexes and credentials for them, caches, engines, builders.
_BEGINNINGS: Mapping[Purpose, tuple[str, ...]] = {
    Purpose.PACKAGES: ("UV_", "PIP_"),
    Purpose.DOCKER: ("DOCKER_", "BUILDX_", "BUILDKIT_"),
    Purpose.TRACKING: ("MLFLOW_", "WANDB_"),
}


def child_environment(purpose: Purpose, **more: str) -> dict[str, str]:
    """The environment of a child process: what of ours is for this purpose, and what is given."""
    names = {*_EVERYWHERE, *_NAMES[purpose]}
    beginnings = _BEGINNINGS.get(purpose, ())
    named = {
        name: value
        for name, value in os.environ.items()
        if name in names or name.startswith(beginnings)
    }
    return {**named, **more}
