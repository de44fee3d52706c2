"""How often the kernel has killed for lack of memory: the evidence that a SIGKILL was its own.

Linux counts them in each control group, and on the whole machine. Nothing here is specific to an
engine, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Replaced by tests, which cannot have the kernel kill something at the right moment.
_PROC, _CONTROL_GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def oom_kills() -> int:
    """How many processes were killed so far in this process's control group, in which those that it
    starts are as well; on the whole machine where the group has no count; 0 where nothing is
    counted (a system that is not Linux).

    The kernel counts before it kills: whoever has seen the end of a process sees the count.
    """
    for counter in (*_of_control_group(), _PROC / "vmstat"):
        with suppress(OSError, ValueError, KeyError):
            return _counts(counter)["oom_kill"]
    return 0


def _of_control_group() -> Iterator[Path]:
    """Where the count may be, from this process's group upwards: in a container the way to the
    group is that of the machine, and the group itself lies at the top.
    """
    with suppress(OSError):
        lines = (_PROC / "self" / "cgroup").read_text().splitlines()
        # Version 1 has a hierarchy for memory, where that is not left to version 2.
        for controller, top, name in (
            ("memory", _CONTROL_GROUPS / "memory", "memory.oom_control"),
            ("", _CONTROL_GROUPS, "memory.events"),
        ):
            for line in lines:
                _, controllers, path = line.split(":", 2)
                if controller in controllers.split(","):
                    group = Path(path.lstrip("/"))
                    yield from (top / part / name for part in (group, *group.parents))


def _counts(path: Path) -> dict[str, int]:
    """`oom_kill 3`, a line for each count."""
    fields = [line.split() for line in path.read_text().splitlines()]
    return {name: int(value) for name, value in fields}
