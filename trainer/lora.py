"""The adapter that a recipe asks for, and the modules of a model that get one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from contract.recipe import TrainSection

if TYPE_CHECKING:
    from peft import LoraConfig


def lora_config(recipe: TrainSection) -> LoraConfig:
    """PEFT's configuration of the recipe's adapter."""
    from peft import LoraConfig

    return LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=recipe.lora_target_modules,
        use_rslora=recipe.use_rslora,
        bias="none",
        task_type="CAUSAL_LM",
    )


def adapted_modules(model: Any) -> list[str]:
    """The names of the modules that have an adapter, as in the model without one."""
    from peft.tuners.lora import LoraLayer

    return [
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    ]
