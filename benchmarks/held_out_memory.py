"""Memory of the held-out loss against a step of the training, on a large vocabulary.

`./invoke bench held_out_memory`. A tiny Llama with Qwen's vocabulary of 151,936 tokens, so that the
head is nearly all of it, trains for one step in the trainer of the stage `train`, and
scores the same four rows of 1,024 tokens: as the stage does, and as it once did, by all logits at
once. Each runs in a process of its own; the peak is its largest resident set. What is printed last
are ratios within this run.
"""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_GOAL = 1.3
_VOCABULARY, _LENGTH, _ROWS, _PROMPT = 151_936, 1024, 4, 128
_WAYS = {
    "train": "one training step",
    "score": "held-out loss",
    "whole": "held-out loss, all logits at once",
    "load": "the model alone",
}


def make(folder: Path) -> None:
    """A Llama whose embeddings are most of its weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=_LENGTH,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def rows() -> list[Any]:
    """Prepared rows, which bear loss behind a short prompt."""
    import torch

    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(_VOCABULARY, (_ROWS, _LENGTH), generator=draw).tolist()
    mask = [int(position >= _PROMPT) for position in range(_LENGTH)]
    return [{"input_ids": row, "completion_mask": mask} for row in ids]


def load(folder: Path) -> Any:
    """The base as the smoke profile loads it, with the trainer's libraries."""
    import trl  # noqa: F401

    from contract.recipe import TrainSection
    from launcher.configuration import resolve
    from trainer.train.loading import load_base

    recipe = resolve("smoke", settings=[f"batch_size={_ROWS}", "cpu_threads=1"])
    section = recipe.section(TrainSection)
    return load_base(folder, section), section


def train(folder: Path) -> None:
    """One step on the rows."""
    from datasets import Dataset

    from trainer.lora import lora_config
    from trainer.prepared import labels_of
    from trainer.train.completion_loss import CompletionTrainer
    from trainer.train.loading import policy_of
    from trainer.train.micro_batches import MicroBatchLimits
    from trainer.train.training import training_arguments

    model, recipe = load(folder)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = training_arguments(recipe, policy_of(folder, recipe), scratch)
        arguments.max_steps = 1
        CompletionTrainer(
            limits=MicroBatchLimits(recipe.batch_size),
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict(
                {
                    "input_ids": [row["input_ids"] for row in rows()],
                    "labels": [labels_of(row) for row in rows()],
                }
            ),
            processing_class=_tokenizer(),
            peft_config=lora_config(recipe),
        ).train()


def score(folder: Path) -> None:
    """The stage's own function."""
    from trainer.entrypoint import Reporter
    from trainer.train.scoring import held_out_loss

    model, _ = load(folder)
    print(held_out_loss(model, rows(), who="base", reporter=Reporter(io.StringIO())))


def whole(folder: Path) -> None:
    """The logits of all positions at once, as most programs do it."""
    import torch
    from torch.nn.functional import cross_entropy

    model, _ = load(folder)
    ids = torch.tensor([row["input_ids"] for row in rows()])
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits
    wanted = ids.clone()
    wanted[:, :_PROMPT] = -100
    print(cross_entropy(logits[:, :-1].float().flatten(0, 1), wanted[:, 1:].flatten()).item())


def _tokenizer() -> Any:
    # The trainer pads with it and asks nothing else: the rows are tokens already.
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), pad_token="<pad>", eos_token="<eos>"
    )


def main() -> None:
    """Make the model, run each way, print peaks and ratios."""
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, "-m", __spec__.name, "make", scratch], check=True)
        for way in _WAYS:
            done = subprocess.run(
                [sys.executable, "-m", __spec__.name, way, scratch],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            peaks[way] = float(done.stdout.split()[-1])
    for way, name in _WAYS.items():
        above = (peaks[way] - peaks["load"]) / 1e9
        print(f"{name:<34} peak {peaks[way] / 1e9:5.2f} GB, {above:5.2f} GB above the model")
    for way in ("whole", "score"):
        above = (peaks[way] - peaks["load"]) / (peaks["train"] - peaks["load"])
        print(
            f"{_WAYS[way]} / training step: {peaks[way] / peaks['train']:.2f}, "
            f"above the model {above:.2f} (goal: at most {_GOAL})"
        )


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1] == "make":
        make(Path(sys.argv[2]))
    else:
        {"train": train, "score": score, "whole": whole, "load": load}[sys.argv[1]](
            Path(sys.argv[2])
        )
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
