"""The shapes of well-known bases, from their published `config.json`, so that a plan needs none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contract.model_shape import ModelShape

_QWEN2 = {"model_type": "qwen2", "vocab_size": 151_936, "tie_word_embeddings": True}
_QWEN3 = {**_QWEN2, "model_type": "qwen3", "head_dim": 128, "num_key_value_heads": 8}
_LLAMA3 = {"model_type": "llama", "vocab_size": 128_256, "num_key_value_heads": 8}
_SMOLLM2 = {"model_type": "llama", "vocab_size": 49_152, "tie_word_embeddings": True}
_GEMMA2 = {"model_type": "gemma2", "vocab_size": 256_000, "head_dim": 256, "sliding_window": 4096}


def _config(
    family: Mapping[str, Any], layers: int, hidden: int, intermediate: int, heads: int, **more: Any
) -> dict[str, Any]:
    return {
        **family,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        **more,
    }


# By repository of the Hub; a variant that was tuned by its maker has the shape of its base.
_CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-0.5B": _config(_QWEN2, 24, 896, 4864, 14, num_key_value_heads=2),
    "Qwen/Qwen2.5-1.5B": _config(_QWEN2, 28, 1536, 8960, 12, num_key_value_heads=2),
    "Qwen/Qwen2.5-3B": _config(_QWEN2, 36, 2048, 11_008, 16, num_key_value_heads=2),
    "Qwen/Qwen2.5-7B": _config(
        _QWEN2,
        28,
        3584,
        18_944,
        28,
        num_key_value_heads=4,
        vocab_size=152_064,
        tie_word_embeddings=False,
    ),
    "Qwen/Qwen3-0.6B": _config(_QWEN3, 28, 1024, 3072, 16),
    "Qwen/Qwen3-1.7B": _config(_QWEN3, 28, 2048, 6144, 16),
    "Qwen/Qwen3-4B": _config(_QWEN3, 36, 2560, 9728, 32),
    "Qwen/Qwen3-8B": _config(_QWEN3, 36, 4096, 12_288, 32, tie_word_embeddings=False),
    "HuggingFaceTB/SmolLM2-135M": _config(_SMOLLM2, 30, 576, 1536, 9, num_key_value_heads=3),
    "HuggingFaceTB/SmolLM2-360M": _config(_SMOLLM2, 32, 960, 2560, 15, num_key_value_heads=5),
    "HuggingFaceTB/SmolLM2-1.7B": _config(_SMOLLM2, 24, 2048, 8192, 32, num_key_value_heads=32),
    "meta-llama/Llama-3.2-1B": _config(_LLAMA3, 16, 2048, 8192, 32, tie_word_embeddings=True),
    "meta-llama/Llama-3.2-3B": _config(_LLAMA3, 28, 3072, 8192, 24, tie_word_embeddings=True),
    "meta-llama/Llama-3.1-8B": _config(_LLAMA3, 32, 4096, 14_336, 32, tie_word_embeddings=False),
    "mistralai/Mistral-7B-v0.3": _config(
        {"model_type": "mistral", "vocab_size": 32_768}, 32, 4096, 14_336, 32, num_key_value_heads=8
    ),
    "google/gemma-2-2b": _config(_GEMMA2, 26, 2304, 9216, 8, num_key_value_heads=4),
    "google/gemma-2-9b": _config(_GEMMA2, 42, 3584, 14_336, 16, num_key_value_heads=8),
    "google/gemma-3-1b-pt": _config(
        {"model_type": "gemma3_text", "vocab_size": 262_144},
        26,
        1152,
        6912,
        4,
        num_key_value_heads=1,
        head_dim=256,
        sliding_window=512,
    ),
    "microsoft/Phi-3.5-mini-instruct": _config(
        {"model_type": "phi3", "vocab_size": 32_064}, 32, 3072, 8192, 32, num_key_value_heads=32
    ),
    "microsoft/Phi-4-mini-instruct": _config(
        {"model_type": "phi3", "vocab_size": 200_064},
        32,
        3072,
        8192,
        24,
        num_key_value_heads=8,
        tie_word_embeddings=True,
    ),
}
# What makers append to the names of tuned variants, and of the bases that those are made from.
_VARIANTS = ("-instruct", "-it", "-pt", "-base")


def published_shape(repository: str) -> ModelShape | None:
    """The shape of a repository of the Hub, or of a tuned variant of one; None where not known."""
    found = _BY_STEM.get(_stem(repository))
    return None if found is None else ModelShape.of(found)


def _stem(repository: str) -> str:
    name = repository.lower()
    for variant in _VARIANTS:
        name = name.removesuffix(variant)
    return name


_BY_STEM = {_stem(repository): config for repository, config in _CONFIGS.items()}
# Every one whose shape is known.
PUBLISHED = tuple(_CONFIGS)
