"""`./invoke compare`: two runs side by side, in 80 columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from pydantic import JsonValue
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from contract.reference import first_difference
from launcher.display import byte_size, distinct_parts, duration, printable, shortened, styled
from launcher.evaluate.report import percent
from launcher.runs.changed_answers import ChangedAnswer, ComparedAnswers
from launcher.runs.compared_figures import Figure
from launcher.runs.compared_inputs import Difference, by_stages, is_digest
from launcher.runs.compared_sets import ComparedSet
from launcher.runs.comparison import ComparedRun, Comparison

_NAME_WIDTH, _VALUE_WIDTH = 35, 20
_DIGEST_CHARACTERS = 12
# Of two long texts, how much is shown of what both begin with.
_SEEN_BEFORE = 40
_SHOWN_ANSWERS = 10
_SHOWN_OUTPUTS = 8
_SET_WIDTH = 18
_ROW_HEADS = (("rows", "bold"), ("in both", "dim"), ("in A alone", "dim"), ("in B alone", "dim"))
_SET_HEADS = (
    ("evaluation", "bold"),
    *((head, "dim") for head in ("A", "B", "B less A, 95 %", "")),
)
_COLOURS = {"better": "green", "worse": "red"}
_SOURCES = {
    "evaluation": "of the evaluation",
    "held-out example": "of the training's examples",
    "reference": "of the reference's held-out questions",
}


def show(found: Comparison, console: Console) -> None:
    """Print what differs, the results beside each other, and the answers that changed."""
    for letter, side in (("A", found.a), ("B", found.b)):
        console.print(_side(letter, side), soft_wrap=True)
    if found.nothing_differs:
        console.print("\nNothing differs but sizes and times: recipe, inputs, files and answers.")
    _section(console, "recipe", [_difference(one) for one in found.recipe])
    _section(console, "inputs", list(_inputs(found.inputs)))
    _rows(found, console)
    _files(found, console)
    _section(console, "results", [_figure(one) for one in found.results])
    _sets(found.sets, console)
    _answers(found.answers, console)
    _section(console, "sizes and times", [_figure(one) for one in found.costs])


def _side(letter: str, side: ComparedRun) -> Text:
    when = side.created[:16].replace("T", " ")
    name = printable(f"{side.model}@{side.key}")
    return styled("[bold]{}[/]  {}  [dim]{}  {}[/]", letter, name, when, printable(side.folder))


def _section(console: Console, title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """Three columns: what, A's, B's."""
    if not rows:
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(max_width=_NAME_WIDTH, overflow="fold")
    for _ in "AB":
        table.add_column(max_width=_VALUE_WIDTH, overflow="fold")
    table.add_row(Text(title, "bold"), Text("A", "dim"), Text("B", "dim"))
    for name, a, b in rows:
        table.add_row(_indented(name), Text(printable(a)), Text(printable(b)))
    console.print()
    console.print(table)


def _indented(name: str) -> Padding:
    return Padding(Text(printable(name)), (0, 0, 0, 2))


def _difference(one: Difference) -> tuple[str, str, str]:
    return one.name, *_short_pair(_value(one.a), _value(one.b))


def _value(value: JsonValue) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if is_digest(text):
        return text.removeprefix("sha256:")[:_DIGEST_CHARACTERS]
    return text


def _short_pair(a: str, b: str) -> tuple[str, str]:
    """Two texts, shortened so that where they part is seen."""
    a, b = " ".join(printable(a).split()), " ".join(printable(b).split())
    parts, _, _ = first_difference(a, b)
    if parts > _SEEN_BEFORE and (shortened(a), shortened(b)) != (a, b):
        a, b = (f"… {text[parts - _SEEN_BEFORE :]}" for text in (a, b))
    return shortened(a), shortened(b)


def _inputs(inputs: Sequence[Difference]) -> Iterator[tuple[str, str, str]]:
    for one in by_stages(inputs):
        name = f"{one.name} of {', '.join(one.stages)}" if one.stages else one.name
        if one.values is None:
            yield name, "", "differs"
        else:
            yield name, *_short_pair(*map(_value, one.values))


def _rows(found: Comparison, console: Console) -> None:
    if not found.rows:
        console.print("\nThe rows were not compared: a run has no prepared/ any more.")
        return
    if not any(rows.only_a or rows.only_b for rows in found.rows):
        counts = ", ".join(f"{rows.both:,} {rows.name}" for rows in found.rows)
        console.print(styled("\n[bold]rows[/]  the same: {}", counts))
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=_NAME_WIDTH)
    table.add_row(*(Text(head, style) for head, style in _ROW_HEADS))
    for rows in found.rows:
        counted = (f"{number:,}" for number in (rows.both, rows.only_a, rows.only_b))
        table.add_row(f"  {rows.name}", *counted)
    console.print()
    console.print(table)


def _files(found: Comparison, console: Console) -> None:
    if not found.outputs:
        return
    console.print(
        styled("\n[bold]files[/]  {} the same, {} not:", found.same_outputs, len(found.outputs))
    )
    for one in found.outputs[:_SHOWN_OUTPUTS]:
        alone = "  (B alone)" if one.a is None else "  (A alone)" if one.b is None else ""
        console.print(f"  {printable(one.name)}{alone}", soft_wrap=True)
    _more(len(found.outputs) - _SHOWN_OUTPUTS, console)


def _figure(one: Figure) -> tuple[str, str, str]:
    a, b = (_number(value, one.unit) for value in (one.a, one.b))
    return one.name, a, b


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "bytes":
        return byte_size(round(value))
    if unit == "seconds":
        return duration(value)
    forms = {
        "nats": "{:.4g}",
        "share": "{:.1%}",
        "count": "{:,.0f}",
        "tokens/s": "{:,.0f} tokens/s",
    }
    return forms[unit].format(value)


def _sets(sets: Sequence[ComparedSet], console: Console) -> None:
    if not sets:
        return
    table = Table.grid(padding=(0, 1))
    table.add_column(max_width=_SET_WIDTH, no_wrap=True, overflow="ellipsis")
    table.add_row(*(Text(head, style) for head, style in _SET_HEADS))
    for found in sets:
        cells = [Text(f"  {printable(found.set)}")]
        cells += [Text(percent(side) if side else "-") for side in (found.a, found.b)]
        if found.difference is not None and found.verdict is not None:
            cells.append(Text(percent(found.difference, signed=True)))
            cells.append(Text(found.verdict, _COLOURS.get(found.verdict, "dim")))
        table.add_row(*cells)
    console.print()
    console.print(table)


def _answers(answers: ComparedAnswers, console: Console) -> None:
    """How many changed of how many, and the first of those that did."""
    if not answers.compared:
        console.print("\nNo answers were compared: the runs have no question in common.")
        return
    console.print(styled("\n[bold]answers[/]  {} changed", len(answers.changed)))
    for source, count in answers.compared.items():
        changed = sum(one.source == source for one in answers.changed)
        console.print(f"  {changed} of {count} {_SOURCES[source]}")
    first = answers.changed[:_SHOWN_ANSWERS]
    questions = distinct_parts([one.question for one in first])
    for one, question in zip(first, questions, strict=True):
        console.print()
        console.print(_answer(one, question))
    _more(len(answers.changed) - _SHOWN_ANSWERS, console)


def _answer(one: ChangedAnswer, question: str) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text("  asked"), Text(_short(question), "italic"))
    if one.where is not None:
        grid.add_row(Text("  in"), Text(printable(one.where), "dim"))
    if one.expected is not None:
        grid.add_row(Text("  expected"), Text(_short(one.expected)))
    a, b = _short_pair(one.a, one.b)
    for letter, text, score in (("A", a, one.a_score), ("B", b, one.b_score)):
        mark, colour = _mark(score)
        grid.add_row(Text(f"  {letter}"), Text(f"{text or '(empty)'}{mark}", colour))
    return grid


def _mark(score: float | None) -> tuple[str, str]:
    """Right, wrong, or in part; nothing where that is not known."""
    if score is None:
        return "", ""
    if score == 1:
        return " ✓", "green"
    return (" ✗", "red") if score == 0 else (f" ({score:.2f})", "yellow")


def _short(text: str) -> str:
    return shortened(printable(text))


def _more(number: int, console: Console) -> None:
    if number > 0:
        console.print(f"  and {number} more: --json has all of them")
