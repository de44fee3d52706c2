"""A stop that waits for a good moment: the first signal asks, the second one interrupts."""

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

    Raises:
        KeyboardInterrupt: at the second signal.
    """
    request = StopRequest()

    def handle(_signal: int, _frame: object) -> None:
        if request.made:
            raise KeyboardInterrupt
        request.made = True

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
