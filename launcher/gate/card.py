"""The gate's decision for people: a card in the terminal, and in Markdown for a pull request."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from launcher.display import styled
from launcher.evaluate.paired_differences import Outcome
from launcher.evaluate.record import Evaluation, GateDecision, SetResult
from launcher.evaluate.report import counted_answers, percent, reach

MARKS: dict[Outcome, str] = {"passed": "✓", "failed": "✗", "inconclusive": "?"}
_STYLES: dict[Outcome, str] = {"passed": "green", "failed": "red", "inconclusive": "yellow"}
_SAID: dict[Outcome, str] = {
    "passed": "ship",
    "failed": "do not ship",
    "inconclusive": "do not ship: inconclusive",
}
_EMOJI: dict[Outcome, str] = {"passed": "✅", "failed": "❌", "inconclusive": "❔"}


def show(evaluation: Evaluation, decision: GateDecision, console: Console) -> None:
    """Print the card."""
    said = f"[bold {_STYLES[decision.outcome]}]{_SAID[decision.outcome]}[/]"
    console.print(styled(f"\n{said}  {{}}\n", evaluation.model.name))
    table = Table.grid(padding=(0, 2))
    for line in decision.lines:
        mark = f"[{_STYLES[line.outcome]}]{MARKS[line.outcome]}[/]"
        table.add_row(styled(mark), Text(line.name), Text(line.found))
    console.print(table)
    console.print()
    for remark in [_measured(evaluation), *_remarks(evaluation)]:
        console.print(styled("  [yellow]·[/] {}", remark), soft_wrap=True)


def markdown(evaluation: Evaluation, decision: GateDecision) -> str:
    """The card and the table of scores, as Markdown."""
    model = evaluation.model
    lines = [
        f"## {model.name}: {_SAID[decision.outcome]}",
        "",
        "| | requirement | result |",
        "|---|---|---|",
    ]
    lines += [
        f"| {_EMOJI[line.outcome]} | {line.name} | {_cell(line.found)} |" for line in decision.lines
    ]
    lines += ["", "| set | rows | base | model | difference | |", "|---|---|---|---|---|---|"]
    for result in evaluation.sets:
        cells = [
            f"{result.set} ({', '.join(result.metrics)})",
            str(result.rows),
            percent(result.base.score) if result.base is not None else "",
            percent(result.model.score),
            percent(result.difference, signed=True) if result.difference is not None else "",
            _verdict(result, decision),
        ]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    lines += ["", *(f"- {remark}" for remark in _remarks(evaluation)), ""]
    lines.append(
        f"Scores of 100, 95 % intervals; {_measured(evaluation)}. "
        f"Model `{model.digest.removeprefix('sha256:')[:12]}`."
    )
    return "\n".join(lines) + "\n"


def _measured(evaluation: Evaluation) -> str:
    """Who answered, whom that was compared with, and when: the proof may be another server's."""
    model, base = evaluation.model, evaluation.base
    beside = f" against {base.name}" if base is not None else ""
    if base is not None and base.answered != model.answered:
        beside += f" by {base.answered}"
    return f"measured on {model.answered}{beside}, {evaluation.created}"


def _verdict(result: SetResult, decision: GateDecision) -> str:
    """The set's own; a loss is what the gate says, whose bound need not be the profile's."""
    if result.set in decision.lost and result.kind == "skill":
        return "worse"
    given = result.verdict or ""
    return "inconclusive" if (result.kind, given) == ("skill", "worse") else given


def _remarks(evaluation: Evaluation) -> list[str]:
    counted = [counted_answers(result) for result in evaluation.sets]
    return [*filter(None, counted), *reach(evaluation)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
