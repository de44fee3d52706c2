"""The adapter as a GGUF file of its own, where llama.cpp adds what the merge would add."""

from __future__ import annotations

import tempfile
from pathlib import Path

from trainer.adapter import Adapter
from trainer.convert.llama_cpp import write_adapter_gguf
from trainer.weights import EMBEDDINGS


def refusal(adapter: Adapter) -> str:
    """Why this adapter cannot be converted correctly, or an empty string.

    An adapter on an embedding or on the head is converted silently, and then fails or crashes
    when it is loaded.
    """
    ends = [name for name in adapter.modules if name.rpartition(".")[2] in EMBEDDINGS]
    if ends:
        return f"llama.cpp cannot load an adapter on {ends[0]}"
    if adapter.settings.get("fan_in_fan_out"):
        return "llama.cpp's converter does not support fan_in_fan_out"
    return ""


def write_adapter(llama_cpp: Path, *, base: Path, adapter: Adapter, gguf: Path) -> None:
    """Convert an adapter to which `refusal` has no objection.

    Raises:
        UserError: llama.cpp does not know the base's architecture.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "adapter"
        folder.mkdir()
        # llama.cpp's converter reads nothing but alpha and would lose every other scale.
        adapter.write_scaled(folder)
        write_adapter_gguf(llama_cpp, base=base, adapter=folder, gguf=gguf)
