"""The gate's decision for people: a card in the terminal, and in Markdown for a pull request."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from launcher.display import styled
from launcher.evaluate.record import Evaluation, GateDecision
from launcher.evaluate.report import percent, remarks


def show(evaluation: Evaluation, decision: GateDecision, console: Console) -> None:
    """Print the card."""
    said = "[bold green]ship[/]" if decision.ship else "[bold red]do not ship[/]"
    console.print(styled(f"\n{said}  {{}}\n", evaluation.model.name))
    table = Table.grid(padding=(0, 2))
    for line in decision.lines:
        mark = "[green]✓[/]" if line.passed else "[red]✗[/]"
        table.add_row(styled(mark), Text(line.name), Text(line.found))
    console.print(table)


def markdown(evaluation: Evaluation, decision: GateDecision) -> str:
    """The card and the table of scores, as Markdown."""
    model, base = evaluation.model, evaluation.base
    said = "ship" if decision.ship else "do not ship"
    lines = [f"## {model.name}: {said}", "", "| | requirement | result |", "|---|---|---|"]
    lines += [
        f"| {'✅' if line.passed else '❌'} | {line.name} | {_cell(line.found)} |"
        for line in decision.lines
    ]
    lines += ["", "| set | rows | base | model | difference | |", "|---|---|---|---|---|---|"]
    for result in evaluation.sets:
        cells = [
            f"{result.set} ({', '.join(result.metrics)})",
            str(result.rows),
            percent(result.base.score) if result.base is not None else "",
            percent(result.model.score),
            percent(result.difference, signed=True) if result.difference is not None else "",
            result.verdict or "",
        ]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    said_beside = [f"- {remark}" for result in evaluation.sets for remark in remarks(result)]
    lines += ["", *said_beside, ""] if said_beside else [""]
    beside = f" against {base.name}" if base is not None else ""
    lines.append(
        f"Scores of 100, 95 % intervals; measured on {model.by}{beside}, {evaluation.created}. "
        f"Model `{model.digest.removeprefix('sha256:')[:12]}`."
    )
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
