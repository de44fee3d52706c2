"""Load tokenizers and full-precision models, from folders on this machine alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.architecture import load_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a model's folder, as its own configuration has it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def declared_ends(base: Path) -> list[int]:
    """The ids that a model's generation_config.json has as `eos_token_id`."""
    path = base / "generation_config.json"
    if not path.exists():
        return []
    declared = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    if declared is None:
        return []
    return [int(id) for id in (declared if isinstance(declared, list) else [declared])]


def embedded_tokens(base: Path) -> int:
    """How many tokens have a row in a model's embeddings, by its configuration."""
    return int(load_config(base).get_text_config().vocab_size)


def load_fp32(model: Path) -> PreTrainedModel:
    """The model in a Hugging Face folder or in a GGUF file, in fp32 on the CPU, ready to answer.

    Quantized weights of a GGUF are unpacked.
    """
    import torch
    from transformers import AutoModelForCausalLM

    is_gguf = model.suffix == ".gguf"
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        model.parent if is_gguf else model,
        gguf_file=model.name if is_gguf else None,
        dtype=torch.float32,
        local_files_only=True,
    )
    return loaded.eval()
