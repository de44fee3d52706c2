"""Load tokenizers, from folders on this machine alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.architecture import load_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
