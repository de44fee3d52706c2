"""Load tokenizers and full-precision models, from folders on this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a model's folder, as its own configuration has it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


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
