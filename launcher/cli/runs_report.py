"""`./invoke runs`: what lies in `data/models/`, in columns that fit 80 characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from contract.results.train import BaseAndTuned
from launcher.display import byte_size, print_indented, printable, styled
from launcher.runs.run_summary import RunSummary

NO_RUNS = "No runs here yet. Make one: ./invoke train --profile smoke"
_HEADS = ("run", "when", "size", "rows", "held-out loss", "exact", "gate")
# From there on, in thousands.
_MANY_ROWS = 100_000
_INDENT = 4
_GATE_COLOURS = {"passed": "green", "failed": "red", "inconclusive": "yellow"}


def show(runs: Sequence[RunSummary], console: Console) -> None:
    """Print each model's runs, the last one below the others, and what the marks mean."""
    rows = {run.folder: _cells(run) for run in runs}
    table = [Text(head, "dim") for head in _HEADS]
    widths = [
        max(cell_len(cells[column].plain) for cells in (table, *rows.values()))
        for column in range(len(_HEADS))
    ]
    roomy = sum(widths) + 2 * (len(widths) - 1) <= console.width
    gap = "  " if roomy else " "
    console.print(_line(table, widths, gap), soft_wrap=True)
    for model, group in groupby(runs, key=lambda run: run.model):
        of_model = list(group)
        bases = {run.base for run in of_model if run.base}
        console.print()
        base = f"  base {printable(bases.pop())}" if len(bases) == 1 else ""
        console.print(styled("[bold]{}[/][dim]{}[/]", printable(model), base))
        for run in of_model:
            console.print(_line(rows[run.folder], widths, gap), soft_wrap=True)
            for text in _remarks(run, with_base=not base):
                print_indented(console, text, _INDENT)
    console.print()
    console.print(styled("[dim]{}[/]", _legend(runs)))


def _cells(run: RunSummary) -> list[Text]:
    return [
        Text.assemble(printable(run.key), ("*" if run.latest else "", "bold green")),
        Text((run.created or "")[:10]),
        Text(byte_size(run.size_bytes)),
        Text(_rows(run.train_rows)),
        Text(_from_to(run.held_out_loss, "{:.3g}")),
        Text(_from_to(run.exact_match, "{:.0%}")),
        Text(run.gate or "", _GATE_COLOURS.get(run.gate or "", "")),
    ]


def _rows(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count:,}" if count < _MANY_ROWS else f"{round(count / 1000):,}k"


def _from_to(measured: BaseAndTuned | None, form: str) -> str:
    if measured is None:
        return ""
    return f"{form.format(measured.base)} -> {form.format(measured.tuned)}"


def _line(cells: Sequence[Text], widths: Sequence[int], gap: str) -> Text:
    line = Text()
    for cell, width in zip(cells, widths, strict=True):
        line.append_text(cell)
        line.append(" " * (width - cell_len(cell.plain)) + gap)
    line.rstrip()
    return line


def _remarks(run: RunSummary, *, with_base: bool) -> Iterator[Text]:
    """What no column has room for."""
    if run.state == "unreadable":
        yield Text(f"cannot be read: {printable(run.reason or '')}", "red")
    if run.state == "unfinished":
        yield Text(_how_far(run), "yellow")
    if run.process is not None:
        yield Text(f"in use by process {run.process}")
    if run.roles:
        yield Text(f"promoted: {', '.join(map(printable, run.roles))}", "green")
    if run.rollback_roles:
        yield Text(f"a rollback of {', '.join(map(printable, run.rollback_roles))} returns to it")
    if run.maybe_roles:
        yield Text(f"may be what {', '.join(map(printable, run.maybe_roles))} stands at")
    if with_base and run.base:
        yield Text(f"base {printable(run.base)}", "dim")


def _how_far(run: RunSummary) -> str:
    """`unfinished: prepare, train; to be resumed after step 40`."""
    said = f"unfinished: {', '.join(run.stages) or 'no stage is recorded'}"
    if run.checkpoint is not None:
        said += f"; to be resumed after step {run.checkpoint}"
    return said


def _legend(runs: Sequence[RunSummary]) -> str:
    total = byte_size(sum(run.size_bytes for run in runs))
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    return f"{count}, {total}. * the one that a model's name means"
