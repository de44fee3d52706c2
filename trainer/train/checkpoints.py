"""Checkpoints of a training: whole or not there, verified when they are read, the last few kept.

A checkpoint holds all that decides what comes next: the adapter, the optimizer, the learning rate's
schedule, the gradient scaler, the random numbers, the best adapter so far, and what was reported.
A training that goes on from one makes the same adapter, to the byte, as one that was never cut off.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field, JsonValue
from safetensors.torch import load_file, save_file

from contract import paths
from contract.atomic_write import flush_to_disk
from contract.digest import digest_of_file, files_below
from contract.errors import UserError
from contract.record import Record
from contract.results.train import TrainingMetrics

_ADAPTER = "adapter.safetensors"
_BEST = "best.safetensors"
_STATE = "training.json"
# Written last: the digest of every other file.
_MARKER = "complete.json"
_UNFINISHED = ".unfinished"


class TrainingState(Record):
    """What a training knows beside its tensors, after a step.

    Attributes:
        step: optimizer steps so far.
        summed_loss: of the steps since the last line of metrics.
        last_logged_step: that of the last line of metrics.
        tokens: trained so far.
        seconds: trained so far, without loading the model.
        metrics: every line so far.
        held_out_losses: by the step that was evaluated.
        best_step: the evaluated step of least held-out loss; None where none was.
        best_loss: its held-out loss, in nats per token.
        evaluations_since: how many did not fall below it.
        resumed_after: the steps after which the training was cut off before.
        changed: keys of the recipe that were changed since memory ran out.
    """

    step: int
    summed_loss: float
    last_logged_step: int
    tokens: int
    seconds: float
    metrics: list[TrainingMetrics]
    held_out_losses: dict[int, float]
    best_step: int | None
    best_loss: float
    evaluations_since: int
    resumed_after: list[int]
    changed: dict[str, JsonValue] = Field(default_factory=dict)


class _Marker(Record):
    """The digest of every file of a checkpoint, by its name."""

    files: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found whole.

    `folder` holds the files that transformers' trainer reads as well (its optimizer, scheduler,
    scaler, random numbers and state).
    """

    folder: Path
    state: TrainingState

    def adapter(self) -> dict[str, torch.Tensor]:
        """The adapter's weights, by the names of the model's parameters."""
        return _loaded(self.folder / _ADAPTER)

    def best(self) -> dict[str, torch.Tensor]:
        """Those of the best adapter so far; empty where none was evaluated."""
        path = self.folder / _BEST
        return _loaded(path) if path.exists() else {}


class CheckpointStore:
    """The checkpoints of one training, in a folder of their own.

    Args:
        folder: need not exist.
        kept: how many of the last ones stay.
    """

    def __init__(self, folder: Path, *, kept: int) -> None:
        self.folder = folder
        self._kept = kept

    def newest(self, note: Callable[[str], None]) -> Checkpoint | None:
        """The last checkpoint that is whole. Those after it are removed, and said.

        Args:
            note: is told of each damaged one.
        """
        for folder in self.folder.glob(f"*{_UNFINISHED}"):
            shutil.rmtree(folder)
        for folder in reversed(self._folders()):
            try:
                return _verified(folder)
            except (OSError, UserError, _DamagedError) as error:
                note(f"the checkpoint {folder.name} is damaged ({error}), and is not used")
                shutil.rmtree(folder)
        return None

    def save(
        self,
        state: TrainingState,
        *,
        adapter: Mapping[str, torch.Tensor],
        best: Mapping[str, torch.Tensor],
        save_trainer: Callable[[Path], None],
    ) -> None:
        """Write a checkpoint, and remove all but the last few.

        Args:
            adapter: weights by the names of the model's parameters, as in `Checkpoint.adapter`.
            best: likewise; empty where none was evaluated.
            save_trainer: writes what transformers' trainer reads again into a folder.
        """
        folder = self.folder / paths.checkpoint_name(state.step)
        unfinished = folder.with_name(folder.name + _UNFINISHED)
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            self._write(unfinished, state, adapter=adapter, best=best, save_trainer=save_trainer)
        except Exception:
            # Its space is wanted for what was trained so far.
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
        flush_to_disk(self.folder)
        for old in self._folders()[: -self._kept]:
            shutil.rmtree(old)

    def _write(
        self,
        unfinished: Path,
        state: TrainingState,
        *,
        adapter: Mapping[str, torch.Tensor],
        best: Mapping[str, torch.Tensor],
        save_trainer: Callable[[Path], None],
    ) -> None:
        unfinished.mkdir(parents=True)
        save_trainer(unfinished)
        save_file(dict(adapter), unfinished / _ADAPTER)
        if best:
            save_file(dict(best), unfinished / _BEST)
        state.write(unfinished / _STATE)
        files = files_below(unfinished)
        for file in files:
            flush_to_disk(file)
        _Marker(files={file.name: digest_of_file(file) for file in files}).write(
            unfinished / _MARKER
        )

    def _folders(self) -> list[Path]:
        """From the first step to the last."""
        found = {}
        for folder in self.folder.glob(paths.checkpoint_name("*")):
            if (step := paths.checkpoint_step(folder.name)) is not None:
                found[step] = folder
        return [found[step] for step in sorted(found)]


class _DamagedError(Exception):
    """A file of a checkpoint is not what was written."""


def _loaded(path: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(path)
    return weights


def _verified(folder: Path) -> Checkpoint:
    marker = _Marker.read(folder / _MARKER)
    there = {file.name for file in files_below(folder)} - {_MARKER}
    if wrong := there ^ set(marker.files):
        raise _DamagedError(f"{min(wrong)} is missing or was not written with it")
    for name, digest in marker.files.items():
        if digest_of_file(folder / name) != digest:
            raise _DamagedError(f"{name} is not what was written")
    return Checkpoint(folder, TrainingState.read(folder / _STATE))
