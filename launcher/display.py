"""What people see while work goes on: one live line a stage, or plain lines off a terminal.

All of it goes to standard error; standard output is for results.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from contract import events

_PLAIN_EVERY_S = 10.0


def plain_console(*, stderr: bool = False, file: IO[str] | None = None) -> Console:
    """A terminal that shows text as it is: `d.jsonl:100:` has no emoji in it."""
    return Console(stderr=stderr, file=file, highlight=False, emoji=False)


class Display:
    """Shows stages, notes and progress on one console."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or plain_console(stderr=True)
        self.quiet = quiet

    def note(self, text: str) -> None:
        """A line that should be seen."""
        if not self.quiet:
            self.console.print(f"  [yellow]·[/] {escape(text)}", soft_wrap=True)

    def up_to_date(self, name: str) -> None:
        """A stage that has nothing to do."""
        if not self.quiet:
            self.console.print(f"[green]✓[/] {name:<10} [dim]up to date[/]")

    @contextmanager
    def working(self, name: str, what: str = "") -> Iterator[StageLine]:
        """Show that `name` is at work until the block ends, then how long it took."""
        line = StageLine(name, self)
        started_s = time.monotonic()
        with line.shown(what):
            try:
                yield line
            except BaseException:
                line.finish("[red]✗[/]", time.monotonic() - started_s)
                raise
        line.finish("[green]✓[/]", time.monotonic() - started_s)


class StageLine:
    """One stage's line: alive on a terminal, now and then a line elsewhere."""

    def __init__(self, name: str, display: Display) -> None:
        self._name = name
        self._display = display
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._last_plain_s = time.monotonic()
        self._doing = ""

    @contextmanager
    def shown(self, what: str) -> Iterator[None]:
        """The line's life."""
        console = self._display.console
        if self._display.quiet:
            yield
        elif not console.is_terminal:
            console.print(f"{self._name}: {what or 'started'}", markup=False, soft_wrap=True)
            yield
        else:
            self._live = Progress(
                SpinnerColumn(),
                TextColumn(f"{self._name:<10}"),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[count]}"),
                TextColumn("[dim]{task.fields[figures]}[/]"),
                TimeRemainingColumn(compact=True),
                console=console,
                transient=True,
            )
            with self._live:
                self._task = self._live.add_task(escape(what), total=None, count="", figures="")
                yield
            self._live = None

    def on_event(self, event: events.Event) -> None:
        """Show a stage's progress and notes; its other events are not for the display."""
        if isinstance(event, events.Note):
            self._display.note(event.text)
        elif isinstance(event, events.Progress):
            self._progress(event)

    def _progress(self, event: events.Progress) -> None:
        figures = "  ".join(f"{name} {_figure(value)}" for name, value in event.figures.items())
        count = f"{event.done}/{event.total} {event.unit}"
        if self._live is not None and self._task is not None:
            if event.doing != self._doing:
                # Another kind of work has another speed: the time left is estimated anew.
                self._live.reset(self._task, total=event.total)
            self._live.update(
                self._task,
                description=escape(event.doing),
                total=event.total,
                completed=event.done,
                count=count,
                figures=figures,
            )
        elif not self._display.quiet:
            now_s = time.monotonic()
            if now_s - self._last_plain_s >= _PLAIN_EVERY_S:
                self._last_plain_s = now_s
                self._display.console.print(
                    f"{self._name}: {event.doing} {count}  {figures}".rstrip(),
                    markup=False,
                    soft_wrap=True,
                )
        self._doing = event.doing

    def finish(self, mark: str, seconds: float) -> None:
        """The line that stays."""
        if self._display.quiet:
            return
        console = self._display.console
        console.print(f"{mark} {self._name:<10} [dim]{duration(seconds)}[/]")


def duration(seconds: float) -> str:
    """`0.4 s`, `47 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
