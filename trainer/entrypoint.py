"""How a stage starts, speaks and ends: flags in, events out, an exit code.

Every `trainer/<stage>/__main__.py` hands its function to `run_stage`.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import NoReturn, TextIO

from contract.errors import ExitCode, UserError
from contract.events import Event, Failed, Note, Progress, Result, Started
from contract.paths import StagePaths
from contract.results.stage_result import StageResult

_PROGRESS_EVERY_S = 0.1


class Reporter:
    """Writes a stage's events, one a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last_progress_s = 0.0

    def _emit(self, event: Event) -> None:
        self._stream.write(event.model_dump_json() + "\n")
        self._stream.flush()

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

    def note(self, text: str) -> None:
        """Say a line that people should see."""
        self._emit(Note(text=text))

    def result(self, found: StageResult) -> None:
        """Say what the stage found out; once, at its end."""
        self._emit(Result(values=found.model_dump(mode="json")))

    def failed(self, error: UserError) -> None:
        """Say why the stage stops."""
        self._emit(Failed(problems=list(error.problems), more=error.more))


def run_stage(stage: Callable[[StagePaths, Reporter], None]) -> NoReturn:
    """Run one stage and leave the process with the contract's exit code.

    Standard output is kept for events: whatever libraries print goes to standard error.
    SIGTERM and SIGINT raise, so that `finally` blocks run.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stream:
        os.dup2(2, 1)
        reporter = Reporter(stream)
        reporter.started()
        signal.signal(signal.SIGTERM, _interrupt)
        signal.signal(signal.SIGINT, _interrupt)
        try:
            stage(StagePaths.from_arguments(sys.argv[1:]), reporter)
            code = ExitCode.DONE
        except UserError as error:
            reporter.failed(error)
            code = ExitCode.USER_ERROR
        except KeyboardInterrupt:
            code = ExitCode.INTERRUPTED
        except Exception:
            traceback.print_exc()
            code = ExitCode.BUG
    sys.exit(code)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
