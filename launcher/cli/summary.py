"""What a run ends with: what was made, whether it learned, and what to do next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from itertools import pairwise

from rich.console import Console
from rich.table import Table
from rich.text import Text

from contract import paths
from contract.manifest import StageRecord
from contract.results.train import Example, TrainResult
from launcher.cli.loss_chart import Curve, loss_chart
from launcher.display import byte_size, distinct_parts, shortened, styled
from launcher.pipeline.finished_run import Run
from launcher.project import shown
from launcher.report.upkeep import REPORT
from launcher.serving.model_import import Imported
from launcher.serving.ollama_address import address
from launcher.serving.server_choice import Ollama

_SHOWN_OUTPUTS = ("adapter/adapter_model.safetensors", "gguf/", "Modelfile")
_BARS = "▁▂▃▄▅▆▇█"


def show(run: Run, console: Console, *, imported: Imported | None, ollama: Ollama | None) -> None:
    """Print the summary; `ollama` is the server that the model was imported into."""
    manifest = run.manifest
    trained = manifest.result(TrainResult)
    console.print()
    console.print(
        styled("[bold]{}[/]  {}", manifest.recipe.output_model_name, shown(run.folder)),
        soft_wrap=True,
    )
    console.print(_outputs(run, manifest.stages))
    _scores(trained, console)
    _memory(trained, console)
    _examples(trained.held_out.examples, console)
    for line in next_steps(run, imported, ollama):
        console.print(Text(line), soft_wrap=True)
    report = run.folder / REPORT
    if report.exists():
        console.print(Text(f"The report, for any browser: {shown(report)}"), soft_wrap=True)


def next_steps(run: Run, imported: Imported | None, ollama: Ollama | None) -> list[str]:
    """How the model is asked, or how it gets into Ollama where it is not there yet."""
    if imported is not None and ollama is not None:
        there = "is in" if imported.new else "was already in"
        return [
            f"{imported.name} {there} {ollama.where}, as {imported.digest[:12]}.",
            *ollama.how_to_ask(imported.name),
        ]
    modelfile = shlex.quote(shown(run.folder / paths.MODELFILE))
    name = run.recipe.output_model_name
    return [
        f"No Ollama server responds at {address()}, so the model was not imported.",
        f"Once one is running:  ./invoke import --model {name}",
        f"or into a container:  ./invoke import --model {name} --ollama container",
        f"or with Ollama's own command:  ollama create {name} -f {modelfile}",
    ]


def _outputs(run: Run, records: Sequence[StageRecord]) -> Table:
    # The whole digests stand in the manifest.
    table = Table.grid(padding=(0, 2))
    for record in records:
        for name, digest in record.outputs.items():
            if name.startswith(_SHOWN_OUTPUTS) and not name.endswith(".json"):
                size = (run.folder / name).stat().st_size
                table.add_row(
                    Text(f"  {name}"), byte_size(size), Text(f"sha256 {digest[:16]}", "dim")
                )
    return table


def _scores(trained: TrainResult, console: Console) -> None:
    held_out = trained.held_out
    _curves(trained, console)
    if (loss := held_out.loss) is None:
        console.print("  held-out       no rows were held out, so nothing was measured")
        return
    console.print(
        styled(
            f"  held-out loss  {loss.base:.3f} -> [bold]{loss.tuned:.3f}[/]"
            f"   nats per token, over {held_out.held_out_rows} rows"
        )
    )
    if (match := held_out.exact_match) is not None:
        console.print(
            styled(
                f"  exact match    {match.base:.1%} -> [bold]{match.tuned:.1%}[/]"
                f"   of {held_out.answered_rows} held-out rows"
            )
        )


def _memory(trained: TrainResult, console: Console) -> None:
    """The peak beside what was expected, and what was changed on the way."""
    memory = trained.memory
    if memory is not None and memory.peak_bytes is not None:
        expected = [
            f"{name} {byte_size(size_bytes)}"
            for name, size_bytes in (
                ("estimated", memory.estimate_bytes),
                ("probed", memory.probe_bytes),
            )
            if size_bytes is not None
        ]
        said = f"  memory         {byte_size(memory.peak_bytes)} at its peak"
        console.print(Text(f"{said}   {', '.join(expected)}"), soft_wrap=True)
    if trained.changed:
        changed = ", ".join(f"{key} {json.dumps(value)}" for key, value in trained.changed.items())
        console.print(Text(f"  changed        {changed}"), soft_wrap=True)


def _curves(trained: TrainResult, console: Console) -> None:
    """Both losses over the steps, or the training's alone where it was not evaluated."""
    losses = [point.loss for point in trained.losses]
    evaluated = [
        (point.step, point.held_out_loss)
        for point in trained.losses
        if point.held_out_loss is not None
    ]
    if not evaluated:
        if losses:
            console.print(
                Text(f"\n  training loss  {losses[0]:.3f} {sparkline(losses)} {losses[-1]:.3f}")
            )
        return
    # Before the first step, the adapter adds nothing to the base.
    start = [(0, trained.held_out.loss.base)] if trained.held_out.loss else []
    curves = [
        Curve("training", [(p.step, p.loss) for p in trained.losses], "·", ".", "cyan"),
        Curve("held out", start + evaluated, "○", "o", "yellow"),
    ]
    best = [point for point in evaluated if point[0] == trained.best_step]
    if best:
        name = f"least, kept: step {trained.best_step}"
        curves.append(Curve(name, best, "●", "*", "bold green"))
    console.print("\n  loss, nats per token")
    plain = console.options.ascii_only
    for line in loss_chart(curves, width=console.width, plain=plain):
        console.print(line, soft_wrap=True)
    if trained.steps < trained.planned_steps:
        console.print(
            f"  stopped early after step {trained.steps} of {trained.planned_steps}",
            soft_wrap=True,
        )
    console.print()


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """The values as a row of bars, averaged to at most `width` of them."""
    pieces = min(width, len(values))
    bounds = [round(i * len(values) / pieces) for i in range(pieces + 1)]
    means = [sum(values[start:end]) / (end - start) for start, end in pairwise(bounds)]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((mean - low) * scale)] for mean in means)


def _examples(examples: Sequence[Example], console: Console) -> None:
    prompts = distinct_parts([example.prompt for example in examples])
    for number, (example, prompt) in enumerate(zip(examples, prompts, strict=True), 1):
        right = example.tuned == example.expected
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(f"  {number}", Text(shortened(prompt), "italic"))
        grid.add_row("    expected", Text(shortened(example.expected)))
        grid.add_row("    base", Text(shortened(example.base)))
        colour, mark = ("green", "✓") if right else ("red", "✗")
        grid.add_row("    tuned", Text(f"{shortened(example.tuned)} {mark}", colour))
        console.print()
        console.print(grid)
    console.print()
