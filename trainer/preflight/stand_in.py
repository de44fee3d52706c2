"""A base without its weights' bytes, and an adapter of zeros: enough for the converters.

The converters read names, shapes and types, and touch no weight until they write. So the whole
chain can be gone through in seconds, with the base's own files where they are there, and with a
file of holes, as long as the weights would be, where they are not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.chat_format import ChatFormat
from contract.recipe import TrainSection
from trainer.adapter import WEIGHTS
from trainer.architecture import attention_of
from trainer.lora import lora_config
from trainer.merge.model_folder import write_config, write_tokenizer
from trainer.weights import INDEX, weight_files

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_SAFETENSORS_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def empty_model(config: PreTrainedConfig) -> PreTrainedModel:
    """The model of this configuration, all of it but the numbers in its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, attn_implementation=attention_of(config), trust_remote_code=False
        )
    return model


def write_folder(
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    weights: Mapping[str, torch.Tensor],
    folder: Path,
) -> None:
    """Write what `merge` would, with links to the base's weights, or holes in their place.

    Raises:
        UserError: as where a model is merged.
    """
    folder.mkdir()
    dtype = write_config(base, folder)
    files = weight_files(base)
    if files and all(file.is_file() for file in files):
        for file in [*files, *([base / INDEX] if (base / INDEX).is_file() else [])]:
            (folder / file.name).symlink_to(file.absolute())
    else:
        kind = _SAFETENSORS_TYPES.get(dtype, "F32")
        _write_holes(folder / "model.safetensors", weights, kind)
    write_tokenizer(base, chat_format, folder, tokenizer)


def _write_holes(file: Path, weights: Mapping[str, torch.Tensor], kind: str) -> None:
    header: dict[str, Any] = {}
    end = 0
    for name, weight in weights.items():
        start, end = end, end + weight.numel() * (4 if kind == "F32" else 2)
        header[name] = {
            "dtype": kind,
            "shape": list(weight.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.truncate(8 + len(text) + end)


def adapt(model: PreTrainedModel, recipe: TrainSection) -> PeftModel:
    """The model with the recipe's adapter, of rank 1: the modules are the same at every rank.

    Raises:
        ValueError: PEFT cannot adapt what the recipe names.
    """
    from peft import get_peft_model

    adapted: PeftModel = get_peft_model(
        model, lora_config(recipe.model_copy(update={"lora_rank": 1}))
    )
    return adapted


def write_zero_adapter(adapted: PeftModel, folder: Path) -> None:
    """Save the adapter as training would, with zeros."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir()
    shapes = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    zeros = {name: torch.zeros(weight.shape) for name, weight in shapes.items()}
    save_file(zeros, folder / WEIGHTS, metadata={"format": "pt"})
    adapted.peft_config["default"].save_pretrained(str(folder))
