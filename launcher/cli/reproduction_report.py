"""`./invoke reproduce`: each file beside the run's own, and what it says of the run."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table
from rich.text import Text

from launcher.display import styled
from launcher.reproduce.record import FileComparison, Reproduction, State

_STYLES: dict[State, str] = {
    "identical": "green",
    "times differ": "green",
    "differs": "red",
    "missing": "red",
    "unexpected": "red",
}
# Of the tensors that differ, on the terminal; the record has all.
_MOST_TENSORS = 5


def show(reproduction: Reproduction, console: Console) -> None:
    """Print a line for each file, and what came of the whole."""
    console.print()
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for file in reproduction.files:
        state = Text(file.state, _STYLES[file.state])
        table.add_row(state, Text(file.file), Text(_told(file)))
    console.print(table)
    console.print()
    for line in conclusion(reproduction):
        console.print(line, soft_wrap=True)


def conclusion(reproduction: Reproduction) -> list[Text]:
    """What the comparison says of the run, in a line or a few."""
    counted = Counter(file.as_promised for file in reproduction.files)
    if reproduction.identical:
        times = [file.file for file in reproduction.files if file.state == "times differ"]
        but = f" ({', '.join(times)} but for its times)" if times else ""
        return [styled(f"[green]identical[/]  all {counted[True]} files{{}}", but)]
    first = next(file for file in reproduction.files if not file.as_promised)
    lines = [
        styled(
            f"[red]differs[/]  {counted[False]} of {len(reproduction.files)} files; the first "
            "stage that made another is {}",
            first.stage,
        )
    ]
    if reproduction.other_code:
        lines.append(Text(f"not what made the run: {'; '.join(reproduction.other_code)}"))
    lines += [
        Text(f"not as it was: {condition.name} ({condition.there}; here {condition.here})")
        for condition in reproduction.conditions
        if not condition.same
    ]
    if len(lines) == 1:
        lines.append(Text("nothing that is known to matter is another than it was"))
    return lines


def _told(file: FileComparison) -> str:
    if file.state == "identical":
        return f"sha256 {(file.digest or '')[:16]}"
    named = [f"{tensor.name}: {tensor.what}" for tensor in file.tensors[1:_MOST_TENSORS]]
    if (more := len(file.tensors) - _MOST_TENSORS) > 0:
        named.append(f"and {more} more tensors")
    return "\n".join([*file.where, *named])
