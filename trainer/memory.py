"""What memory is left, asked before work that takes much of it."""

from __future__ import annotations

from pathlib import Path

from contract.errors import UserError


def check_memory(doing: str, needed_bytes: int) -> None:
    """See that there is memory for what is to be done.

    Raises:
        UserError: there is not; `doing` begins the sentence.
    """
    free = _free_memory_bytes()
    if free is not None and free < needed_bytes:
        raise UserError.one(
            "memory",
            f"{doing} takes {needed_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            "Close what else is running, give it more (--memory), or add swap.",
        )


def _free_memory_bytes() -> int | None:
    """What the machine, or the container's bound where that is less, has left."""
    path = Path("/proc/meminfo")
    if not path.exists():
        return None
    fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    bound, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if used.exists() and bound.exists() and bound.read_text().strip().isdigit():
        free = min(free, int(bound.read_text()) - int(used.read_text()))
    return free
