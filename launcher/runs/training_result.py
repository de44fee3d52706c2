"""What a run's training reported, where this version can read it."""

from __future__ import annotations

from contextlib import suppress

from contract.errors import UserError
from contract.manifest import Manifest
from contract.results.train import TrainResult


def training_result(manifest: Manifest) -> TrainResult | None:
    """None where there is none, or another version wrote it."""
    with suppress(LookupError, UserError):
        return manifest.result(TrainResult)
    return None
