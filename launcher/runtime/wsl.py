"""Linux inside Windows (WSL): there the NVIDIA driver is Windows's, and none belongs inside.

Every function takes what /proc/version says (`kernel`); where it is None, this machine's is read.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

_VERSION = Path("/proc/version")
# Where WSL mounts Windows's own drives.
_WINDOWS_DRIVE = re.compile(r"/mnt/[a-z](/|$)")
# What makes a driver that was installed, or updated, known inside.
_RESTART = "In a Windows terminal, run wsl --update and wsl --shutdown, then open WSL again."


def wsl_version(kernel: str | None = None) -> int | None:
    """1 or 2 where this is WSL, else None: `4.4.0-19041-Microsoft`, `...-microsoft-standard-WSL2`.

    A container of Docker Desktop for Windows runs on WSL's kernel as well.
    """
    if kernel is None:
        kernel = ""
        with suppress(OSError):
            kernel = _VERSION.read_text(encoding="utf-8", errors="replace")
    if "microsoft" not in kernel.lower():
        return None
    return 2 if "microsoft-standard" in kernel else 1


def driver_remedy(usual: str, kernel: str | None = None) -> str:
    """What to do where the NVIDIA driver is missing or does not respond; `usual` outside of WSL."""
    version = wsl_version(kernel)
    if version == 1:
        return "WSL 1 has no GPU: in a Windows terminal, run wsl --set-version NAME 2 (wsl -l -v)."
    if version == 2:
        return f"Install NVIDIA's driver for Windows, and none inside WSL. {_RESTART}"
    return usual


def on_windows_drive(folder: Path) -> bool:
    """Whether a folder lies on a drive of Windows's, as WSL mounts them."""
    return _WINDOWS_DRIVE.match(str(folder)) is not None
