"""The adapter as a GGUF file of its own, where llama.cpp adds the same as the merge does."""

from __future__ import annotations

import tempfile
from pathlib import Path

from trainer.adapter import Adapter
from trainer.convert.llama_cpp import write_adapter_gguf
from trainer.weights import EMBEDDINGS


def refusal(adapter: Adapter) -> str:
    """Why this adapter has no GGUF form that is right, or an empty string.

    An adapter on an embedding or on the head is converted without a word, and then fails or
    crashes when it is loaded.
    """
    ends = [name for name in adapter.modules if name.rpartition(".")[2] in EMBEDDINGS]
    if ends:
        return f"llama.cpp cannot load one on {ends[0]}"
    if adapter.settings.get("fan_in_fan_out"):
        return "llama.cpp's converter does not know fan_in_fan_out"
    return ""


def write_adapter(llama_cpp: Path, base: Path, adapter: Adapter, gguf: Path) -> None:
    """Convert an adapter that `refusal` has nothing against.

    Raises:
        UserError: llama.cpp does not know the base's architecture.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "adapter"
        folder.mkdir()
        # llama.cpp's converter reads alpha alone and would lose every other scale.
        adapter.write_scaled(folder)
        write_adapter_gguf(llama_cpp, base, folder, gguf)
