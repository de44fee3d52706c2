"""Load tokenizers and full-precision models, from folders on this machine alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# transformers' own name for the template that is used where none is asked for.
_DEFAULT = "default"


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a model's folder, with one chat template.

    Raises:
        UserError: it has several, and none that is the usual one.
    """
    tokenizer = read_tokenizer(folder)
    keep_default_template(tokenizer)
    return tokenizer


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a model's folder, as its own configuration has it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def keep_default_template(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Leave the tokenizer one chat template, where it has several with names (Hermes 3, Command R).

    What is trained, merged and served must be the same one, whatever a row holds.

    Returns:
        The names of the others.

    Raises:
        UserError: none of them is named `default`.
    """
    named = tokenizer.chat_template
    if not isinstance(named, dict):
        return []
    if _DEFAULT not in named:
        raise UserError.one(
            "model_to_fine_tune",
            f"its chat templates are named {', '.join(named)}, and none of them {_DEFAULT!r}",
            "Put the one to be used into chat_template.jinja in the base's folder.",
        )
    tokenizer.chat_template = named[_DEFAULT]
    return [name for name in named if name != _DEFAULT]


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
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return int(config.get("vocab_size") or config["text_config"]["vocab_size"])


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
