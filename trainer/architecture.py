"""What a base's `config.json` says of its model: the class, the attention, the context."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def load_config(folder: Path) -> PreTrainedConfig:
    """The configuration in a model's folder, of one of transformers' own classes."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def causal_class(model_type: str) -> str | None:
    """The name of the class that `AutoModelForCausalLM` takes, or None where it has none."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    found: str | None = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    return found


def with_architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a `config.json` with `architectures`, which llama.cpp's converter goes by.

    A folder that was saved from a GGUF lacks it; the class that loads it is known all the same.
    """
    values = dict(config)
    if not values.get("architectures"):
        name = causal_class(str(values.get("model_type")))
        if name is not None:
            values["architectures"] = [name]
    return values


def attention_of(config: PreTrainedConfig) -> str:
    """`sdpa`, or `eager` where the model's class takes nothing else (Gemma 2, gpt-oss)."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    return "sdpa" if MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]._supports_sdpa else "eager"


def context_tokens(config: PreTrainedConfig) -> int | None:
    """The longest text that the model was made for, or None where its positions have no end."""
    text = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        if isinstance(found := getattr(text, name, None), int):
            return found
    return None
