"""The memory of this machine, or of this container within its limit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_MEMINFO = Path("/proc/meminfo")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")


class _Version(NamedTuple):
    """Where a version of control groups has what it counts; a container's own lies at the top."""

    limit: str
    used: str
    counts: str
    reclaimable: str


_VERSIONS = (
    _Version("memory.max", "memory.current", "memory.stat", "inactive_file"),
    _Version(
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def memory_bytes() -> int | None:
    """All of it; None where the system does not say."""
    with suppress(ValueError, OSError, AttributeError):
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return min([whole, *(limit for limit, _ in _limits())])
    return None


def free_memory_bytes() -> int | None:
    """What is left of it; None where the system does not say."""
    with suppress(OSError, KeyError, ValueError):
        fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
        return min([free, *(limit - used for limit, used in _limits())])
    return None


def _limits() -> Iterator[tuple[int, int]]:
    """Each limit, and what counts against it: pages of files that nobody uses give way."""
    for version in _VERSIONS:
        # `max` where there is no limit.
        with suppress(OSError, ValueError):
            limit, used = (int(_read(name)) for name in (version.limit, version.used))
            counts = dict(line.split() for line in _read(version.counts).splitlines())
            yield limit, used - int(counts.get(version.reclaimable, 0))


def _read(name: str) -> str:
    return (_CONTROL_GROUPS / name).read_text()
