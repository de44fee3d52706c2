"""What `config.json` says, before anything is made of it: whether this base can be trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contract.errors import Problem
from trainer.architecture import causal_class

_OF_OTHER_KINDS = {
    "vision_config": "images",
    "audio_config": "sound",
    "speech_config": "sound",
    "visual": "images",
}


def read_configuration(base: Path) -> dict[str, Any] | Problem:
    """The values of the base's `config.json`, or what is wrong with the file."""
    try:
        values = json.loads((base / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return Problem(where="config.json", what=f"cannot be read: {error}")
    if not isinstance(values, dict):
        return Problem(where="config.json", what="is no JSON object")
    return values


def check_model_class(values: Mapping[str, Any]) -> list[Problem]:
    """See that transformers has a causal language model of this kind, made of text alone."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    model_type = values.get("model_type")
    if other := [what for key, what in _OF_OTHER_KINDS.items() if values.get(key)]:
        return [
            _refusal(
                f"it has parts for {other[0]} ({model_type}), and only models of text alone can "
                "be trained",
                "Use a text-only model of the same family, such as google/gemma-3-1b-it of "
                "Gemma 3.",
            )
        ]
    if values.get("is_encoder_decoder"):
        return [_refusal(f"it is an encoder-decoder model ({model_type})", _CAUSAL)]
    if model_type in CONFIG_MAPPING_NAMES:
        name = causal_class(str(model_type))
        if name is None:
            return [_refusal(f"{model_type} is no causal language model", _CAUSAL)]
        return _check_architectures(values.get("architectures") or [], name)
    if values.get("auto_map"):
        return [
            _refusal(
                f"it needs code of its own ({model_type}), which is not run",
                "Use a base whose architecture transformers has itself.",
            )
        ]
    if model_type is None:
        return [Problem(where="config.json", what="has no model_type", remedy=_CAUSAL)]
    return [
        _refusal(f"the locked transformers does not know the architecture {model_type!r}", _CAUSAL)
    ]


def _check_architectures(named: list[str], causal: str) -> list[Problem]:
    # Files say older names of the same class, such as LLaMAForCausalLM.
    if not named or named[0] == causal or named[0].endswith(("ForCausalLM", "LMHeadModel")):
        return []
    return [
        _refusal(
            f"its weights are those of {named[0]}, which has no language model's head", _CAUSAL
        )
    ]


def check_not_quantized(values: Mapping[str, Any]) -> list[Problem]:
    """See that an adapter can be merged into the base's own weights."""
    quantization = values.get("quantization_config")
    if not quantization:
        return []
    method = quantization.get("quant_method", "unknown method")
    return [
        _refusal(
            f"its own weights are quantized ({method}), and an adapter cannot be merged into them",
            "Fine-tune the full-precision model that it was made from.",
        )
    ]


def check_converter(values: Mapping[str, Any], known: frozenset[str]) -> list[Problem]:
    """See that llama.cpp's converter has the architecture."""
    named = values.get("architectures") or []
    if named and named[0] not in known:
        return [
            _refusal(
                f"llama.cpp cannot convert it: it has no converter for {named[0]}",
                "Fine-tune a base whose architecture llama.cpp serves.",
            )
        ]
    return []


def _refusal(what: str, remedy: str) -> Problem:
    return Problem(where="model_to_fine_tune", what=what, remedy=remedy)


_CAUSAL = "Use a decoder-only language model, such as Qwen/Qwen2.5-1.5B-Instruct."
