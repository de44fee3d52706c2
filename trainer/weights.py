"""Where a model's weights are in its safetensors files, and which of them an adapter changes.

The files are read by their headers (an 8-byte length, JSON, then the tensors' bytes:
https://huggingface.co/docs/safetensors, "Format"), so that one tensor at a time can be read and
written in place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from contract.errors import Problem, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INDEX = "model.safetensors.index.json"
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# The two ends of a model, which are one weight where embeddings are tied.
EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out")
_HEADS = ("lm_head", "embed_out", "output")


@dataclass(frozen=True)
class Weight:
    """One tensor in a file: its `size_bytes` bytes begin at `offset`."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int

    def read(self) -> torch.Tensor:
        """The tensor in fp32, in memory of its own.

        Raises:
            UserError: its type is not a plain floating-point one.
        """
        if self.dtype not in _DTYPES:
            raise UserError.one(
                self.file.name,
                f"has weights of type {self.dtype}, and an adapter cannot be merged into them",
                "Fine-tune the full-precision model that it was made from.",
            )
        with self.file.open("rb") as file:
            file.seek(self.offset)
            raw = bytearray(file.read(self.size_bytes))
        return torch.frombuffer(raw, dtype=_DTYPES[self.dtype]).reshape(self.shape).float()

    def write(self, file: Path, values: torch.Tensor) -> None:
        """Overwrite this tensor's bytes in a copy of its file, in the tensor's own type."""
        stored = values.to(_DTYPES[self.dtype]).contiguous()
        with file.open("r+b") as target:
            target.seek(self.offset)
            # uint8, because NumPy knows no bfloat16.
            target.write(stored.view(torch.uint8).numpy().data)


def weight_files(model: Path) -> list[Path]:
    """The safetensors files that make up the model in this folder."""
    index = model / INDEX
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return [model / name for name in sorted(names)]
    return sorted(model.glob("*.safetensors"))


def weights(model: Path) -> dict[str, Weight]:
    """Every tensor of the model in this folder by its name, from the headers alone."""
    return {name: weight for file in weight_files(model) for name, weight in _header(file)}


def _header(file: Path) -> Iterable[tuple[str, Weight]]:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header: dict[str, Any] = json.loads(opened.read(length))
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        yield name, Weight(file, entry["dtype"], shape, 8 + length + start, end - start)


def saved_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """A model's weights as `save_pretrained` would name and cut them."""
    from transformers.core_model_loading import revert_weight_conversion
    from transformers.modeling_utils import remove_tied_weights_from_state_dict

    untied = remove_tied_weights_from_state_dict(model.state_dict(), model)
    return dict(revert_weight_conversion(model, untied))


def targeted(modules: Iterable[str], found: Mapping[str, Weight]) -> dict[str, str]:
    """Module -> the name of its weight in the files, some of which omit the outermost prefix.

    Raises:
        UserError: naming every module that has no weight of its own there.
    """
    names = {}
    problems = []
    for module in modules:
        whole = f"{module}.weight"
        inner = whole.partition(".")[2]
        if whole in found:
            names[module] = whole
        elif inner in found:
            names[module] = inner
        else:
            problems.append(
                Problem(
                    where="lora_target_modules",
                    what=f"{module} has no weight of its own in the base's files, "
                    "so an adapter on it could not be merged",
                    remedy="Remove it from lora_target_modules.",
                )
            )
    if problems:
        raise UserError(problems)
    return names


def check_mergeable(modules: Iterable[str], model: Path) -> None:
    """See, before training, that an adapter on these modules can be merged into this model.

    Args:
        modules: names as in the model, `model.layers.0.self_attn.q_proj`.

    Raises:
        UserError: a module without a weight in the files, or one end of tied embeddings.
    """
    modules = list(modules)
    targeted(modules, weights(model))
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    ends = [name for name in modules if name.rpartition(".")[2] in EMBEDDINGS]
    # Gemma's files leave it to the class, which ties them.
    if ends and (config.get("tie_word_embeddings") or not _has_own_head(model)):
        raise UserError.one(
            "lora_target_modules",
            f"{ends[0]} is tied to the model's other end: an adapter on one of the two cannot be "
            "merged without changing the other",
            "Remove it from lora_target_modules.",
        )


def _has_own_head(model: Path) -> bool:
    return any(name.rpartition(".")[0].endswith(_HEADS) for name in weights(model))


def largest_bytes(found: Mapping[str, Weight], names: Iterable[str]) -> int:
    """The memory that the largest of these tensors takes in fp32."""
    return max((4 * math.prod(found[name].shape) for name in names), default=0)
