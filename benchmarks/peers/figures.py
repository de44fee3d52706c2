"""What was measured of each trainer, its medians, and its ratios to the reference."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from rich.table import Table

from benchmarks.peers.tools import REFERENCE
from contract.record import Record


class Training(Record):
    """One training of one tool.

    Attributes:
        wall_s: of the process, from its start to its end.
        cpu_s: user and system time, of what it started as well.
        training_s: of the trainer's own loop, without imports, loading and tokenizing.
        peak_bytes: the largest resident set of any of its processes; on a GPU, the most that torch
            held there.
        trained_tokens: that bore loss, over all epochs.
        tokens: that were no padding.
        padded_tokens: all positions that went through the model.
        held_out_loss: of the adapter that it wrote.
        adapter_sha256: of that adapter's weights.
    """

    round: int
    wall_s: float
    cpu_s: float
    training_s: float
    peak_bytes: int
    trained_tokens: int
    tokens: int
    padded_tokens: int
    held_out_loss: float
    adapter_parameters: int
    adapter_sha256: str

    @property
    def rate(self) -> float:
        """Completion tokens a second of the whole process."""
        return self.trained_tokens / self.wall_s


class Line(Record):
    """One tool: its trainings, or why there are none, or no more."""

    name: str
    version: str
    trainings: list[Training]
    failure: str | None = None

    def median(self, value: Callable[[Training], float]) -> float:
        """Over the rounds.

        Raises:
            statistics.StatisticsError: there is no training.
        """
        return statistics.median(value(training) for training in self.trainings)


class Figures(Record):
    """A whole table, and what it was measured on and with."""

    base: str
    settings: list[str]
    rows: int
    rounds: int
    device: str
    threads: int
    machine: str
    torch: str
    base_loss: float
    prepare_wall_s: float
    prepare_cpu_s: float
    lines: list[Line]


# How a tool compares with the reference in each round that both were in: more is better of the
# first two, less of the others.
RATIOS: dict[str, Callable[[Training], float]] = {
    "speed": lambda training: training.rate,
    "loop": lambda training: training.trained_tokens / training.training_s,
    "CPU": lambda training: training.cpu_s,
    "memory": lambda training: training.peak_bytes,
}


def ratios(line: Line, reference: Line | None, value: Callable[[Training], float]) -> list[float]:
    """A tool's value by the reference's, for each round that both were in."""
    if reference is None:
        return []
    beside = {training.round: value(training) for training in reference.trainings}
    return [
        value(training) / beside[training.round]
        for training in line.trainings
        if training.round in beside
    ]


COLUMNS = (
    *("trainer", "wall s", "CPU s", "loop s", "peak GB", "completion tokens/s", "tokens/s"),
    *("speed ratio", "loop ratio", "CPU ratio", "memory ratio"),
    *("held-out loss", "completion tokens"),
)
# A terminal is narrow: the rest stands in the files.
_SHOWN = {
    "trainer": "trainer",
    "wall s": "wall s",
    "CPU s": "CPU s",
    "peak GB": "GB",
    "completion tokens/s": "tokens/s",
    "speed ratio": "speed",
    "loop ratio": "loop",
    "CPU ratio": "CPU",
    "memory ratio": "memory",
    "held-out loss": "loss",
}


def cells(lines: Sequence[Line]) -> list[list[str]]:
    """The table's rows: medians over the rounds, ratios to the reference within them.

    A row has two cells, the second with the reason, where nothing was measured of a tool.
    """
    reference = next((line for line in lines if line.name == REFERENCE), None)
    return [_row(line, reference) for line in lines]


def _row(line: Line, reference: Line | None) -> list[str]:
    name = f"{line.name} {line.version}".strip()
    if not line.trainings:
        return [name, line.failure or "was not run"]
    return [
        name,
        f"{line.median(lambda one: one.wall_s):.1f}",
        f"{line.median(lambda one: one.cpu_s):.1f}",
        f"{line.median(lambda one: one.training_s):.1f}",
        f"{line.median(lambda one: one.peak_bytes) / 1e9:.2f}",
        f"{line.median(lambda one: one.rate):,.0f}",
        f"{line.median(lambda one: one.tokens / one.wall_s):,.0f}",
        *(_spread(ratios(line, reference, value)) for value in RATIOS.values()),
        f"{line.median(lambda one: one.held_out_loss):.4f}",
        f"{line.median(lambda one: one.trained_tokens):,.0f}",
    ]


def _spread(found: Sequence[float]) -> str:
    """The median, and between what it lies where there are several."""
    if not found:
        return "–"
    middle = f"{statistics.median(found):.2f}"
    return middle if len(found) == 1 else f"{middle} ({min(found):.2f}–{max(found):.2f})"


def terminal_table(lines: Sequence[Line]) -> Table:
    """The table for a terminal of 80 columns: medians alone."""
    shown = Table(box=None, pad_edge=False)
    for column in _SHOWN.values():
        shown.add_column(column, justify="left" if column == "trainer" else "right", no_wrap=True)
    for line, row in zip(lines, cells(lines), strict=True):
        if line.trainings:
            by_column = dict(zip(COLUMNS, [line.name, *row[1:]], strict=True))
            shown.add_row(*(by_column[column].partition(" (")[0] for column in _SHOWN))
    return shown


def failures(lines: Sequence[Line]) -> list[str]:
    """A sentence for each tool that failed, or was not measured at all."""
    said = [": ".join(row) for row in cells(lines) if len(row) == 2]
    return said + [
        f"{line.name} failed after {len(line.trainings)} rounds: {line.failure}"
        for line in lines
        if line.trainings and line.failure
    ]


def markdown(figures: Figures) -> str:
    """The table for BENCHMARKS.md, with what it was measured on above it."""
    said = (
        f"{figures.base}, {figures.rows} rows, {figures.device}, {figures.threads} threads, "
        f"{figures.rounds} rounds; "
        f"{figures.machine}, torch {figures.torch}"
    )
    if figures.settings:
        said += f"; {', '.join(figures.settings)}"
    lines = [
        f"{said}. Held-out loss of the base: {figures.base_loss:.4f}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|---|{'---:|' * (len(COLUMNS) - 1)}",
    ]
    for row in cells(figures.lines):
        padded = [*row, *[""] * (len(COLUMNS) - len(row))]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in padded)} |")
    lines += [f"\n{text}." for text in failures([line for line in figures.lines if line.trainings])]
    return "\n".join(lines) + "\n"


def differences(lines: Sequence[Line], prepared_tokens: int) -> list[str]:
    """Where a tool did not train what the rows are, or another adapter: a sentence for each."""
    said = []
    sizes = {training.adapter_parameters for line in lines for training in line.trainings}
    for line in lines:
        if len(sizes) > 1 and line.trainings:
            size = line.trainings[0].adapter_parameters
            said.append(f"{line.name} trained an adapter of {size:,} parameters")
        counted = {training.trained_tokens for training in line.trainings}
        for tokens in sorted(counted - {prepared_tokens}):
            more = tokens - prepared_tokens
            said.append(
                f"{line.name} trained {tokens:,} completion tokens, {abs(more):,} "
                f"{'more' if more > 0 else 'fewer'} than this project's {prepared_tokens:,}"
            )
    return said
