"""What a stage is given that runs alone: its environment, and a run's folder.

Without torch, for a benchmark whose own memory has to stay small.
"""

from __future__ import annotations

import os
from pathlib import Path

from contract import paths
from contract.base import BaseIdentity
from contract.recipe import Recipe
from launcher.runtime.engine import Job


def stage_environment() -> dict[str, str]:
    """What every engine sets for a stage.

    cuBLAS looks once, at its first call: without its variable, which transformers sets too late,
    training fails where the base was scored before.
    """
    job = Job(module="trainer.train", lock="rtx", mounts=(), log=Path(os.devnull))
    variables = job.environment_variables()
    # A stage that is told of its launcher listens to it.
    return {name: value for name, value in variables.items() if not name.startswith("AFFINEUR_")}


def begin_run(folder: Path, recipe: Recipe) -> Path:
    """A run's folder as the launcher leaves it to the first stage."""
    folder.mkdir(parents=True)
    recipe.write(folder / paths.RECIPE)
    identity = BaseIdentity(
        source=recipe.model_to_fine_tune, revision=None, digest="0" * 64, files={}
    )
    identity.write(folder / paths.BASE_RECORD)
    return folder
