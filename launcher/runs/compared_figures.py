"""Numbers of two runs beside each other: what came of the training, and what it cost."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from contract import paths
from contract.manifest import Manifest
from contract.record import Record
from launcher.pipeline.finished_run import Run
from launcher.pipeline.training_extent import last_rate
from launcher.runs.training_result import training_result
from launcher.runtime.disk_usage import used_bytes

Unit = Literal["nats", "share", "count", "bytes", "seconds", "tokens/s"]
Figures = dict[tuple[str, Unit], float | None]


class Figure(Record):
    """A number that both runs may have; None where it was not measured."""

    name: str
    unit: Unit
    a: float | None
    b: float | None


def figures(a: Figures, b: Figures) -> list[Figure]:
    """Those that at least one run has."""
    return [
        Figure(name=name, unit=unit, a=a.get((name, unit)), b=b.get((name, unit)))
        for name, unit in {**a, **b}
        if (a.get((name, unit)), b.get((name, unit))) != (None, None)
    ]


def results(manifest: Manifest) -> Figures:
    """Of the training and on the held-out rows; nothing where another version wrote them."""
    trained = training_result(manifest)
    if trained is None:
        return {}
    evaluated = [point for point in trained.losses if point.held_out_loss is not None]
    held_out = trained.held_out
    return {
        ("steps", "count"): trained.steps,
        ("step that was kept", "count"): trained.best_step,
        ("training loss, last", "nats"): trained.losses[-1].loss if trained.losses else None,
        ("held-out loss, last", "nats"): evaluated[-1].held_out_loss if evaluated else None,
        ("held-out loss, base", "nats"): held_out.loss.base if held_out.loss else None,
        ("held-out loss, tuned", "nats"): held_out.loss.tuned if held_out.loss else None,
        ("exact match, base", "share"): held_out.exact_match.base if held_out.exact_match else None,
        ("exact match, tuned", "share"): (
            held_out.exact_match.tuned if held_out.exact_match else None
        ),
    }


def costs(run: Run) -> Figures:
    """Sizes and times."""
    manifest, trained = run.manifest, training_result(run.manifest)
    found: Figures = {("the whole run on the disk", "bytes"): used_bytes(run.folder)}
    for name in manifest.outputs:
        if name.endswith((".gguf", "adapter_model.safetensors")):
            with suppress(OSError):
                found[name, "bytes"] = (run.folder / name).stat().st_size
    if trained is not None and trained.memory is not None:
        found["memory at the training's peak", "bytes"] = trained.memory.peak_bytes
    found["training speed", "tokens/s"] = last_rate(run.folder / paths.METRICS)
    for record in manifest.stages:
        found[record.stage, "seconds"] = record.seconds
    found["all stages", "seconds"] = sum(record.seconds for record in manifest.stages)
    return found
