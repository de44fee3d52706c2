"""How a stage starts, speaks and ends: flags in, events out, an exit code.

Every `trainer/<stage>/__main__.py` hands its function to `run_stage`, or to
`run_stage_with_secrets` where it needs what its launcher says on standard input alone.
"""

from __future__ import annotations

import math
import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, TextIO

from contract.disk_space import full_disk
from contract.errors import ExitCode, UserError
from contract.events import Event, Failed, MemoryFallback, Metrics, Note, Progress, Result, Started
from contract.launch import LAUNCHED, Launch
from contract.paths import StagePaths
from contract.results.stage_result import StageResult

_PROGRESS_EVERY_S = 0.1
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_READ_BYTES = 4096


class Reporter:
    """Writes a stage's events, one a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last_progress_s = 0.0

    def _emit(self, event: Event) -> None:
        try:
            self._stream.write(event.model_dump_json() + "\n")
            self._stream.flush()
        except BrokenPipeError:
            # Nobody listens any more. What the stage still has to save must not fail by that.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            _stop_this_process()

    def started(self) -> None:
        """Say what the stage runs on."""
        self._emit(Started(python=platform.python_version()))

    def progress(
        self,
        doing: str,
        *,
        done: int,
        total: int,
        unit: str,
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """Say how far the work is; at most ten times a second, and always at the end."""
        now_s = time.monotonic()
        if done < total and now_s - self._last_progress_s < _PROGRESS_EVERY_S:
            return
        self._last_progress_s = now_s
        self._emit(
            Progress(doing=doing, done=done, total=total, unit=unit, figures=dict(figures or {}))
        )

    def progress_callback(self, doing: str, unit: str) -> Callable[[int, int], None]:
        """A function of (done, total) that says how far this work is."""

        def report(done: int, total: int) -> None:
            self.progress(doing, done=done, total=total, unit=unit)

        return report

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Say what was measured up to a step; what is no finite number is left out."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        self._emit(Metrics(step=step, values=finite))

    def note(self, text: str) -> None:
        """Say a line that people should see."""
        self._emit(Note(text=text))

    def memory_fallback(self, fallback: MemoryFallback) -> None:
        """Say what the stage goes on with, should it be killed for lack of memory from here on."""
        self._emit(fallback)

    def result(self, found: StageResult) -> None:
        """Say what the stage found out; once, at its end."""
        self._emit(Result(values=found.model_dump(mode="json")))

    def failed(self, error: UserError) -> None:
        """Say why the stage stops."""
        self._emit(Failed(problems=list(error.problems), more=error.more))


def run_stage(stage: Callable[[StagePaths, Reporter], None]) -> NoReturn:
    """Run one stage and leave the process with the contract's exit code.

    Standard output is kept for events: whatever libraries print goes to standard error.
    The first SIGTERM, SIGINT or SIGHUP raises KeyboardInterrupt, so that `finally` blocks run, and
    none after it cuts them short; the end of the launcher counts as a SIGTERM.
    """
    run_stage_with_secrets(lambda stage_paths, reporter, _: stage(stage_paths, reporter))


def run_stage_with_secrets(
    stage: Callable[[StagePaths, Reporter, Mapping[str, str]], None],
) -> NoReturn:
    """As `run_stage`, for a stage that is given its launcher's secrets, by name."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stream:
        os.dup2(2, 1)
        reporter = Reporter(stream)
        output = Path()
        try:
            for number in _STOPS:
                signal.signal(number, _interrupt)
            secrets = _launch().secrets
            reporter.started()
            stage_paths = StagePaths.from_arguments(sys.argv[1:])
            output = stage_paths.output
            stage(stage_paths, reporter, secrets)
            code = ExitCode.DONE
        except UserError as error:
            reporter.failed(error)
            code = ExitCode.USER_ERROR
        except KeyboardInterrupt:
            code = ExitCode.INTERRUPTED
        except Exception as error:
            # In the log in any case.
            traceback.print_exc()
            code = ExitCode.BUG
            if full := full_disk(error, output):
                reporter.failed(full)
                code = ExitCode.USER_ERROR
    sys.exit(code)


def _launch() -> Launch:
    """What the launcher says, if one started this process; it is watched from here on."""
    # A child of this process has another standard input.
    if not os.environ.pop(LAUNCHED, ""):
        return Launch()
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        raise KeyboardInterrupt
    threading.Thread(target=_stop_without_launcher, name="launcher", daemon=True).start()
    return Launch.model_validate_json(line)


def _stop_without_launcher() -> None:
    # Not by `sys.stdin`, whose lock would be held while the interpreter ends.
    while os.read(0, _READ_BYTES):
        pass
    _stop_this_process()


def _stop_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _interrupt(_signal: int, _frame: object) -> None:
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
