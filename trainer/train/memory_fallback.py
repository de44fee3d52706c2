"""What a training does where the kernel kills it for lack of memory: it says beforehand what it
would go on with, and begins with that when it is started again.

No error can be caught then. So the launcher, which sees the kill, keeps what was said last in a
file of its own, and starts the stage anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from contract import paths
from contract.events import MemoryFallback
from contract.recipe import Recipe
from trainer.entrypoint import Reporter
from trainer.train.memory_ladder import next_rung, said

_STAGE = "train"
_NOTHING = MemoryFallback(changed=None)


def changed_by_kills(run: Path) -> dict[str, Any]:
    """The keys of the recipe that differ since the training was killed for lack of memory.

    Raises:
        UserError: another version of the launcher wrote the file.
    """
    try:
        fallback = MemoryFallback.read(run / paths.memory_fallback(_STAGE))
    except FileNotFoundError:
        return {}
    return dict(fallback.changed or {})


class FallbackCallback(TrainerCallback):
    """Says, for as long as the optimizer takes steps, what the training would go on with.

    Not before and not after: a base that does not even load, or whose answers do not fit, is not
    helped by smaller pieces of an update.

    Args:
        recipe: with what was changed.
        changed: keys of the recipe that were changed since memory ran out.
    """

    def __init__(self, recipe: Recipe, changed: dict[str, Any], reporter: Reporter) -> None:
        rung = next_rung(recipe)
        self._reporter = reporter
        self._fallback = (
            MemoryFallback(changed={**changed, **rung}, text=said(rung)) if rung else _NOTHING
        )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The model and the optimizer are there."""
        del args, state, control
        self._reporter.memory_fallback(self._fallback)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The last step is done."""
        del args, state, control
        self._reporter.memory_fallback(_NOTHING)
