"""Check the free memory before work that takes much of it."""

from __future__ import annotations

from pathlib import Path

from contract.errors import UserError


def check_memory(doing: str, needed_bytes: int) -> None:
    """Check that there is memory for what is to be done; `doing` begins the sentence.

    Raises:
        UserError: there is not enough.
    """
    free_bytes = _free_memory_bytes()
    if free_bytes is not None and free_bytes < needed_bytes:
        raise UserError.one(
            "memory",
            f"{doing} needs {needed_bytes / 1e9:.1f} GB, but {free_bytes / 1e9:.1f} GB are free",
            "Close other programs, raise --memory, or add swap.",
        )


def _free_memory_bytes() -> int | None:
    """What the machine has left, or the container within its limit where that is less."""
    path = Path("/proc/meminfo")
    if not path.exists():
        return None
    fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
    free_bytes = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if used.exists() and limit.exists() and limit.read_text().strip().isdigit():
        free_bytes = min(free_bytes, int(limit.read_text()) - int(used.read_text()))
    return free_bytes
