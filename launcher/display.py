"""What people see while work goes on: one live line a stage, or plain lines off a terminal.

All of it goes to standard error; standard output is for results.

Names, paths and messages are never read as markup: a console of `terminal` shows every text as it
is, and what has a style is made by `styled`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unicodedata import category

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Span, Text

from contract import events

_PLAIN_EVERY_S = 10.0
_SHOWN_CHARACTERS = 160
# A third of what is shown.
_LONG_OPENING = 50
# A character for private use, in which no terminal has anything to show.
_PLACE = "\ue000"
# Unicode's categories of what has no form: controls, and halves of surrogate pairs.
_FORMLESS = ("Cc", "Cs")


def terminal(**options: Any) -> Console:
    """A console that shows a text as it is: no markup, no names of emoji, no highlights."""
    return Console(highlight=False, markup=False, emoji=False, **options)


def styled(form: str, *words: object) -> Text:
    """A text of our own in rich's markup, with each word in the place of a `{}`, as it is.

    `styled("[bold]{}[/] in {}", name, path)`
    """
    pieces = Text.from_markup(form.replace("{}", _PLACE), emoji=False).split(
        _PLACE, include_separator=True, allow_blank=True
    )
    text, left = Text(), list(words)
    for piece in pieces:
        if not piece.plain.endswith(_PLACE):
            text.append_text(piece)
            continue
        before, place = piece.divide([len(piece) - 1])
        word = str(left.pop(0))
        text.append_text(before)
        text.append_text(Text(word, spans=[Span(0, len(word), span.style) for span in place.spans]))
    if left:
        raise ValueError(f"{form!r} has no place for {left}")
    return text


class Display:
    """Shows stages, notes and progress on one console."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or terminal(stderr=True)
        self.quiet = quiet

    def note(self, text: str) -> None:
        """A line that should be seen."""
        if not self.quiet:
            self.console.print(styled("  [yellow]·[/] {}", text), soft_wrap=True)

    def up_to_date(self, name: str) -> None:
        """A stage that has nothing to do."""
        if not self.quiet:
            self.console.print(styled("[green]✓[/] {} [dim]up to date[/]", f"{name:<10}"))

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
            console.print(Text(f"{self._name}: {what or 'started'}"), soft_wrap=True)
            yield
        else:
            self._live = Progress(
                SpinnerColumn(),
                TextColumn("{task.fields[name]:<10}", markup=False),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[count]}", markup=False),
                TextColumn("{task.fields[figures]}", style="dim", markup=False),
                TimeRemainingColumn(compact=True),
                console=console,
                transient=True,
            )
            with self._live:
                self._task = self._live.add_task(
                    what, total=None, name=self._name, count="", figures=""
                )
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
                description=event.doing,
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
                    Text(f"{self._name}: {event.doing} {count}  {figures}".rstrip()),
                    soft_wrap=True,
                )
        self._doing = event.doing

    def finish(self, mark: str, seconds: float) -> None:
        """The line that stays."""
        if self._display.quiet:
            return
        console = self._display.console
        took = duration(seconds)
        console.print(styled(mark + " {} [dim]{}[/]", f"{self._name:<10}", took))


def shortened(text: str) -> str:
    """A text in one line, cut off where it is long."""
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN_CHARACTERS else flat[: _SHOWN_CHARACTERS - 1] + "…"


def distinct_parts(texts: Sequence[str]) -> list[str]:
    """What tells texts from each other: where all begin with the same long lines, `…` stands for
    them. Of rows that all ask the same of different documents, a short form shows the documents.
    """
    lines = [text.splitlines() for text in texts]
    shared = 0
    for column in zip(*lines, strict=False):
        if len(set(column)) > 1:
            break
        shared += 1
    if len(texts) < 2 or len(" ".join(lines[0][:shared])) < _LONG_OPENING:
        return list(texts)
    return ["… " + "\n".join(rest[shared:]).strip() for rest in lines]


def printable(text: str) -> str:
    """The text with a replacement character for each that a terminal may act upon: what a model
    says, and what a name holds, must move no cursor.
    """
    return "".join(
        "\ufffd" if category(letter) in _FORMLESS and letter not in "\n\t" else letter
        for letter in text.replace("\r\n", "\n")
    )


def print_indented(console: Console, text: Text, indent: int) -> None:
    """Print a text behind so many columns, wrapped at words; no white space ends its lines."""
    for line in text.wrap(console, max(console.width - indent, 1)):
        line.rstrip()
        console.print(Text(" " * indent) + line, soft_wrap=True)


def byte_size(size_bytes: int) -> str:
    """`12.3 MB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"


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
