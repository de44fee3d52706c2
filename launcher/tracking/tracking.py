"""Follow a training with trackers, by a process that writes while the stage goes on.

Nothing here holds a training up, or ends one: what a tracker does not take in time, or fails at, is
said at the end. The stage itself has no network, and knows of no tracker.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from contract import paths
from contract.child_environment import Purpose, child_environment
from contract.events import Metrics
from contract.recipe import Recipe
from contract.record import Record
from launcher.display import Display
from launcher.interruption import killed_at_once
from launcher.project import MLFLOW_STORE, ROOT, shown
from launcher.runtime.environment import ensure_environment
from launcher.runtime.logged_process import open_log
from launcher.tracking.messages import Begin, End, Failure, Status

# A server that is away is tried for minutes by its library.
_TIME_TO_END_S = 60.0
_MODULE = "launcher.tracking.writer"


class Tracking:
    """Tells the process, and hears at the end what failed there.

    Args:
        python: of the environment `tracking`.
        begin: is told when the first metrics come: a training that has nothing to do begins none.
        log: of the process.
    """

    def __init__(self, python: Path, begin: Begin, log: Path, display: Display) -> None:
        self._python, self._begin, self._log = python, begin, log
        self._display = display
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self.scores: dict[str, float] = {}

    def on_metrics(self, metrics: Metrics) -> None:
        """Hand them on, and return at once."""
        if self._process is None:
            self._start()
        self._tell(metrics)

    def end(self, status: Status) -> None:
        """Say how it ended, wait for what is still to be written, and say what failed."""
        process = self._process
        if process is None:
            return
        self._tell(End(status=status, values=self.scores if status == "finished" else {}))
        self._lines.put(None)
        assert self._thread is not None
        assert process.stdout is not None
        with process, killed_at_once(process.kill):
            waited = threading.Timer(_TIME_TO_END_S, process.kill)
            waited.start()
            try:
                said = process.stdout.read()
                code = process.wait()
            finally:
                waited.cancel()
            self._thread.join()
        failures = [Failure.model_validate_json(line) for line in said.splitlines()]
        for failure in failures:
            self._display.note(
                f"{failure.tracker} was not told all of it: {failure.text} (see {shown(self._log)})"
            )
        if code and not failures:
            why = f"did not end within {_TIME_TO_END_S:.0f} s" if code < 0 else "ended by a bug"
            self._display.note(f"tracking {why} (see {shown(self._log)})")

    def _start(self) -> None:
        with open_log(self._log) as log:
            self._process = subprocess.Popen(
                [str(self._python), "-m", _MODULE],
                cwd=ROOT,
                env=child_environment(Purpose.TRACKING),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                # A Ctrl-C in the terminal reaches us alone: it has still to write how it ended.
                start_new_session=True,
            )
        self._thread = threading.Thread(target=self._feed, args=(self._process,), daemon=True)
        self._thread.start()
        self._tell(self._begin)

    def _tell(self, message: Record) -> None:
        self._lines.put(message.model_dump_json() + "\n")

    def _feed(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        # Where it has ended, the rest has nowhere to go.
        with suppress(BrokenPipeError), process.stdin as stdin:
            while (line := self._lines.get()) is not None:
                stdin.write(line)
                stdin.flush()


@contextmanager
def tracked(
    recipe: Recipe, folder: Path, tags: Mapping[str, str], display: Display
) -> Iterator[Tracking | None]:
    """Follow what trains in the block; None where the recipe names no tracker.

    Args:
        folder: the run's.
        tags: what tells it from other runs beside its recipe.

    Raises:
        UserError: the trackers' environment cannot be made, which is known before the training.
    """
    if not recipe.trackers:
        yield None
        return
    python = ensure_environment("tracking", ["tracking"], display)
    MLFLOW_STORE.parent.mkdir(parents=True, exist_ok=True)
    begin = Begin(
        trackers=recipe.trackers,
        folder=folder / paths.TRACKING,
        model=recipe.output_model_name,
        run=folder.name,
        parameters=recipe.model_dump(mode="json"),
        tags=dict(tags),
        mlflow_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{MLFLOW_STORE}",
    )
    tracking = Tracking(python, begin, folder / paths.LOGS / "tracking.log", display)
    try:
        yield tracking
    except KeyboardInterrupt:
        tracking.end("stopped")
        raise
    except BaseException:
        tracking.end("failed")
        raise
    tracking.end("finished")


def listener(tracking: Tracking | None) -> Callable[[Metrics], None]:
    """What a stage's metrics are handed to."""
    return (lambda _: None) if tracking is None else tracking.on_metrics
