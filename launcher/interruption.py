"""What a signal does to the launcher: stop in good order, then kill, then leave.

The first of SIGINT, SIGTERM and SIGHUP raises KeyboardInterrupt, and none after it raises
anything: no cleanup is ever cut short by an exception. A second Ctrl-C kills at once what still
runs, so that whoever waits for it goes on with the cleanup; a third leaves without one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from contract.errors import ExitCode

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STANDARD_STREAMS = (0, 1, 2)


@dataclass
class _State:
    stopping: bool = False
    killing: bool = False
    deferring: int = 0
    deferred: bool = False
    terminals: tuple[int, ...] = ()
    kills: list[Callable[[], None]] = field(default_factory=list)


_state = _State()


@contextmanager
def signals_handled() -> Iterator[None]:
    """Treat signals as described above, for as long as the block lasts.

    One that is ignored stays ignored: nohup and background jobs ask for that.
    """
    _state.stopping = _state.killing = _state.deferred = False
    # After the terminal has hung up, it cannot be told any more that they were one.
    _state.terminals = tuple(number for number in _STANDARD_STREAMS if os.isatty(number))
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _on_signal) for number in heard}
    try:
        yield
    finally:
        # A process that is to stop goes on hearing that it is to hurry: it is not gone yet.
        if not _state.stopping:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Let the first signal wait for the end of the block.

    For what must be known by its name before it can be cleaned up: a process or a container that
    is being started.
    """
    _state.deferring += 1
    try:
        yield
    finally:
        _state.deferring -= 1
        if _state.deferred and not _state.deferring:
            _state.deferred = False
            raise KeyboardInterrupt


class CtrlC(KeyboardInterrupt):
    """Ctrl-C in a block of `ctrl_c_ends_block`."""


@contextmanager
def ctrl_c_ignored() -> Iterator[None]:
    """Let Ctrl-C do nothing but in blocks of `ctrl_c_ends_block`: in a dialogue, a person presses
    it once more than was needed. Other signals stop the command as ever.
    """
    with _on_ctrl_c(lambda _number, _frame: None):
        yield


@contextmanager
def ctrl_c_ends_block() -> Iterator[None]:
    """Let Ctrl-C raise `CtrlC`, as often as it comes, and not stop the command: for an answer that
    a person waits for, after which the next one is asked for.
    """
    with _on_ctrl_c(_raise):
        yield


@contextmanager
def _on_ctrl_c(handler: Callable[[int, object], None]) -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    # nohup and background jobs ask for that.
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def killed_at_once(kill: Callable[[], None]) -> Iterator[None]:
    """Say how to kill what runs in the block, where somebody will not wait for its good order.

    `kill` is called between any two steps of the main thread, and must take no lock of it.
    """
    _state.kills.append(kill)
    try:
        yield
    finally:
        _state.kills.remove(kill)


def _raise(_number: int, _frame: object) -> None:
    raise CtrlC


def _on_signal(number: int, _frame: object) -> None:
    if number == signal.SIGHUP:
        _leave_terminals()
    if not _state.stopping:
        _state.stopping = True
        if number != signal.SIGINT:
            _say(f"received {signal.Signals(number).name}, stopping")
        if _state.deferring:
            _state.deferred = True
            return
        raise KeyboardInterrupt
    # A system that shuts down, or a shell that ends, sends more than one: only a person insists.
    if number != signal.SIGINT:
        return
    leaving, _state.killing = _state.killing, True
    if not leaving:
        _say("killing what still runs; Ctrl-C once more leaves without cleaning up")
    _kill()
    if leaving:
        os._exit(ExitCode.INTERRUPTED)


def _kill() -> None:
    for kill in list(_state.kills):
        # Whatever it is that fails here, the others are to be killed as well.
        with suppress(Exception):
            kill()


def _leave_terminals() -> None:
    # To write to a terminal that is closed fails, in the middle of whatever wanted to be said.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in _state.terminals:
        os.dup2(nowhere, number)
    os.close(nowhere)
    _state.terminals = ()


def _say(text: str) -> None:
    # Not by `print`: the main thread may be in the middle of one.
    with suppress(OSError):
        os.write(2, f"affineur: {text}\n".encode())
