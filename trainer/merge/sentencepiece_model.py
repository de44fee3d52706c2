"""The SentencePiece model of a tokenizer that comes as `tokenizer.json` alone.

llama.cpp's converter reads Gemma's vocabulary from `tokenizer.model` and from nothing else. The
JSON file says the same in another way: a byte-pair encoding with byte fallback, whose merges are
the pieces in the order of their scores. Written anew, the model is compared with the original on
texts before anything relies on it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.errors import UserError
from trainer.loading import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODEL = "tokenizer.model"
# Whose vocabularies the converter reads from `tokenizer.model` alone.
_READ_FROM_MODEL = {"gemma", "gemma2", "gemma3", "gemma3_text"}
_SPACE = "▁"
_UNKNOWN = "<unk>"
_PROBES = (
    "Hello, world!",
    " a space in front,  two within, three   and one behind ",
    "line\nline\n\nline\n\n\n  indented\n\tby a tab\t\tby two\r\n",
    "Où est passé l'été ? C’est ça — « déjà vu », cœur, naïveté…",
    "Größe, señor, fjörður, žluťoučký kůň, Ελληνικά, Русский, العربية, עברית, हिन्दी, ไทย",
    "日本語のテキスト、中文文本，한국어 텍스트",
    "emoji 🎯👩‍👩‍👧‍👦🇫🇷, signs ∑∂≈≠, combined é, rare 𓀀 𝔘𝔫𝔦",
    '{"a": [1, 2.50, -3e-05, true, null], "b": "c\\n"}',
    "def f(x):\n    return [i ** 2 for i in range(x) if i % 2 == 0]  # squares\n",
    "<table><tr><td>1234567890</td></tr></table> &amp; http://a.b/c?d=e_f#g",
    "aaaaaaaaaaaaaaaa      bbbbbbbbbbbbbbbbbbbbbbbb\n\n\n\n\n\n",
    "unbelievably internationalization antidisestablishmentarianism supercalifragilistic",
)


def add_sentencepiece_model(folder: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> bool:
    """Write the model's `tokenizer.model` where the converter needs it and the base has none.

    Args:
        folder: a model's folder, with `config.json` and the tokenizer's files.
        tokenizer: the one that is in it, where it is loaded already.

    Returns:
        Whether it was written.

    Raises:
        UserError: the tokenizer is of another kind, or the written model cuts a text otherwise.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") not in _READ_FROM_MODEL or (folder / MODEL).exists():
        return False
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    model = content.get("model") or {}
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        raise _refusal("its tokenizer.json holds no byte-pair encoding with byte fallback")
    written = sentencepiece_model(content)
    if different := first_difference(written, tokenizer or load_tokenizer(folder)):
        raise _refusal(f"one made from tokenizer.json tokenizes {different!r} differently")
    (folder / MODEL).write_bytes(written)
    return True


def sentencepiece_model(content: dict[str, Any]) -> bytes:
    """The SentencePiece model that says what a `tokenizer.json` says, serialized."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    vocabulary: dict[str, int] = content["model"]["vocab"]
    added = {token["content"]: token for token in content.get("added_tokens", [])}
    unknown = content["model"].get("unk_token") or _UNKNOWN
    kind = proto.ModelProto.SentencePiece
    written = proto.ModelProto()
    for number, (piece, _) in enumerate(sorted(vocabulary.items(), key=lambda item: item[1])):
        token = added.get(piece)
        # In a byte-pair vocabulary of SentencePiece, ids are ranks.
        entry = written.pieces.add(piece=piece, score=-float(number))
        if piece == unknown:
            entry.type = kind.UNKNOWN
        elif token is not None:
            entry.type = kind.CONTROL if token["special"] else kind.USER_DEFINED
        elif _is_byte(piece):
            entry.type = kind.BYTE
        else:
            entry.type = kind.NORMAL
    return serialized(written, (vocabulary.get(unknown, 0), unknown), adds_space=False)


def serialized(written: Any, unknown: tuple[int, str], *, adds_space: bool) -> bytes:
    """A `ModelProto` with its pieces, as a byte-pair model with byte fallback, serialized.

    Args:
        unknown: the id and the text of its piece for what it does not know.
        adds_space: whether it puts a space in front of every text.
    """
    trainer = written.trainer_spec
    trainer.model_type = trainer.BPE
    trainer.byte_fallback = True
    trainer.vocab_size = len(written.pieces)
    trainer.unk_id, trainer.unk_piece = unknown
    # None of them is added by itself; -1 is SentencePiece's word for that.
    trainer.bos_id = trainer.eos_id = trainer.pad_id = -1
    written.normalizer_spec.name = "identity"
    written.normalizer_spec.add_dummy_prefix = adds_space
    written.normalizer_spec.remove_extra_whitespaces = False
    written.normalizer_spec.escape_whitespaces = True
    return bytes(written.SerializeToString())


def first_difference(model: bytes, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The first of the probes that the two cut differently, or None."""
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=model)
    for probe in _PROBES:
        if processor.encode(probe) != tokenizer(probe, add_special_tokens=False)["input_ids"]:
            return probe
    return None


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _refusal(why: str) -> UserError:
    return UserError.one(
        "tokenizer.model",
        f"is missing, llama.cpp's converter needs it for this architecture, and {why}",
        "Copy tokenizer.model from the base's original repository into its folder.",
    )
