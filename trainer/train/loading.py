"""Load the base as the recipe says, and refuse what this machine cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from contract.errors import UserError
from contract.precision_policy import Card, PrecisionPolicy, precision_policy
from contract.recipe import TrainSection
from trainer.architecture import attention_of, load_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def check_device(recipe: TrainSection) -> str:
    """The name of the device that trains.

    Raises:
        UserError: the recipe asks for a GPU that is not there, or for a precision that it lacks.
    """
    if recipe.device == "cpu":
        return f"cpu, {torch.get_num_threads()} threads"
    if not torch.cuda.is_available():
        raise UserError.one(
            "device",
            "no CUDA GPU is available",
            "Use --profile cpu, or check the driver: nvidia-smi.",
        )
    card = _card()
    # It says what the card cannot do.
    precision_policy(recipe, card)
    return card.name


def _card() -> Card:
    """The card that torch sees first."""
    return Card(torch.cuda.get_device_capability(), str(torch.cuda.get_device_name()))


def policy_of(base: Path, recipe: TrainSection) -> PrecisionPolicy:
    """How this machine trains the base."""
    card = _card() if recipe.device == "cuda" else None
    return precision_policy(recipe, card, attention_of(load_config(base)))


def computing_in(policy: PrecisionPolicy) -> torch.autocast:
    """Where a base computes in the policy's type, as it does later inside the trainer.

    On a GPU its weights are in that type already, and this changes nothing.
    """
    if policy.weights == policy.computing:
        return torch.autocast("cpu", enabled=False)
    return torch.autocast("cpu", dtype=DTYPES[policy.computing])


def load_base(base: Path, recipe: TrainSection) -> PreTrainedModel:
    """The base on its device, in the types of its policy.

    On a CPU, a 4-bit model that has generated can no longer be trained (bitsandbytes repacks its
    weights for inference): load it again for training. `held_out_loss` alone does not do this.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    policy = policy_of(base, recipe)
    quantization = None
    if policy.nf4:
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[policy.computing],
        )
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=DTYPES[policy.weights],
        quantization_config=quantization,
        device_map={"": "cpu" if recipe.device == "cpu" else 0},
        attn_implementation=policy.attention,
        local_files_only=True,
    )
    return model
