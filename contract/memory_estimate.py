"""How much memory a training takes at its peak, by part, from the base's shape and the recipe.

All figures are bytes. Sources: QLoRA (Dettmers et al., arXiv 2305.14314) for NF4 and double
quantization; Korthikanti et al. (arXiv 2205.05198) for what a layer's backward pass keeps, here
counted for a frozen base: of a linear layer nothing is kept but what its adapter reads; Chen et al.
(arXiv 1604.06174) for computing activations twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from contract.activation_memory import (
    BYTES,
    MicroBatch,
    Widths,
    backward_bytes,
    is_adapted,
    kept_bytes,
    layer_bytes,
)
from contract.model_shape import ModelShape
from contract.precision_policy import PrecisionPolicy
from contract.recipe import TrainSection

# Of the fp32 logits that the head gives at once: trainer/train/chunked_head.py, PIECE_BYTES.
HEAD_PIECE_BYTES = 256 * 150_000 * 4
# NF4: half a byte a weight. Double quantization holds the scale of each 64 weights in a byte, and
# the scale of each 256 of those in fp32 (arXiv 2305.14314, section 3).
_NF4_BLOCK, _SCALES_BLOCK = 64, 256
# bitsandbytes' 8-bit AdamW: two states of a byte, each with an fp32 scale a block; small tensors
# keep fp32 states (`min_8bit_size`).
_ADAM_8BIT_BLOCK, _ADAM_8BIT_FROM = 256, 4096
# Logits, their logarithmic softmax and its gradient, of each position at once in the backward pass.
_LOGIT_COPIES = 3
_FP32 = 4
# Python with torch, transformers, TRL and PEFT, and their threads' buffers: the resident set of a
# training of the smoke base, without its tensors.
_CPU_RUNTIME = 1000 << 20
# CUDA's context with the kernels that are loaded into it, cuBLAS' and bitsandbytes' workspaces.
_CUDA_RUNTIME = 600 << 20


class Part(NamedTuple):
    """One line of an estimate: what takes the memory, how much, and in which form."""

    name: str
    size_bytes: int
    form: str


@dataclass(frozen=True)
class TrainingMemory:
    """A training's memory at its peak, by part.

    Attributes:
        activations: what the forward pass keeps for the backward pass.
        logits: of a piece of the completion's positions, with the gradient.
        layer: of the layer whose backward pass runs: gradients, a weight in the computing type and,
            where activations are computed twice, that layer's activations.
        loading: of the base's files beside its weights, before the training begins.
    """

    weights: Part
    adapter: Part
    gradients: Part
    optimizer: Part
    activations: Part
    logits: Part
    layer: Part
    loading: Part
    runtime: Part

    @property
    def total_bytes(self) -> int:
        """The peak: logits and a layer's backward pass are not in memory at once."""
        kept = (self.weights, self.adapter, self.gradients, self.optimizer, self.activations)
        training = sum(part.size_bytes for part in kept)
        training += max(self.logits.size_bytes, self.layer.size_bytes)
        loading = self.weights.size_bytes + self.loading.size_bytes
        return self.runtime.size_bytes + max(training, loading)

    def parts(self) -> Iterator[Part]:
        """Those that make up the total."""
        yield from (self.weights, self.adapter, self.gradients, self.optimizer, self.activations)
        yield max(self.logits, self.layer, key=lambda part: part.size_bytes)
        yield self.runtime


def largest_micro_batch(section: TrainSection, longest_row: int) -> MicroBatch:
    """The micro-batch that takes the most memory.

    Args:
        longest_row: tokens of the longest row, or `max_length` where the rows are not known.
    """
    if section.packing:
        update = section.batch_size * section.gradient_accumulation_steps * longest_row
        tokens = max(min(section.packing_length, update), longest_row)
        return MicroBatch(tokens, longest_row, flattened=True)
    return MicroBatch(section.batch_size * longest_row, longest_row)


