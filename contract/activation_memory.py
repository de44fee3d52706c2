"""What one decoder layer keeps for its backward pass where the base is frozen and LoRA is trained.

Counted tensor by tensor, as autograd saves them (Korthikanti et al., arXiv 2205.05198, section 4,
counts a layer that is trained itself). A frozen linear layer keeps nothing; its adapter keeps the
input of A and that of B. All sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from contract.model_shape import Linear, ModelShape
from contract.precision_policy import PrecisionPolicy
from contract.recipe import TrainSection

_FP32 = 4
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one forward pass.

    Attributes:
        tokens: of all rows, padding included.
        longest_row: tokens of the longest.
        flattened: the rows follow one another, and attention takes each by itself
            (trainer/train/packed_attention.py); else each is padded to the longest.
    """

    tokens: int
    longest_row: int
    flattened: bool = False

    @property
    def mask_elements(self) -> int:
        """Of the mask that attention is given: none of one row, and of rows without padding."""
        if self.tokens <= self.longest_row or self.flattened:
            return 0
        return self.tokens * self.longest_row

    @property
    def score_elements(self) -> int:
        """Of one head's attention scores, where they are computed."""
        return self.tokens * (self.tokens if self.flattened else self.longest_row)


@dataclass(frozen=True)
class Widths:
    """Bytes of a number in each place of a layer.

    Attributes:
        stream: between layers.
        output: what a linear layer gives.
        computing: what it and its adapter take.
        noise: of dropout's mask; 0 without dropout.
        copied: each adapter keeps an input of its own, and does not share the layer's.
        cast_weights: of a frozen weight's copy in the computing type, which autocast makes at each
            use and autograd keeps; 0 where the weight has that type, or is quantized.
    """

    stream: int
    output: int
    computing: int
    noise: int
    copied: bool
    cast_weights: int

    @classmethod
    def of(cls, section: TrainSection, policy: PrecisionPolicy) -> Widths:
        """Those of a recipe with its policy."""
        stream, computing = BYTES[policy.weights], BYTES[policy.computing]
        cast = stream != computing
        # bitsandbytes gives back the type that it was given (`Linear4bit.forward`).
        output = stream if policy.nf4 else computing
        on_card = section.device == "cuda"
        noise = 0
        if section.lora_dropout:
            # CUDA has a kernel that draws booleans; on a CPU the noise is as wide as the input.
            noise = 1 if on_card else _FP32
        # PEFT widens the input to the adapter's fp32, and autocast rounds it again; for a 4-bit
        # layer it looks whether autocast is on, and looks on a card alone.
        widened = computing != _FP32 and not (on_card and policy.nf4)
        return cls(
            stream=stream,
            output=output,
            computing=computing,
            noise=noise,
            copied=noise > 0 or widened,
            cast_weights=computing if cast and not policy.nf4 else 0,
        )


def is_adapted(linear: Linear, section: TrainSection) -> bool:
    """Whether an adapter is added to this linear layer."""
    targets = section.lora_target_modules
    return targets == "all-linear" or linear.name in targets


def layer_bytes(
    shape: ModelShape, section: TrainSection, widths: Widths, batch: MicroBatch, *, attention: str
) -> int:
    """What one layer keeps from its forward pass for its backward pass."""
    adapted = [linear for linear in shape.linears() if is_adapted(linear, section)]
    per_token = (
        _norms(shape)
        + _heads(shape, widths, repeated=attention == "eager" or batch.mask_elements > 0)
        + _feed_forward(shape, widths)
        + _adapter_inputs(shape, widths, adapted)
        + widths.computing * section.lora_rank * len(adapted)
    )
    if batch.flattened and attention != "eager":
        # What attention gave for each row, and all of them behind each other.
        per_token += widths.computing * shape.query_width
    return (
        batch.tokens * per_token
        + _scores(shape, widths, batch, attention)
        + widths.cast_weights * sum(linear.weights for linear in shape.linears())
    )


