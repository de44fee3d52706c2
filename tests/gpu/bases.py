"""Bases for tests and benchmarks on a GPU machine without a network, made from seeds.

AFFINEUR_GPU_BASES names a folder in which they stay, so that what is made once serves the tests,
the benchmark and the next command. Without it each session makes its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.runtime.exclusive_lock import exclusive_lock

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FOLDER = "AFFINEUR_GPU_BASES"
# Qwen2.5-1.5B's, from its published configuration.
LAYERS = 28


def smoke(scratch: Path) -> Path:
    """The smoke base, which learns: a minute on two cores, whatever the card."""

    def make(folder: Path) -> None:
        from trainer.base.smoke import make_smoke_base

        make_smoke_base(folder, on_step=lambda *_: None)

    return _made("smoke", scratch, make)


def qwen_shaped(scratch: Path, layers: int = LAYERS) -> Path:
    """Random bf16 weights in the shape of Qwen2.5-1.5B, or of its first layers alone.

    What a step costs depends on the shape, not on what the weights say. Its tokenizer can pad and
    nothing else: the rows are tokens already (`trainings.write_rows`).
    """

    from transformers import Qwen2Config

    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=layers,
        num_attention_heads=12,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        rope_theta=1_000_000.0,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
    )
    return random_base(scratch, f"qwen-shaped-{layers}-layers", config)


def random_base(scratch: Path, name: str, config: PreTrainedConfig) -> Path:
    """Random bf16 weights in a configuration's shape, with a tokenizer that can pad."""

    def make(folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        _write_tokenizer(folder)
        model.save_pretrained(folder)

    return _made(name, scratch, make)


def _made(name: str, scratch: Path, make: Callable[[Path], None]) -> Path:
    folder = Path(os.environ.get(FOLDER) or scratch) / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Tests that run side by side take the same one.
    with exclusive_lock(folder.with_name(f".{name}"), wait=True):
        if not folder.exists():
            unfinished = folder.with_name(f"{name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>")
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), pad_token="<pad>", eos_token="<eos>"
    ).save_pretrained(folder)
