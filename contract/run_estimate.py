"""What a run takes beside its training's memory: disk, and the memory of the stages around it.

All sizes are bytes, from the base's shape alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from contract.memory_estimate import HEAD_PIECE_BYTES, Part, adapter_parameters, optimizer_bytes
from contract.model_shape import ModelShape
from contract.recipe import QuantizeSection, Recipe, TrainSection

# Bytes of a weight in each type, of the types whose blocks it is made of; a file has some more.
BYTES_PER_WEIGHT = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q6_k": 210 / 256,
    "q5_0": 22 / 32,
    "q5_1": 24 / 32,
    "q5_k_s": 176 / 256,
    "q5_k_m": 176 / 256,
    "q4_0": 18 / 32,
    "q4_1": 20 / 32,
    "q4_k_s": 144 / 256,
    "q4_k_m": 144 / 256,
    "q3_k_s": 110 / 256,
    "q3_k_m": 110 / 256,
    "q3_k_l": 110 / 256,
    "q2_k": 84 / 256,
}
_FP32 = 4
# Python with torch, and with transformers, llama.cpp's bindings and one row's activations as well:
# measured on the smoke base (BENCHMARKS.md), whose weights are next to nothing.
_MERGER_BYTES, _READER_BYTES = 640 << 20, 860 << 20
# Of a row that is compared with the trained model: trainer/reference/stage.py.
_COMPARED_POSITIONS = 512
# At once, for the held-out loss: trainer/train/scoring.py.
_SCORED_ROWS = 4


def gguf_types(recipe: QuantizeSection) -> list[str]:
    """The types of the GGUF files that a run makes, one for each file."""
    types = [*recipe.converter_types(), *recipe.quantizer_types()]
    if recipe.serving == "adapter":
        types += ["f16", *({recipe.quantizations[0]} - {"f16"})]
    return types


def disk_parts(shape: ModelShape, recipe: Recipe) -> Iterator[Part]:
    """What a run takes on the disk; a base of the Hub is in 16 bits, and so is what comes of it."""
    section = recipe.section(TrainSection)
    parameters = shape.parameters().total
    adapter = _FP32 * adapter_parameters(shape, section)
    yield Part("base", 2 * parameters, "16 bits")
    yield Part("adapter", adapter, "fp32")
    # Each with the optimizer's state, and the best adapter so far.
    checkpoint = 2 * adapter + optimizer_bytes(shape, section)
    kept = recipe.checkpoints_kept
    yield Part("checkpoints", kept * checkpoint, f"{kept} at most, until the training ends")
    yield Part("merged", 2 * parameters, "as the base")
    for kind in gguf_types(recipe):
        yield Part(kind, int(parameters * BYTES_PER_WEIGHT[kind]), "GGUF")


def stage_memory(shape: ModelShape, recipe: Recipe) -> Iterator[Part]:
    """The memory of the work around the training: of scoring where it trains, of stages on the CPU.

    Scoring keeps nothing for a backward pass: beside the weights, the widest tensors of a layer and
    a piece's logits with their softmax, of four rows (trainer/train/scoring.py). Each stage checks
    before it begins what is said here: merging holds the largest weight,
    the delta and their product in fp32 (trainer/merge/stage.py); quantizing, the largest weight in
    fp32 with its source and its result (trainer/quantize/stage.py); the reference, the largest
    module in fp32 and three copies of its logits (trainer/merged_model.py), as reading back what
    was converted does.
    """
    linear = max((one.weights for one in shape.linears()), default=0)
    largest = max(linear, shape.vocab * shape.hidden)
    logits = 3 * _FP32 * shape.vocab * _COMPARED_POSITIONS
    widened = _FP32 * largest + logits + _READER_BYTES
    tokens = _SCORED_ROWS * recipe.max_length
    widest = 3 * _FP32 * tokens * max(shape.hidden, shape.intermediate)
    yield Part("scoring", widest + 2 * HEAD_PIECE_BYTES, "beside the weights")
    yield Part("merge", 3 * _FP32 * linear + _MERGER_BYTES, "one weight at a time")
    yield Part("convert", widened, "to read back what was converted")
    yield Part("quantize", 8 * largest + (300 << 20), "one weight at a time")
    yield Part("reference", widened, "one module at a time")
