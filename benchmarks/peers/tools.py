"""The trainers that are compared, and how each is told the same task.

What decides what is learned is told to all alike: rows, epochs, adapter, learning rate and its
course, effective batch, lengths, seed. How it is computed is left to each one's defaults: types,
activation checkpointing, padding, loss, optimizer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.peers import environments
from contract.recipe import TrainSection
from launcher.project import VERSION
from launcher.runtime.dependency_locks import pinned

# The ratios are to it.
REFERENCE = "trl sft"
_UNSLOTH = Path(__file__).resolve().parent / "unsloth_training.py"


@dataclass(frozen=True)
class Task:
    """What is trained on, and how it is to be learned.

    Attributes:
        base: the base's folder, its weights in fp32; in bf16 for a GPU.
        system: the turn that the base's chat template writes first by itself, for a trainer that
            cannot read the template.
        rows: `question` and `answer`, in order.
        run: a run of this project's up to its prepared rows.
        recipe: what of its recipe is told to the others.
    """

    base: Path
    system: str | None
    rows: list[dict[str, str]]
    run: Path
    recipe: TrainSection
    max_length: int

    @property
    def on_gpu(self) -> bool:
        """Where it trains."""
        return self.recipe.device == "cuda"


@dataclass(frozen=True)
class Tool:
    """One trainer.

    Attributes:
        name: in the table.
        package: its lock in `benchmarks/peers/`; None where it is in this project's own.
        begin: write what it needs into a folder; its command, whose first word is a program of
            its environment. Below that folder it leaves its adapter.
        gpu_alone: it trains nowhere else.
        in_project: its command is started in the project's folder, not in its own.
    """

    name: str
    package: str | None
    begin: Callable[[Task, Path], list[str]]
    gpu_alone: bool = False
    in_project: bool = False

    def impossible(self, device: str) -> str | None:
        """Why it cannot be measured on this device at all."""
        if self.gpu_alone and device == "cpu":
            return "trains on a GPU alone, and this is the CPU's table"
        return None

    @property
    def version(self) -> str:
        """Of the trainer itself."""
        if self.package:
            return environments.version(self.package)
        return pinned("rtx")["trl"] if self.name == REFERENCE else VERSION


def _affineur(task: Task, folder: Path) -> list[str]:
    run = shutil.copytree(task.run, folder / "run")
    return ["python", "-m", "trainer.train", "--run", str(run), "--base", str(task.base)]


def _trl(task: Task, folder: Path) -> list[str]:
    rows = [{"prompt": turns[:-1], "completion": turns[-1:]} for turns in _conversations(task)]
    _write_rows(folder / "rows" / "train.jsonl", rows)
    values = {
        "model_name_or_path": str(task.base),
        "dataset_name": str(folder / "rows"),
        "output_dir": str(folder / "out"),
        "use_peft": True,
        "lora_r": task.recipe.lora_rank,
        "lora_alpha": int(task.recipe.lora_alpha),
        "lora_target_modules": "all-linear",
        "use_cpu": not task.on_gpu,
        "max_length": task.max_length,
        "warmup_steps": task.recipe.warmup_ratio,
        **_shared(task),
    }
    return ["trl", "sft", *_flags(values)]


def _llamafactory(task: Task, folder: Path) -> list[str]:
    rows = [{"instruction": row["question"], "output": row["answer"]} for row in task.rows]
    _write_rows(folder / "rows" / "rows.jsonl", rows)
    columns = {"prompt": "instruction", "response": "output"}
    registered = {"rows": {"file_name": "rows.jsonl", "columns": columns}}
    (folder / "rows" / "dataset_info.json").write_text(json.dumps(registered))
    values = {
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "model_name_or_path": str(task.base),
        "dataset": "rows",
        "dataset_dir": str(folder / "rows"),
        "output_dir": str(folder / "out"),
        "lora_rank": task.recipe.lora_rank,
        "lora_alpha": int(task.recipe.lora_alpha),
        "lora_target": "all",
        "cutoff_len": task.max_length,
        "warmup_steps": task.recipe.warmup_ratio,
        **_shared(task),
    }
    return ["llamafactory-cli", "train", str(_write_yaml(folder / "train.yaml", values))]


def _ms_swift(task: Task, folder: Path) -> list[str]:
    _write_rows(folder / "rows.jsonl", [{"messages": turns} for turns in _conversations(task)])
    values = {
        "model": str(task.base),
        # A folder without a name that it knows: both bases are Llamas whose turns are ChatML's.
        "model_type": "llama",
        "template": "chatml",
        "dataset": str(folder / "rows.jsonl"),
        "output_dir": str(folder / "out"),
        "tuner_type": "lora",
        "lora_rank": task.recipe.lora_rank,
        "lora_alpha": int(task.recipe.lora_alpha),
        "target_modules": "all-linear",
        "max_length": task.max_length,
        "warmup_ratio": task.recipe.warmup_ratio,
        **_shared(task),
    }
    if task.system:
        values["system"] = task.system
    return ["swift", "sft", *_flags(values)]


def _oumi(task: Task, folder: Path) -> list[str]:
    _write_rows(folder / "rows.jsonl", [{"messages": turns} for turns in _conversations(task)])
    shared = _shared(task)
    dropout = shared.pop("lora_dropout")
    del shared["report_to"]
    values = {
        "model": {"model_name": str(task.base), "model_max_length": task.max_length},
        "data": {
            "train": {
                "datasets": [
                    {
                        "dataset_name": "text_sft_jsonl",
                        "dataset_path": str(folder / "rows.jsonl"),
                    }
                ],
                "collator_name": "text_completions_only_with_padding",
                "train_target": "FINAL_ASSISTANT_TURN",
            }
        },
        "training": {
            "trainer_type": "TRL_SFT",
            "use_peft": True,
            "output_dir": str(folder / "out"),
            "warmup_ratio": task.recipe.warmup_ratio,
            "enable_tensorboard": False,
            **shared,
        },
        "peft": {
            "lora_r": task.recipe.lora_rank,
            "lora_alpha": int(task.recipe.lora_alpha),
            "lora_dropout": dropout,
            "lora_target_modules": ["all-linear"],
        },
    }
    return ["oumi", "train", "-c", str(_write_yaml(folder / "train.yaml", values))]


def _unsloth(task: Task, folder: Path) -> list[str]:
    """By the way of its guides: its model and adapter, and TRL's trainer, which it patches."""
    _write_rows(
        folder / "rows.jsonl",
        [{"prompt": turns[:-1], "completion": turns[-1:]} for turns in _conversations(task)],
    )
    values = {
        "base": str(task.base),
        "rows": str(folder / "rows.jsonl"),
        "max_length": task.max_length,
        "lora_r": task.recipe.lora_rank,
        "lora_alpha": task.recipe.lora_alpha,
        "lora_dropout": task.recipe.lora_dropout,
        "arguments": {
            "output_dir": str(folder / "out"),
            "warmup_ratio": task.recipe.warmup_ratio,
            **{name: value for name, value in _shared(task).items() if name != "lora_dropout"},
        },
    }
    (folder / "task.json").write_text(json.dumps(values), encoding="utf-8")
    return ["python", str(_UNSLOTH), str(folder / "task.json")]


TOOLS = (
    Tool("affineur", None, _affineur, in_project=True),
    Tool(REFERENCE, None, _trl),
    Tool("LLaMA-Factory", "llamafactory", _llamafactory),
    Tool("ms-swift", "ms-swift", _ms_swift),
    Tool("Oumi", "oumi", _oumi),
    Tool("Unsloth", "unsloth", _unsloth, gpu_alone=True),
)


def _shared(task: Task) -> dict[str, Any]:
    """What most of them have under transformers' own names."""
    recipe = task.recipe
    return {
        "num_train_epochs": int(recipe.epochs),
        "per_device_train_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation_steps,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.lr_scheduler_type,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "lora_dropout": recipe.lora_dropout,
        "seed": recipe.seed,
        "report_to": "none",
    }


def _conversations(task: Task) -> list[list[dict[str, str]]]:
    return [
        [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": row["answer"]},
        ]
        for row in task.rows
    ]


def _flags(values: Mapping[str, Any]) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def _write_rows(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def _write_yaml(path: Path, values: Mapping[str, Any]) -> Path:
    YAML(typ="safe").dump(values, path)
    return path