def training_memory(
    shape: ModelShape, section: TrainSection, policy: PrecisionPolicy, batch: MicroBatch
) -> TrainingMemory:
    """The memory of a training at its peak, on the device that trains.

    Args:
        policy: as `precision_policy` decides it for the recipe, with the attention of the base.
        batch: the largest one.
    """
    widths = Widths.of(section, policy)
    adapter = adapter_parameters(shape, section)
    # Autocast keeps a copy of each trained weight, until the forward pass is over.
    cast = BYTES[policy.computing] if policy.autocast else 0
    kept = kept_bytes(shape, section, widths, batch, attention=policy.attention)
    layer = backward_bytes(shape, widths, batch) + _weight_bytes(shape, policy)
    if section.gradient_checkpointing:
        layer += layer_bytes(shape, section, widths, batch, attention=policy.attention)
    weights = base_bytes(shape, policy)
    form = f"NF4, the rest {policy.weights}" if policy.nf4 else policy.weights
    kept_as = "computed twice" if section.gradient_checkpointing else "kept"
    on_card = section.device == "cuda"
    return TrainingMemory(
        weights=Part("weights", weights, form),
        adapter=Part("adapter", adapter * (_FP32 + cast), f"{adapter:,} weights in fp32"),
        gradients=Part("gradients", adapter * _FP32, "of the adapter, fp32"),
        optimizer=Part("optimizer", optimizer_bytes(shape, section), section.optim),
        activations=Part("activations", kept, f"{kept_as}, of {batch.tokens:,} tokens"),
        logits=Part(
            "logits",
            logits_bytes(shape, policy, batch),
            f"of {_head_positions(shape, batch)} positions at a time, with their gradient",
        ),
        layer=Part("backward", layer, "of one layer at a time"),
        loading=Part(
            "loading", 0 if on_card else _file_bytes(shape, policy), "the base's files, mapped"
        ),
        runtime=Part(
            "runtime",
            _CUDA_RUNTIME if on_card else _CPU_RUNTIME,
            "CUDA's context and libraries" if on_card else "Python and its libraries",
        ),
    )


def nf4_bytes(weights: int) -> int:
    """A matrix of so many weights in NF4 with double quantization."""
    scales = -(-weights // _NF4_BLOCK)
    return -(-weights // 2) + scales + _FP32 * -(-scales // _SCALES_BLOCK)


def base_bytes(shape: ModelShape, policy: PrecisionPolicy) -> int:
    """The base's weights: embedding, head, experts and norms are not quantized."""
    counts, each = shape.parameters(), BYTES[policy.weights]
    if not policy.nf4:
        return counts.total * each
    quantized = sum(nf4_bytes(linear.weights) for linear in shape.linears())
    return shape.layers * quantized + (counts.total - counts.linear) * each


def adapter_parameters(shape: ModelShape, section: TrainSection) -> int:
    """How many weights are trained: A is (rank, inputs), B is (outputs, rank)."""
    adapted = [linear for linear in shape.linears() if is_adapted(linear, section)]
    widths = sum(linear.inputs + linear.outputs for linear in adapted)
    if shape.experts and section.lora_target_modules == "all-linear":
        # PEFT adapts each expert, with twice the rank where gate and up are one matrix, and the
        # router.
        width, hidden = shape.expert_intermediate, shape.hidden
        widths += shape.experts * (2 * (2 * width + hidden) + width + hidden)
        widths += hidden + shape.experts
    return shape.layers * section.lora_rank * widths


def optimizer_bytes(shape: ModelShape, section: TrainSection) -> int:
    """AdamW's two states of each trained weight (Dettmers et al., arXiv 2110.02861, for 8 bits).

    A paged optimizer's may move out to the host's memory, and count all the same.
    """
    if section.optim != "paged_adamw_8bit":
        return 2 * _FP32 * adapter_parameters(shape, section)
    if shape.experts:
        return 2 * adapter_parameters(shape, section)
    adapted = [linear for linear in shape.linears() if is_adapted(linear, section)]
    widths = [width for linear in adapted for width in (linear.inputs, linear.outputs)]
    return shape.layers * sum(_adam_8bit_bytes(section.lora_rank * width) for width in widths)


def logits_bytes(shape: ModelShape, policy: PrecisionPolicy, batch: MicroBatch) -> int:
    """Of the positions that go through the head at once, in the backward pass.

    Each has its logits in fp32, their logarithmic softmax, and the gradient of both; under autocast
    the head's weight is there in the computing type as well.
    """
    copies = _LOGIT_COPIES + (2 if policy.attention == "eager" else 0)
    cast = BYTES[policy.computing] if policy.computing != policy.weights else 0
    return (
        copies * _FP32 * _head_positions(shape, batch) * shape.vocab
        + cast * shape.vocab * shape.hidden
    )


def _head_positions(shape: ModelShape, batch: MicroBatch) -> int:
    return min(HEAD_PIECE_BYTES // (_FP32 * shape.vocab), batch.tokens)


def _adam_8bit_bytes(weights: int) -> int:
    if weights < _ADAM_8BIT_FROM:
        return 2 * _FP32 * weights
    return 2 * (weights + _FP32 * -(-weights // _ADAM_8BIT_BLOCK))


def _weight_bytes(shape: ModelShape, policy: PrecisionPolicy) -> int:
    """The largest matrix of a layer, in the type in which it is multiplied.

    bitsandbytes widens it to the type that it was quantized from, and then to the gradient's.
    """
    if not policy.nf4:
        return 0
    each = BYTES[policy.weights]
    if policy.weights != policy.computing:
        each += BYTES[policy.computing]
    return each * max(linear.weights for linear in shape.linears())


def _file_bytes(shape: ModelShape, policy: PrecisionPolicy) -> int:
    # Published bases are in 16 bits. Where nothing has to be changed, the weights are the mapping.
    return 2 * shape.parameters().total if policy.nf4 or policy.weights == "fp32" else 0
