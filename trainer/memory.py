"""Check the free memory before work that takes much of it, and give back what is freed."""

from __future__ import annotations

import ctypes
from contextlib import suppress

from contract.errors import UserError
from contract.machine_memory import free_memory_bytes

# glibc's malloc.h; a block from this size on is mapped for itself. Smaller ones cost more time to
# map than they are worth.
_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES = -3, 3 << 20


def give_back_freed_blocks() -> None:
    """Have the C library return each large block to the system when it is freed.

    glibc keeps freed blocks of up to 32 MB, and cannot use the place of one that was aligned, as
    torch's all are, for another of the same size (`_int_memalign` asks for more). A training of
    1.7 GB of activations held 4.8 GB after two updates and grew on; so it holds 2.6 GB. Mapping
    smaller blocks as well, from 1 MB on, took 36 to 46 % more CPU time. From 4 MB on, a training of
    24 layers whose keys and values are 3.1 MB each held 0.5 GB more. Other C libraries do it
    anyway, or have no such setting.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)


def give_back_free_pages() -> None:
    """Have the C library return whole free pages between smaller blocks to the system.

    Micro-batches of ever other lengths leave ever other holes, in which the next ones do not fit:
    what a training holds grows from update to update.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def check_memory(doing: str, needed_bytes: int) -> None:
    """Check that there is memory for what is to be done; `doing` begins the sentence.

    Raises:
        UserError: there is not enough.
    """
    free_bytes = free_memory_bytes()
    if free_bytes is not None and free_bytes < needed_bytes:
        raise UserError.one(
            "memory",
            f"{doing} needs {needed_bytes / 1e9:.1f} GB, but {free_bytes / 1e9:.1f} GB are free",
            "Close other programs, raise --memory, or add swap.",
        )
