"""A stop that waits for a good moment."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class StopRequest:
    """Whether somebody asked for a stop."""

    made: bool = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note a Ctrl-C, a SIGTERM or a closed terminal instead of raising, while the block lasts.

    transformers' `enable_jit_checkpoint` waits for three seconds, and then saves before the
    optimizer's step: the random numbers of that step's batches are spent, and the training that
    goes on is another one.

    Whoever does not want to wait kills the process, as the launcher does at a second Ctrl-C.
    """
    request = StopRequest()

    def handle(_signal: int, _frame: object) -> None:
        request.made = True

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
