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


def load_fp32(folder: Path, *, gguf_file: str | None = None) -> PreTrainedModel:
    """The model in a folder, in fp32 on the CPU and ready to answer.

    Args:
        gguf_file: a file in the folder to read instead of safetensors; quantized weights are
            unpacked.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=gguf_file, dtype=torch.float32, local_files_only=True
    )
    return model.eval()
