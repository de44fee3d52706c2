"""Small GGUF files: models that say what a test needs, with no more than that in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gguf import GGUFWriter

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


def write(
    file: Path,
    *,
    architecture: str = "llama",
    template: str | None = TEMPLATE,
    settings: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a file of this family with these settings beside its template."""
    from gguf import GGUFWriter

    file.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(file, architecture)
    if template is not None:
        writer.add_chat_template(template)
    for name, value in (settings or {}).items():
        kinds = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}
        kinds[type(value)](name, value)
    for name, values in (tensors or {"token_embd.weight": np.ones((4, 8), np.float32)}).items():
        writer.add_tensor(name, values)
    close(writer)
    return file


def close(writer: GGUFWriter) -> None:
    """Write what was added, and the file is whole."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
