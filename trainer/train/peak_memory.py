"""The most memory that this process held since it was last asked, on the device that trains."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")
# Resets the peak of the resident set (Linux, Documentation/filesystems/proc.rst).
_RESET_PEAK = "5"
_KB = 1024


class PeakMemory:
    """On a card, what torch's allocator holds, and CUDA's context; on a CPU, the resident set.

    Memory that was freed and not given back counts: nobody else can have it.

    Args:
        device: the recipe's.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"

    def restart(self) -> None:
        """Forget the peak so far."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            # Elsewhere than on Linux the peak stays that of the whole process.
            with suppress(OSError):
                (_PROCESS / "clear_refs").write_text(_RESET_PEAK)

    def bytes(self) -> int:
        """The peak since the last restart."""
        if self._cuda:
            return int(torch.cuda.max_memory_reserved()) + self._context_bytes()
        with suppress(OSError):
            for line in (_PROCESS / "status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * _KB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KB

    def _context_bytes(self) -> int:
        # What else the driver counts, less what other programs had: those are not told apart, so
        # that on a card that draws a screen as well this is what is really needed beside them.
        free, total = torch.cuda.mem_get_info()
        return max(int(total - free - torch.cuda.memory_reserved()), 0)
