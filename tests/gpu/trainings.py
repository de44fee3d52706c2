"""Trainings by the stages themselves, in the Python at hand: no engine, no server, no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from contract import paths
from contract.atomic_write import atomic_write
from contract.chat_format import ChatFormat
from contract.recipe import Recipe
from contract.results.train import TrainResult
from launcher.project import ROOT
from tests import stage_runs
from tests.conftest import stage
from trainer.prepared import PreparedRow

# What the smoke profile and the smoke base need; all else is the profile's own. Dropout draws
# other masks in each precision.
SMOKE_TASK = [
    "model_to_fine_tune=smoke",
    "dataset_path=data/training/smoke.jsonl",
    "evaluation_path=data/evaluation/smoke.jsonl",
    "output_model_name=affineur-gpu",
    "max_length=512",
    "epochs=3",
    "learning_rate=3e-3",
    "batch_size=8",
    "gradient_accumulation_steps=1",
    "lora_dropout=0",
    "max_grad_norm=1",
    "held_out_answers=60",
    "max_new_tokens=48",
]


@dataclass(frozen=True)
class Training:
    """A run's folder after the stage `train`, and what the stage found out."""

    folder: Path
    result: TrainResult

    def adapter(self) -> dict[str, torch.Tensor]:
        """The weights that were saved."""
        from safetensors.torch import load_file

        return dict(load_file(self.folder / paths.ADAPTER / "adapter_model.safetensors"))

    def adapter_bytes(self) -> dict[str, bytes]:
        """Every file of the adapter, by name."""
        files = (self.folder / paths.ADAPTER).iterdir()
        return {file.name: file.read_bytes() for file in files}


def prepare(folder: Path, recipe: Recipe, base: Path) -> Path:
    """A run with its prepared rows, by the stage `prepare`."""
    stage_runs.begin_run(folder, recipe)
    flags = ["--run", str(folder), "--base", str(base), "--data", str(ROOT / recipe.dataset_path)]
    if recipe.evaluation_path:
        flags += ["--evaluation", str(ROOT / recipe.evaluation_path)]
    code, events, log = stage("trainer.prepare", *flags)
    assert code == 0, (events[-1], log)
    return folder


def train(folder: Path, base: Path) -> Training:
    """Train in a process of its own, as an engine does."""
    code, events, log = stage("trainer.train", "--run", str(folder), "--base", str(base))
    assert code == 0, (events[-1], log)
    return Training(folder, TrainResult.model_validate(events[-1]["values"]))


def write_rows(folder: Path, lengths: Sequence[int], vocabulary: int = 151_936) -> None:
    """Prepared rows of random tokens, the second half of each learned, and none held out.

    Args:
        folder: the run's.
        lengths: the tokens of each row.
        vocabulary: the base's number of tokens.
    """
    draw = torch.Generator().manual_seed(1)
    rows = [_row(number, length, vocabulary, draw) for number, length in enumerate(lengths)]
    (folder / paths.PREPARED).mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    atomic_write(folder / paths.PREPARED_TRAIN, lines)
    atomic_write(folder / paths.PREPARED_HELD_OUT, "")
    ChatFormat(
        template="", end="", ends=["<eos>"], end_ids=[1], thinking=None, needs_template_engine=None
    ).write(folder / paths.CHAT_FORMAT)


def _row(number: int, length: int, vocabulary: int, draw: torch.Generator) -> PreparedRow:
    ids = torch.randint(2, vocabulary, (length,), generator=draw).tolist()
    prompt = length // 2
    return PreparedRow(
        where=f"row {number + 1}",
        messages=[],
        tools=[],
        input_ids=ids,
        completion_mask=[int(position >= prompt) for position in range(length)],
        prompt_ids=ids[:prompt],
    )
