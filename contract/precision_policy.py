"""How a training computes, decided in one place: from the recipe, the card and the base's class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from contract.errors import UserError
from contract.recipe import TrainSection

# Major and minor number, as CUDA names a card's generation.
Capability = tuple[int, int]
FloatType = Literal["fp32", "bf16", "fp16"]

# Ampere. Older cards emulate bf16, slower than they compute in fp32 (CUDA C++ Programming Guide,
# "Compute Capabilities": arithmetic instructions).
BF16_FROM: Capability = (8, 0)
# bitsandbytes 0.50 has kernels for NF4 from Pascal on.
NF4_FROM: Capability = (6, 0)


class Card(NamedTuple):
    """A GPU, as far as it decides how it computes, and whether a training fits it."""

    capability: Capability
    name: str
    memory_bytes: int | None = None

    def __str__(self) -> str:
        return f"{self.name} (compute capability {dotted(self.capability)})"


class Decision(NamedTuple):
    """One line of a policy: what is decided, how, and why."""

    what: str
    how: str
    why: str


@dataclass(frozen=True)
class PrecisionPolicy:
    """The types that a training computes in.

    Attributes:
        weights: of what of the base is not quantized.
        nf4: the base's linear layers are in 4 bits with double quantization (QLoRA, arXiv
            2305.14314).
        computing: of matrix products. Reductions stay in fp32 under autocast.
        adapter: of the weights that are trained, and of the optimizer's state unless that is
            8 bits wide.
        attention: transformers' name of the implementation.
    """

    weights: FloatType
    nf4: bool
    computing: FloatType
    adapter: FloatType
    attention: str

    @property
    def autocast(self) -> bool:
        """Whether operations round to `computing`, whatever type their inputs have."""
        return self.computing != "fp32"

    @property
    def scaled(self) -> bool:
        """Whether gradients are scaled before they are rounded; steps that overflow are skipped."""
        return self.computing == "fp16"


def precision_policy(
    recipe: TrainSection, card: Card | None, attention: str = "sdpa"
) -> PrecisionPolicy:
    """The policy for a recipe.

    Args:
        card: None on a CPU, and where no card is there to be asked.
        attention: what the base's class takes.

    Raises:
        UserError: the card does not compute so.
    """
    cuda = recipe.device == "cuda"
    computing: FloatType = recipe.precision
    if cuda and card is not None:
        _check_card(recipe, card)
    return PrecisionPolicy(
        # On a CPU memory is no concern: the weights keep their digits, and the operations round.
        weights=computing if cuda else "fp32",
        nf4=recipe.quantize_base == "nf4",
        computing=computing,
        # An update is a thousandth of a weight and less: eight bits of mantissa lose it.
        adapter="fp32",
        attention=attention,
    )


def decisions(
    recipe: TrainSection, policy: PrecisionPolicy, card: Card | None
) -> Iterator[Decision]:
    """The policy's lines for people, each with its reason, and what of the recipe costs memory."""
    yield Decision("compute", policy.computing, _why_computing(policy, recipe, card))
    if policy.nf4:
        yield Decision(
            "weights", f"NF4, the rest {policy.weights}", "a quarter of the memory of 16 bits"
        )
    else:
        yield Decision("weights", policy.weights, "quantize_base: none")
    scaled = (
        ("fp32, gradients scaled", "fp16 has too small a range for them")
        if policy.scaled
        else ("fp32", "an update is too small for 16 bits")
    )
    yield Decision("adapter", *scaled)
    why = (
        "the base's class takes nothing else"
        if policy.attention == "eager"
        else "the fastest that every card and CPU has"
    )
    yield Decision("attention", policy.attention, why)
    yield Decision("optimizer", recipe.optim, _why_optimizer(recipe))
    update = recipe.batch_size * recipe.gradient_accumulation_steps
    yield Decision(
        "batch",
        f"{update} rows an update",
        f"batch_size {recipe.batch_size} x gradient_accumulation_steps "
        f"{recipe.gradient_accumulation_steps}",
    )
    if recipe.packing:
        at_once = f"up to {recipe.packing_length:,} tokens at a time", "packed, without padding"
    else:
        at_once = f"{recipe.batch_size} rows at a time", "packing: false pads them to one length"
    yield Decision("micro-batch", *at_once)
    activations = (
        ("computed twice", "gradient_checkpointing: true saves memory, for one forward pass more")
        if recipe.gradient_checkpointing
        else ("kept", "gradient_checkpointing: false is faster and takes more memory")
    )
    yield Decision("activations", *activations)
    if recipe.activation_offloading:
        why = "activation_offloading: true saves the GPU's, for a copy there and back"
        yield Decision("between passes", "in main memory", why)


def _check_card(recipe: TrainSection, card: Card) -> None:
    if recipe.precision == "bf16" and card.capability < BF16_FROM:
        raise UserError.one(
            "precision",
            f"{card} does not compute in bf16, which needs {dotted(BF16_FROM)}",
            "./invoke doctor names the profile that fits. With this one: --set precision=fp16.",
        )
    if recipe.quantize_base == "nf4" and card.capability < NF4_FROM:
        raise UserError.one(
            "quantize_base",
            f"{card} has no kernels for NF4, which need {dotted(NF4_FROM)}",
            "Use --set quantize_base=none.",
        )


def _why_computing(policy: PrecisionPolicy, recipe: TrainSection, card: Card | None) -> str:
    where = str(card) if card is not None else "the processor"
    if recipe.device == "cuda" and card is None:
        where = "the card"
    if policy.computing == "fp32":
        return "nothing is rounded"
    if policy.computing == "bf16":
        return f"{where} computes in it, and it has the range of fp32"
    if card is not None and card.capability < BF16_FROM:
        return f"{where} has no bf16"
    return "every card computes in it; bf16 needs no scaling, where a card has it"


def _why_optimizer(recipe: TrainSection) -> str:
    if recipe.optim == "paged_adamw_8bit":
        return "its state takes a quarter, and moves out where memory runs short"
    if recipe.optim == "paged_adamw_32bit":
        return "its state moves out where memory runs short"
    return "its state is fp32, in memory"


def dotted(capability: Capability) -> str:
    """`8.6` for (8, 6)."""
    return f"{capability[0]}.{capability[1]}"
