"""`./invoke data`: what a dataset looks like to the model, before anything is trained."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from contract import paths
from contract.recipe import Recipe
from contract.results.prepare import LengthFigures, PrepareResult, not_read
from launcher.display import Display, styled
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.gguf_files import ModelServer
from launcher.pipeline.inputs import gather
from launcher.pipeline.runner import StageContext, StageFolder, StageRunner
from launcher.pipeline.stages import PREPARE
from launcher.pipeline.training import training_keys
from launcher.project import CACHE
from launcher.runtime.engine import Engine

_BUCKETS = 12
_BAR_WIDTH = 40
_MOST_SHOWN = 5


def prepare(
    recipe: Recipe, engine: Engine, display: Display, *, server: ModelServer | None = None
) -> PrepareResult:
    """Run the stage `prepare` on the recipe's dataset, keeping nothing but its report.

    Raises:
        UserError: every row that cannot be read.
    """
    digests = FileDigests()
    inputs = gather(recipe, engine=engine, display=display, digests=digests, server=server)
    recipe = inputs.recipe
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="data-report-") as scratch:
        folder = StageFolder(Path(scratch), digests)
        recipe.write(folder.path / paths.RECIPE)
        context = StageContext(
            lock=recipe.lock, inputs=inputs.by_name, labels={"profile": recipe.profile}
        )
        key = training_keys(recipe, inputs)[PREPARE.name]
        runner = StageRunner(folder, context, engine=engine, display=display)
        record = runner.run(PREPARE, key)
    digests.save()
    return record.typed_result(PrepareResult)


def show(report: PrepareResult, recipe: Recipe, console: Console) -> None:
    """Print the report, with a picture of the lengths."""
    console.print(
        styled("\n[bold]{} rows[/]  {}", report.rows, recipe.dataset_path), soft_wrap=True
    )
    console.print(f"  train {report.train}, held out {report.held_out}")
    table = Table.grid(padding=(0, 2))
    table.add_row("", *(Text(name, "dim") for name in ("min", "median", "p95", "max")))
    table.add_row("  tokens per row", *_figures(report.tokens))
    table.add_row("  with loss", *_figures(report.answer_tokens))
    console.print(table)
    console.print()
    for line in histogram(report.lengths, report.max_length):
        console.print(Text(f"  {line}"))
    console.print()
    _show_findings(report, console)


def _figures(lengths: LengthFigures) -> tuple[str, ...]:
    return tuple(str(n) for n in (lengths.min, lengths.median, lengths.p95, lengths.max))


def histogram(lengths: Sequence[int], max_length: int) -> list[str]:
    """Rows by token length, as bars; lengths beyond `max_length` are marked as cut."""
    low, high = min(lengths), max(lengths)
    width = max(1, -(-(high - low + 1) // _BUCKETS))
    counts: dict[int, int] = {}
    for length in lengths:
        start = low + (length - low) // width * width
        counts[start] = counts.get(start, 0) + 1
    most = max(counts.values())
    lines = []
    for start in range(low, high + 1, width):
        count = counts.get(start, 0)
        end = start + width - 1
        bar = "█" * round(count / most * _BAR_WIDTH) or ("▏" if count else "")
        mark = f"  truncated at {max_length}" if end > max_length and count else ""
        lines.append(f"{start:>6}-{end:<6} {bar} {count}{mark}")
    return lines


def _show_findings(report: PrepareResult, console: Console) -> None:
    findings = [
        (
            "cut",
            f"{{}} rows are longer than max_length {report.max_length} "
            f"and are truncated, by {report.lost_tokens} tokens in total",
            [f"{row.where} loses {row.tokens} tokens" for row in report.cut],
        ),
        ("no_room", "{} rows leave no room for an answer and are skipped", report.no_room),
        (
            "duplicates",
            "{} rows occur twice",
            [f"{one} and {other}" for one, other in report.duplicates],
        ),
        (
            "conflicts",
            "{} rows have the same question but different answers",
            [f"{one} and {other}" for one, other in report.conflicts],
        ),
        (
            "in_both",
            "{} held-out rows are in the training data too and are not scored",
            [f"{one} and {other}" for one, other in report.in_both],
        ),
    ]
    clean = True
    for kind, sentence, rows in findings:
        if not rows:
            continue
        clean = False
        console.print(
            styled("[yellow]·[/] {}", sentence.format(count := report.count(kind))), soft_wrap=True
        )
        for row in rows[:_MOST_SHOWN]:
            console.print(Text(f"    {row}"), soft_wrap=True)
        if count > _MOST_SHOWN:
            console.print(Text(f"    ... and {count - _MOST_SHOWN} more"))
    if report.unread:
        console.print(styled("[yellow]·[/] {}", not_read(report.unread)), soft_wrap=True)
    if clean:
        found = "" if report.unread else "no problem found: "
        console.print(styled("[green]✓[/] {}nothing truncated, no duplicates, no overlap", found))
