"""An evaluation as people look at it: scores with intervals, differences with a picture."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from launcher.display import distinct_parts, shortened, styled
from launcher.evaluate.intervals import Interval
from launcher.evaluate.paired_differences import ONE_SIDED, TWO_SIDED, PairedDifferences
from launcher.evaluate.record import Evaluation, SetResult

_COLOURS = {"better": "green", "worse": "red"}
_PLOT_WIDTH = 21
_WIDE = 110
_NAME_WIDTH = 18


def show(evaluation: Evaluation, console: Console) -> None:
    """Print who was asked, the sets, and some rows of the task that are not right."""
    model, base = evaluation.model, evaluation.base
    beside = f" vs {base.name} ({base.by})" if base is not None else ", no base to compare with"
    console.print(styled("\n[bold]{}[/] ({}){}", model.name, model.answered, beside))
    console.print(styled("[dim]scores out of 100, with 95 % intervals[/]\n"))
    console.print(_table(evaluation, wide=console.width >= _WIDE))
    for result in evaluation.sets:
        for line in remarks(result):
            console.print(styled("  [yellow]·[/] {}", line), soft_wrap=True)
    for line in reach(evaluation):
        console.print(styled("  [yellow]·[/] {}", line), soft_wrap=True)
    if evaluation.dropped:
        number = len(evaluation.dropped)
        console.print(styled("  [yellow]·[/] {} rows that were trained on were dropped", number))
    _examples(evaluation, console)


def remarks(result: SetResult) -> list[str]:
    """What a mean score hides: a skill that was lost, and answers of either model that are none."""
    lines = []
    if result.regression:
        lines.append(f"{result.set}: regression, the loss exceeds what the profile allows")
    return [*lines, *filter(None, [counted_answers(result)])]


def counted_answers(result: SetResult) -> str:
    """`reading: of 60 answers, 3 truncated (base 12)`: answers that are none; empty without any."""
    names = {
        "empty": "empty",
        "no_json": "not JSON",
        "truncated": "truncated",
        "repetition_loop": "in a repetition loop",
    }
    ours = result.model.counts.model_dump()
    theirs = result.base.counts.model_dump() if result.base is not None else {}
    counted = [
        f"{ours[key]} {name}" + (f" (base {theirs[key]})" if theirs else "")
        for key, name in names.items()
        if ours[key] or theirs.get(key)
    ]
    return f"{result.set}: of {result.rows} answers, {', '.join(counted)}" if counted else ""


def reach(evaluation: Evaluation) -> list[str]:
    """What the evaluation could not have seen: whether it is a sample, and the smallest losses."""
    lines = []
    if evaluation.limit is not None:
        lines.append(f"a sample: at most {evaluation.limit} rows of each set (--limit)")
    task, skills = evaluation.task, [found for found in evaluation.skills if found.base is not None]
    seen = []
    if (paired := task.paired()) is not None:
        seen.append(_visible(paired, f"on {task.set}"))
    if skills:
        rows = [one for skill in skills for one in skill.row_differences()]
        seen.append(_visible(PairedDifferences.of(rows), "on all skills together", ONE_SIDED))
        single = [_visible_share(skill, len(skills)) for skill in skills]
        least, most = (f"{100 * share:.1f}" for share in (min(single), max(single)))
        seen.append(f"{least if least == most else f'{least} to {most}'} on a single skill")
    if seen:
        lines.append(f"smallest loss that would be seen (in 80 % of cases): {', '.join(seen)}")
    bound = evaluation.max_skill_loss
    low = [found.set for found in skills if found.base and found.base.score.mean <= bound]
    if low:
        said = f"the base scores {100 * bound:g} or less, so no greater loss can show"
        lines.append(f"{', '.join(low)}: {said}")
    return lines


def _visible(found: PairedDifferences, where: str, outside: float = TWO_SIDED) -> str:
    return f"{100 * found.smallest_visible(outside):.1f} {where} ({found.rows} rows)"


def _visible_share(skill: SetResult, sets: int) -> float:
    """As Holm tests the first of so many sets."""
    found = skill.paired()
    return found.smallest_visible(ONE_SIDED / sets) if found is not None else 1.0


def percent(interval: Interval, *, signed: bool = False) -> str:
    """`82.5 [75, 89]`: hundredths of a full score."""
    mean = f"{100 * interval.mean:{'+' if signed else ''}.1f}"
    return f"{mean} [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


def plot(difference: Interval, width: int = _PLOT_WIDTH) -> str:
    """The interval on a line from -100 to +100, with its mean and nothing's place."""

    def place(value: float) -> int:
        return round((min(max(value, -1), 1) + 1) / 2 * (width - 1))

    line = ["·"] * width
    line[place(0)] = "┆"
    for position in range(place(difference.low), place(difference.high) + 1):
        line[position] = "─"
    line[place(difference.mean)] = "●"
    return "".join(line)


def _table(evaluation: Evaluation, *, wide: bool) -> Table:
    """Its columns fit 80 characters; where there is room, rows, metrics and the picture as well."""
    picture = "-100" + "0".center(_PLOT_WIDTH - 8) + "+100"
    heads = ["set", *(["rows", "by"] if wide else []), "base", "model", "difference"]
    heads += [*([picture] if wide else []), ""]
    table = Table.grid(padding=(0, 2 if wide else 1))
    for head in heads:
        width = _NAME_WIDTH if head == "set" and not wide else None
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=width)
    table.add_row(*(Text(head, "dim") for head in heads))
    for result in evaluation.sets:
        cells = [Text(result.set, "bold" if result.kind == "task" else "")]
        cells += [Text(str(result.rows)), Text(_by(result), "dim")] if wide else []
        cells.append(Text(percent(result.base.score) if result.base is not None else ""))
        cells.append(Text(percent(result.model.score)))
        if result.difference is not None and result.verdict is not None:
            cells.append(Text(percent(result.difference, signed=True)))
            cells += [Text(plot(result.difference))] if wide else []
            cells.append(Text(result.verdict, _COLOURS.get(result.verdict, "dim")))
        table.add_row(*cells)
    return table


def _by(result: SetResult) -> str:
    return result.metrics[0] if len(result.metrics) == 1 else "several"


def _examples(evaluation: Evaluation, console: Console) -> None:
    questions = distinct_parts([example.question for example in evaluation.examples])
    for example, question in zip(evaluation.examples, questions, strict=True):
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(Text(f"  {example.where}"), Text(shortened(question), "italic"))
        grid.add_row("    expected", Text(shortened(example.expected)))
        if example.base is not None:
            grid.add_row("    base", Text(shortened(example.base)))
        grid.add_row("    model", Text(f"{shortened(example.model)} ✗", "red"))
        console.print()
        console.print(grid)
    console.print()
