"""Go through merge and convert with a stand-in for the base and an adapter of zeros."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.errors import Problem, UserError, did_you_mean
from contract.recipe import PreflightSection
from trainer.adapter import Adapter
from trainer.convert.adapter import refusal, write_adapter
from trainer.convert.llama_cpp import write_gguf
from trainer.lora import adapted_modules
from trainer.preflight.stand_in import adapt, write_zero_adapter
from trainer.weights import EMBEDDINGS, Weight, check_mergeable, targeted

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def check_targets(recipe: PreflightSection, model: PreTrainedModel) -> list[Problem]:
    """See that every name in `lora_target_modules` is one of the model's."""
    if isinstance(recipe.lora_target_modules, str):
        return []
    names = [name for name, _ in model.named_modules() if name]
    kinds = sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if type(module).__name__ in ("Linear", "Conv1D")
            and name.rpartition(".")[2] not in EMBEDDINGS
        }
    )
    return [
        Problem(
            where="lora_target_modules",
            what=f"this base has no module {target!r}",
            remedy=f"{did_you_mean(target, kinds)} Known: {', '.join(kinds)}.".lstrip(),
        )
        for target in recipe.lora_target_modules
        if not any(name == target or name.endswith(f".{target}") for name in names)
    ]


def make_adapter(
    recipe: PreflightSection, model: PreTrainedModel, folder: Path, found: list[Problem]
) -> Adapter | None:
    """The recipe's adapter, with zeros, on this model; None, and a problem, where there is none."""
    try:
        adapted = adapt(model, recipe)
    except (ValueError, TypeError, NotImplementedError, KeyError) as error:
        found.append(
            Problem(
                where="lora_target_modules",
                what=f"PEFT refuses it: {str(error).partition('. ')[0]}",
                remedy="Use --set lora_target_modules=all-linear, or names of linear modules.",
            )
        )
        return None
    # What training would adapt; saved, a fused weight's adapter may have another name.
    names = adapted_modules(adapted)
    if fused := [name for name in names if not _has_weight(adapted, name)]:
        attention = ",".join(
            kind for kind in _ATTENTION if any(name.endswith(kind) for name in names)
        )
        remedy = f"Use --set lora_target_modules=[{attention}]." if attention else ""
        found.append(
            Problem(
                where="lora_target_modules",
                what=f"{recipe.lora_target_modules} reaches fused experts ({fused[0]} and "
                f"{len(fused) - 1} more), whose adapters cannot be merged into the base's files",
                remedy=remedy,
            )
        )
        return None
    write_zero_adapter(adapted, folder)
    try:
        return Adapter.read(folder)
    except UserError as error:
        found.extend(error.problems)
        return None


def _has_weight(adapted: Any, name: str) -> bool:
    layer = adapted.base_model.model.get_submodule(name)
    weight = getattr(layer.get_base_layer(), "weight", None)
    # PEFT's wrapper of a bare parameter says which one.
    return weight is not None and not getattr(layer, "parameter_name", None)


def check_merge(adapter: Adapter, stand_in: Path, found: Mapping[str, Weight]) -> list[Problem]:
    """See that each of the adapter's products fits a weight of the base's files."""
    try:
        check_mergeable(adapter.modules, stand_in)
        targets = targeted(adapter.modules, found)
    except UserError as error:
        return list(error.problems)
    for module, name in targets.items():
        weight = found[name]
        if weight.dtype not in ("F32", "F16", "BF16"):
            return [
                Problem(
                    where="model_to_fine_tune",
                    what=f"its weights are of type {weight.dtype} ({name}), and an adapter cannot "
                    "be merged into them",
                    remedy="Fine-tune the full-precision model that it was made from.",
                )
            ]
        if (shape := adapter.delta_shape(module)) != weight.shape:
            return [
                Problem(
                    where="model_to_fine_tune",
                    what=f"{name} has the shape {weight.shape} in the files, and config.json says "
                    f"{shape}",
                    remedy="Use the config.json that belongs to these weights.",
                )
            ]
    return []


def check_served_adapter(recipe: PreflightSection, adapter: Adapter) -> list[Problem]:
    """See that the adapter can be served, where it is to be."""
    if recipe.serving == "adapter" and (why := refusal(adapter)):
        return [Problem(where="serving", what=f"adapter is not possible: {why}", remedy=_MERGED)]
    return []


def check_conversion(
    llama_cpp: Path, stand_in: Path, scratch: Path, beyond: Mapping[str, int]
) -> list[Problem]:
    """Run the converter over the tokenizer and every weight, writing nothing."""

    def convert() -> None:
        write_gguf(
            llama_cpp,
            stand_in,
            scratch / "model-f16.gguf",
            quantization="f16",
            model_name="preflight",
            dry_run=True,
        )

    return _converted(convert, "llama.cpp cannot convert it", beyond)


def check_adapter_conversion(
    llama_cpp: Path, stand_in: Path, adapter: Adapter, scratch: Path
) -> list[Problem]:
    """Run the adapter's converter, as every run does but where it is known to fail."""
    if refusal(adapter):
        return []
    gguf = scratch / "adapter-f32.gguf"

    def convert() -> None:
        write_adapter(llama_cpp, base=stand_in, adapter=adapter, gguf=gguf)

    return _converted(convert, "llama.cpp cannot convert an adapter for it", {})


def _converted(convert: Callable[[], None], what: str, beyond: Mapping[str, int]) -> list[Problem]:
    try:
        convert()
    except UserError as error:
        return list(error.problems)
    # Whatever stops it now would stop it after the training.
    except Exception as error:
        traceback.print_exc()
        return [
            Problem(
                where="model_to_fine_tune",
                what=f"{what}: {_cause(error, beyond)}",
                remedy="Fine-tune a base that llama.cpp serves.",
            )
        ]
    return []


def _cause(error: Exception, beyond: Mapping[str, int]) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    line = (frame.line or "").strip()
    if isinstance(error, AssertionError) and "vocab_size" in line and beyond:
        return (
            f"its tokenizer has {len(beyond)} tokens without a row in the embeddings "
            f"({_first(beyond)})"
        )
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}, {said[0] if said else line}"


def _first(names: Iterable[str]) -> str:
    return next(iter(names))


_MERGED = "Use merged."
