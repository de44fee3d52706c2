"""Compare the header of a GGUF file with the model that it was made from."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from contract.errors import Problem, UserError
from trainer.loading import load_tokenizer

# What llama.cpp takes where the file does not say.
_LLAMA_CPPS_THETA = 10000.0


def check_header(gguf: Path, merged: Path) -> None:
    """Compare the file's tokenizer settings with the merged model's.

    With one BOS too many, or without the template, the file still loads, and every answer is
    spoiled.

    Raises:
        UserError: naming every setting that differs.
    """
    header = read_header(gguf)
    tokenizer = load_tokenizer(merged)
    config = json.loads((merged / "tokenizer_config.json").read_text(encoding="utf-8"))
    config_of_model = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    expected: dict[str, Any] = {
        "tokenizer.chat_template": tokenizer.chat_template,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
    }
    # Where it is missing, llama.cpp's default for byte-level vocabularies is no BOS.
    if "tokenizer.ggml.add_bos_token" in header or config.get("add_bos_token"):
        expected["tokenizer.ggml.add_bos_token"] = bool(config.get("add_bos_token"))
    # Without it, positions are read at another scale, which only long texts would show.
    theta = (config_of_model.get("rope_parameters") or {}).get("rope_theta")
    theta = theta or config_of_model.get("rope_theta")
    base = f"{header['general.architecture']}.rope.freq_base"
    if theta is not None and (base in header or theta != _LLAMA_CPPS_THETA):
        expected[base] = struct.unpack("f", struct.pack("f", theta))[0]
    differing = [
        Problem(
            where=f"gguf/{gguf.name}",
            what=f"{name} is {_short(header.get(name))}, and the merged model's is {_short(value)}",
        )
        for name, value in expected.items()
        if header.get(name) != value
    ]
    if differing:
        raise UserError(differing)


def read_header(gguf: Path) -> dict[str, Any]:
    """The file's scalar and string settings by name, without arrays (the vocabulary)."""
    from gguf import GGUFReader, GGUFValueType

    return {
        name: field.contents()
        for name, field in GGUFReader(gguf).fields.items()
        if field.types and field.types[0] != GGUFValueType.ARRAY
    }


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
