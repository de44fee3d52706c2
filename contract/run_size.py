"""What a run takes on the disk, by part, from the base's shape and the recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from contract.memory_estimate import adapter_parameters, optimizer_bytes
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
_FP32, _STORED = 4, 2


class OnDisk(NamedTuple):
    """One part, and how much it takes."""

    name: str
    size_bytes: int


def gguf_types(recipe: QuantizeSection) -> list[str]:
    """The types of the GGUF files that a run makes, one for each file."""
    types = [*recipe.converter_types(), *recipe.quantizer_types()]
    if recipe.serving == "adapter":
        types += ["f16", *({recipe.quantizations[0]} - {"f16"})]
    return types


def run_sizes(recipe: Recipe, shape: ModelShape) -> Iterator[OnDisk]:
    """The parts of a run's folder; published bases, and so merged models, are in 16 bits.

    A checkpoint has the adapter, the best one so far, and the optimizer's state.
    """
    section = recipe.section(TrainSection)
    parameters = shape.parameters().total
    adapter = _FP32 * adapter_parameters(shape, section)
    checkpoint = 2 * adapter + optimizer_bytes(shape, section)
    yield OnDisk("merged model", _STORED * parameters)
    for kind in gguf_types(recipe):
        yield OnDisk(kind, round(parameters * BYTES_PER_WEIGHT[kind]))
    yield OnDisk("adapter", adapter)
    yield OnDisk("checkpoints while it trains", recipe.checkpoints_kept * checkpoint)