def kept_bytes(
    shape: ModelShape, section: TrainSection, widths: Widths, batch: MicroBatch, *, attention: str
) -> int:
    """What all layers keep, and the model around them.

    Where activations are computed twice, of each layer its input alone.
    """
    each = widths.stream * batch.tokens * shape.hidden
    if not section.gradient_checkpointing:
        each = layer_bytes(shape, section, widths, batch, attention=attention)
    # The last norm's input, and of each position that is learned the vector that the head reads.
    outer = (_FP32 + widths.stream) * shape.hidden
    return shape.layers * each + batch.tokens * outer + 2 * batch.mask_elements


def backward_bytes(shape: ModelShape, widths: Widths, batch: MicroBatch) -> int:
    """The gradients in a layer's backward pass, at their most: in its feed-forward network.

    Of the product of gate and up, of each of the two, and of the down projection's input by way of
    its adapter; and that of the residual stream.
    """
    family = shape.family_traits
    width = shape.intermediate
    if shape.experts:
        width = shape.active_experts * shape.expert_intermediate
    gradients = 3 if family.gated else 2
    return batch.tokens * (
        gradients * widths.output * width + 2 * max(widths.stream, widths.output) * shape.hidden
    )


def _norms(shape: ModelShape) -> int:
    # Their input in fp32, whatever the type that is computed in. Side by side, two have the same.
    family = shape.family_traits
    norms = 1 if family.parallel else family.norms
    heads = 0 if family.head_norms == "none" else shape.query_width + shape.kv_width
    return _FP32 * (norms * (shape.hidden + 1) + heads)


def _heads(shape: ModelShape, widths: Widths, *, repeated: bool) -> int:
    # Queries, keys, values and what attention gives; the sum of each row of scores. Under a mask
    # and without a kernel, transformers repeats keys and values for each head (`use_gqa_in_sdpa`).
    query, kv = shape.query_width, shape.kv_width
    repeated = repeated and kv < query
    kept = 2 * query + 2 * (query if repeated else kv)
    if shape.family_traits.fused and not shape.positions:
        # Rotated queries are a new tensor in another order, which attention's result shares, and
        # has to be copied for the output projection.
        kept += 0 if widths.copied else query
        # Values are a view of all three.
        kept += query + kv if widths.output == widths.computing and not repeated else 0
    return widths.computing * kept + _FP32 * shape.heads


def _feed_forward(shape: ModelShape, widths: Widths) -> int:
    if shape.experts:
        # Of each token's own experts: gate and up, the activation, the product, the output.
        width = shape.active_experts * shape.expert_intermediate
        return widths.output * (4 * width + 2 * shape.active_experts * shape.hidden)
    # The activation's input; with a gate, what it gives and what that multiplies.
    family = shape.family_traits
    tensors = 3 if family.gated else 4 if family.stepwise_activation else 1
    return widths.output * tensors * shape.intermediate


def _adapter_inputs(shape: ModelShape, widths: Widths, adapted: list[Linear]) -> int:
    """Of a token, the inputs of the adapters' A that nothing else has kept."""
    *readers, out = shape.attention()
    found = adapted
    if not widths.copied:
        # Attention has kept its output. Those that read the same norm keep it together.
        names = {linear.name for linear in readers}
        found = list(
            {
                linear.name in names or linear.inputs: linear for linear in adapted if linear != out
            }.values()
        )
    return sum((widths.computing + widths.noise) * linear.inputs for linear in found)


def _scores(shape: ModelShape, widths: Widths, batch: MicroBatch, attention: str) -> int:
    if attention == "eager":
        # The softmax in fp32, its copy in the computing type, and the tanh of a cap (Gemma 2).
        rounded = 0 if widths.computing == _FP32 else widths.computing
        copies = _FP32 + rounded + widths.computing
        return shape.heads * batch.score_elements * copies
    # The mask as a summand, made anew in each layer.
    return widths.computing * batch.mask_elements
