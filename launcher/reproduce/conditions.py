"""What a reproduction promises, and what it does not: what bytes depend on beside the inputs."""

from __future__ import annotations

import os
from collections.abc import Sequence

from contract.manifest import Manifest
from contract.results.train import TrainResult
from launcher.display import Display
from launcher.pipeline.training import this_machine
from launcher.reproduce.record import Condition
from launcher.runtime.engine import Engine
from launcher.runtime.gpus import training_card

_PROMISED = (
    "promised: every file the same to the byte, by the same inputs, code and locks, on the same "
    "kind of processor with as many threads"
)
_NOT_PROMISED = (
    "not promised: the same bytes on another kind of processor, with another number of threads, "
    "another GPU, engine or image builder, or by another version of this project"
)


def conditions(manifest: Manifest, engine: Engine) -> list[Condition]:
    """What no digest covers, as it was and as it is here.

    Raises:
        UserError: there is a GPU's driver, and it does not answer.
    """
    recipe, machine = manifest.recipe, this_machine()
    # Where the recipe says it, it is the same everywhere.
    threads = str(recipe.cpu_threads) if recipe.cpu_threads else ""
    found = [
        Condition(name="processor", there=manifest.machine.processor, here=machine.processor),
        Condition(
            name="threads",
            there=threads or str(manifest.machine.cores),
            here=threads or str(os.cpu_count()),
        ),
        Condition(name="engine", there=", ".join(_engines(manifest)), here=engine.name),
    ]
    if recipe.device == "cuda":
        card = training_card(recipe.device, recipe.lock, recipe.precision)
        trained_on = manifest.result(TrainResult).device
        found.append(
            Condition(name="GPU", there=trained_on, here=card.name if card else "not known")
        )
    return found


def announce(manifest: Manifest, found: Sequence[Condition], display: Display) -> None:
    """Say what is rebuilt, what is promised and what is not, and how it is here."""
    name, key = manifest.recipe.output_model_name, manifest.key[:12]
    display.note(
        f"reproduces {name} {key}, made {manifest.created} by Affineur {manifest.affineur_version}"
    )
    display.note(_PROMISED)
    display.note(_NOT_PROMISED)
    for condition in found:
        display.note(in_words(condition))


def in_words(condition: Condition) -> str:
    """`processor: AMD EPYC, as it was`."""
    if condition.same:
        return f"{condition.name}: {condition.here}, as it was"
    return f"{condition.name}: {condition.here}, and it was {condition.there}: nothing is promised"


def _engines(manifest: Manifest) -> list[str]:
    return sorted({record.engine for record in manifest.stages})
