"""The tokenizer of a GGUF file, as the ordinary files of a Hugging Face folder.

transformers rebuilds byte-level vocabularies as they are. Of a SentencePiece vocabulary it takes
neither the pieces' scores, by which llama.cpp joins them, nor whether a space is put before a text:
that one is written as the SentencePiece model that it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.atomic_write import atomic_write
from contract.errors import UserError
from contract.gguf_header import GgufHeader
from trainer.merge.sentencepiece_model import first_difference, serialized

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What llama.cpp calls a SentencePiece vocabulary.
_SENTENCEPIECE = "llama"
_TOKENS, _SCORES, _TYPES = (f"tokenizer.ggml.{name}" for name in ("tokens", "scores", "token_type"))
_UNKNOWN_TYPE, _CONTROL_TYPE = 2, 3
_SPECIAL = {
    "bos_token": "bos",
    "eos_token": "eos",
    "unk_token": "unknown",
    "pad_token": "padding",
}
# What the machine that reads it adds.
_OF_THE_MACHINE = ("is_local", "local_files_only", "name_or_path")


def write_vocabulary(gguf: Path, header: GgufHeader, folder: Path) -> PreTrainedTokenizerBase:
    """Write the tokenizer's files into a folder that has its `config.json`, and load them.

    Args:
        gguf: the file, with the suffix that transformers goes by.

    Raises:
        UserError: what is written would tokenize otherwise than llama.cpp does.
    """
    from transformers import AutoTokenizer

    if header.settings.get("tokenizer.ggml.model") == _SENTENCEPIECE:
        return _write_sentencepiece(gguf, header, folder)
    tokenizer = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, local_files_only=True
    )
    tokenizer.save_pretrained(folder)
    _without_made_up_tokens(folder / "tokenizer.json", int(header.settings[_TOKENS]))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    _write_json(path, {k: v for k, v in config.items() if k not in _OF_THE_MACHINE})
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _without_made_up_tokens(path: Path, tokens: int) -> None:
    """Take out what the tokenizer's class adds where the file has it not: an `<|endoftext|>`.

    It would have a number that no row of the embeddings has.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    own = [token for token in content["added_tokens"] if token["id"] < tokens]
    if own != content["added_tokens"]:
        _write_json(path, {**content, "added_tokens": own})


def _write_sentencepiece(gguf: Path, header: GgufHeader, folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer
    from transformers.integrations.gguf import read_gguf_metadata

    metadata, _ = read_gguf_metadata(str(gguf), (_TOKENS,))
    settings = header.settings
    adds_space = bool(settings.get("tokenizer.ggml.add_space_prefix", True))
    model = sentencepiece_model(metadata, adds_space=adds_space)
    (folder / "tokenizer.model").write_bytes(model)
    special = {
        name: metadata[_TOKENS][int(settings[key])]
        for name, short in _SPECIAL.items()
        if (key := f"tokenizer.ggml.{short}_token_id") in settings
    }
    control = [
        token
        for token, kind in zip(metadata[_TOKENS], metadata[_TYPES], strict=True)
        if kind == _CONTROL_TYPE and token not in special.values()
    ]
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": (
                "GemmaTokenizer" if header.architecture.startswith("gemma") else "LlamaTokenizer"
            ),
            "add_bos_token": bool(settings.get("tokenizer.ggml.add_bos_token", True)),
            "add_eos_token": bool(settings.get("tokenizer.ggml.add_eos_token", False)),
            "add_prefix_space": adds_space,
            "legacy": False,
            "clean_up_tokenization_spaces": False,
            **special,
            "additional_special_tokens": control,
            "chat_template": header.chat_template,
        },
    )
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder, local_files_only=True
    )
    # Other readers take the fast form and build nothing.
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    if different := first_difference(model, tokenizer):
        raise UserError.one(
            "model_to_fine_tune",
            f"transformers tokenizes {different!r} otherwise than the file's SentencePiece "
            "vocabulary does",
            "Use the Hugging Face model that it was made from.",
        )
    return tokenizer


def sentencepiece_model(metadata: Mapping[str, Any], *, adds_space: bool) -> bytes:
    """The SentencePiece model whose pieces, scores and types a GGUF file lists, serialized."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    written = proto.ModelProto()
    # Their types have the same numbers.
    entries = zip(metadata[_TOKENS], metadata[_SCORES], metadata[_TYPES], strict=True)
    for piece, score, kind in entries:
        written.pieces.add(piece=piece, score=score, type=kind)
    unknown = next((n for n, p in enumerate(written.pieces) if p.type == _UNKNOWN_TYPE), 0)
    return serialized(written, (unknown, written.pieces[unknown].piece), adds_space=adds_space)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    atomic_write(path, json.dumps(values, ensure_ascii=False, indent=2) + "\n")
