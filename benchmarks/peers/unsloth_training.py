"""Train with Unsloth as its guides do, from a task's file: python unsloth_training.py task.json

In Unsloth's own environment, on a GPU. Its defaults stand: kernels, activations computed twice.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def train(task: dict[str, Any]) -> None:
    """Write an adapter into the folder that the arguments name."""
    # Before all others: it patches them.
    from unsloth import FastLanguageModel  # isort: skip

    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    arguments = task["arguments"]
    model, tokenizer = FastLanguageModel.from_pretrained(
        task["base"], max_seq_length=task["max_length"], load_in_4bit=False
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=task["lora_r"],
        target_modules=list(_LINEAR),
        lora_alpha=task["lora_alpha"],
        lora_dropout=task["lora_dropout"],
        use_gradient_checkpointing="unsloth",
        random_state=arguments["seed"],
    )
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=load_dataset("json", data_files=task["rows"], split="train"),
        args=SFTConfig(max_length=task["max_length"], completion_only_loss=True, **arguments),
    )
    trainer.train()
    model.save_pretrained(arguments["output_dir"])


if __name__ == "__main__":
    train(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
