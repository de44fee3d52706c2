"""All of a merged model's folder but its weights: its configuration and its tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.atomic_write import atomic_write
from contract.chat_format import ChatFormat
from contract.errors import UserError
from trainer.architecture import with_architecture
from trainer.merge.sentencepiece_model import add_sentencepiece_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Copied as they are: a tokenizer that is loaded and saved again can come back as another class.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


def write_config(base: Path, folder: Path) -> str:
    """Write the base's `config.json` with today's key for the type of the weights; return it.

    Raises:
        UserError: its weights are quantized.
    """
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if config.get("quantization_config"):
        raise UserError.one(
            "model_to_fine_tune",
            "the base's own weights are quantized, and an adapter cannot be merged into them",
            "Fine-tune the full-precision model that it was made from.",
        )
    # `torch_dtype` before transformers 5.
    dtype = str(config.pop("torch_dtype", None) or config.get("dtype") or "float32")
    config = with_architecture({**config, "dtype": dtype})
    atomic_write(folder / "config.json", json.dumps(config, ensure_ascii=False, indent=2) + "\n")
    return dtype


def write_tokenizer(
    base: Path,
    chat_format: ChatFormat,
    merged: Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """Copy the base's tokenizer, with what the run settled: its chat template and its ends.

    One template, in the one place that every reader knows: a base may have several, in files of
    their own. After `write_config`.

    Args:
        tokenizer: the base's, where it is loaded already.

    Raises:
        UserError: llama.cpp's converter needs another form of the tokenizer, and it cannot be made.
    """
    for name in _TOKENIZER_FILES:
        if (base / name).exists():
            shutil.copyfile(base / name, merged / name)
            (merged / name).chmod(0o644)
    _without_added_tokens(merged / "tokenizer.json")
    _edit(
        merged / "tokenizer_config.json",
        chat_template=chat_format.template,
        # The template writes the BOS where it wants one. Without this, llama.cpp falls back on a
        # default of its own, and the served model may read one token more than the trained one.
        add_bos_token=False,
        eos_token=chat_format.ends[0],
    )
    if (merged / "special_tokens_map.json").exists():
        _edit(merged / "special_tokens_map.json", eos_token=chat_format.ends[0])
    if (base / "generation_config.json").exists():
        shutil.copyfile(base / "generation_config.json", merged / "generation_config.json")
    _edit(merged / "generation_config.json", eos_token_id=chat_format.end_ids)
    add_sentencepiece_model(merged, tokenizer)


def _without_added_tokens(path: Path) -> None:
    """Take out of a tokenizer.json the rule that puts special tokens around every text.

    The template writes them. llama.cpp's converter believes this rule, whatever the configuration
    says, and a server would add a second BOS.
    """
    if not path.exists():
        return
    rule = json.loads(path.read_text(encoding="utf-8")).get("post_processor")
    if rule is None:
        return
    kept = [one for one in rule.get("processors", [rule]) if one["type"] == "ByteLevel"]
    if rule not in kept:
        _edit(path, post_processor=kept[0] if kept else None)


def _edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    text = json.dumps({**content, **changes}, ensure_ascii=False, indent=2)
    path.unlink(missing_ok=True)
    atomic_write(path, text + "\n")
