"""What a run of this base takes: context, block sizes, disk and memory, from shapes alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from contract import paths
from contract.digest import files_below
from contract.disk_space import check_disk_space
from contract.errors import Problem, UserError
from contract.recipe import PreflightSection
from contract.run_estimate import BYTES_PER_WEIGHT, gguf_types
from trainer.memory import check_memory
from trainer.weights import Weight

_K_QUANTS_BLOCK = 256
_BLOCK = 32


def check_context(recipe: PreflightSection, context: int | None) -> list[Problem]:
    """See that the model was made for rows of this length."""
    if context is None or recipe.max_length <= context:
        return []
    return [
        Problem(
            where="max_length",
            what=f"{recipe.max_length} tokens are more than this base was made for ({context})",
            remedy=f"Use --set max_length={context}, or less.",
        )
    ]


def context_notes(recipe: PreflightSection, context: int | None) -> list[str]:
    """Where the server would be given more context than the model knows."""
    if context is None or recipe.num_ctx <= context:
        return []
    return [f"num_ctx {recipe.num_ctx} is more than this base was made for ({context} tokens)"]


def block_notes(recipe: PreflightSection, found: Mapping[str, Weight]) -> list[str]:
    """Which weights a k-quant cannot hold: llama-quantize takes a larger type for them."""
    wide = [name for name in recipe.quantizer_types() if "_k" in name]
    matrices = {name: weight for name, weight in found.items() if len(weight.shape) == 2}
    odd = [name for name, weight in matrices.items() if weight.shape[1] % _K_QUANTS_BLOCK]
    unfit = [name for name in odd if matrices[name].shape[1] % _BLOCK]
    if not wide or not odd:
        return []
    larger = "q5_0, q8_0 and the like" if not unfit else "larger types, up to f16,"
    return [
        f"{', '.join(wide)}: the rows of {len(odd)} of {len(matrices)} weights are no multiple of "
        f"{_K_QUANTS_BLOCK}, so {larger} hold them and the file is larger than its name says"
    ]


def check_disk(recipe: PreflightSection, found: Mapping[str, Weight], run: Path) -> list[Problem]:
    """See that the merged model and its GGUF files have room beside each other."""
    own = sum(weight.size_bytes for weight in found.values())
    parameters = sum(math.prod(weight.shape) for weight in found.values())
    types = gguf_types(recipe)
    ggufs = sum(parameters * BYTES_PER_WEIGHT[kind] for kind in types)
    # A merged model that is there already makes room for the GGUF files, once the new one is whole.
    replaced = _size_bytes([run / paths.MERGED])
    try:
        check_disk_space(
            run,
            max(own, own + ggufs - replaced),
            where="disk",
            purpose=f"the merged model and {len(types)} GGUF files take",
            remedy="Free some space, or ask for fewer quantizations.",
        )
    except UserError as error:
        return list(error.problems)
    return []


def _size_bytes(folders: Iterable[Path]) -> int:
    return sum(
        file.stat().st_size for folder in folders if folder.is_dir() for file in files_below(folder)
    )


def check_host_memory(found: Mapping[str, Weight]) -> list[Problem]:
    """See that the merged model fits into memory in fp32, as `reference` asks it.

    A training on a CPU needs no less; a GPU's memory is looked at when it is used.
    """
    needed = sum(4 * math.prod(weight.shape) for weight in found.values())
    try:
        check_memory("asking the merged model for its answers", needed)
    except UserError as error:
        return list(error.problems)
    return []
