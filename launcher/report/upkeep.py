"""Keep the report in a run's folder true to its records, whatever a command adds to them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from launcher.display import Display
from launcher.pipeline.finished_run import Run
from launcher.project import shown

# In the run's folder. It is no stage's output, and part of no key.
REPORT = Path("report.html")


@contextmanager
def report_kept(run: Run | None, display: Display) -> Iterator[None]:
    """Write the run's report anew when the block ends, also by an error: it may be a proof's.

    Whatever keeps it from being written is a note, since the run is finished all the same; a report
    that no longer holds is removed.
    """
    try:
        yield
    finally:
        if run is not None:
            _write(run, display)


def _write(run: Run, display: Display) -> None:
    path = run.folder / REPORT
    try:
        # Commands that show nothing of a run need no templates.
        from launcher.report.document import write_report, written_language

        write_report(run, path, written_language(path))
    except Exception as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        display.note(
            f"the report could not be written ({error}); to see why: "
            f"./invoke report {shlex.quote(shown(run.folder))}"
        )
