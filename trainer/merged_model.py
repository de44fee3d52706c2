"""The merged model, computed in fp32 with its weights left where they are: on the disk, mapped.

Loaded in fp32, a model of 7 B parameters takes 28 GB before it says a word. Here each module's
weights are widened while it computes, and forgotten: the memory is that of the largest one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trainer.memory import check_memory

# The program, and the activations of one row.
_PROGRAM_BYTES = 600 << 20


def load_merged(folder: Path, *, positions: int) -> Any:
    """The model in this folder, ready for one row after another.

    Args:
        positions: as many at most go through the head at once.

    Raises:
        UserError: too little memory.
    """
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        # As they are stored: what need not be changed is mapped and not read.
        dtype="auto",
        # The one that every architecture has, and that takes none of its terms away.
        attn_implementation="eager",
        local_files_only=True,
    ).eval()
    largest, vocabulary = 0, model.get_output_embeddings().weight.shape[0]
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if any(weight.dtype != torch.float32 for weight in own):
            largest = max(largest, sum(4 * weight.numel() for weight in own))
            _widen_while_it_computes(module)
    check_memory(
        "computing what the merged model answers",
        largest + 3 * 4 * vocabulary * positions + _PROGRAM_BYTES,
    )
    return model


def _widen_while_it_computes(module: torch.nn.Module) -> None:
    stored = dict(module._parameters)

    def before(_module: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        if isinstance(module, torch.nn.Embedding):
            # Of the whole vocabulary, the rows that are asked for.
            asked, places = arguments[0].unique(return_inverse=True)
            module.weight = _widened(module.weight[asked])
            return (places, *arguments[1:])
        for name, weight in stored.items():
            if weight is not None:
                module._parameters[name] = _widened(weight)
        return arguments

    def after(_module: torch.nn.Module, _arguments: Any, _result: Any) -> None:
        module._parameters.update(stored)

    if isinstance(module, torch.nn.Embedding):
        # It matters to a gradient alone, and may be none of the rows that are asked for.
        module.padding_idx = None
    module.register_forward_pre_hook(before)
    module.register_forward_hook(after, always_call=True)


def _widened(weight: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(weight.float(), requires_grad=False)
