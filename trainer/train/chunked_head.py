"""A model's logits at chosen positions alone, a few positions at a time.

On a vocabulary of 150,000 tokens, the logits of whole rows are most of the memory that scoring
takes: 7 GB in fp32 for four rows of 1,024 tokens and their softmax.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

# 150 MB of fp32 logits on a vocabulary of 150,000, and enough rows for a fast matrix product.
_POSITIONS = 256


def chunked_logits(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, wanted: torch.Tensor
) -> Iterator[torch.Tensor]:
    """The logits at the wanted positions, row by row: `(positions, vocab)` in fp32, in pieces.

    The backbone runs once. Its hidden states then go through the model's own `forward` piece by
    piece, with the backbone answering what it has already computed: so each architecture scales
    and caps its logits itself (Gemma 2, Granite, Cohere), and an adapter, a mixed precision and
    whatever else wraps the model apply as in training. Call it without gradients.

    Args:
        model: one of transformers' for causal language modelling, or PEFT's around one.
        wanted: a mask in the shape of `input_ids`, (batch, seq).
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    backbone = causal.base_model
    hidden, output = _hidden_states(model, backbone, input_ids, attention_mask)
    for piece in hidden[wanted].split(_POSITIONS):
        placeholders = input_ids.new_zeros(1, len(piece))
        with _already_computed(backbone, replace(output, last_hidden_state=piece[None])):
            logits = model(input_ids=placeholders, use_cache=False).logits
        yield logits[0].float()


def _hidden_states(
    model: Any, backbone: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> tuple[torch.Tensor, Any]:
    """What the backbone says: (batch, seq, hidden), and the whole of its output."""
    outputs: list[Any] = []
    handle = backbone.register_forward_hook(lambda *call: outputs.append(call[-1]))
    try:
        # The head is not what this is for: one position goes through it.
        model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, logits_to_keep=1)
    finally:
        handle.remove()
    [output] = outputs
    return output.last_hidden_state, output


@contextmanager
def _already_computed(backbone: Any, output: Any) -> Iterator[None]:
    """Let a backbone answer with this output, whatever it is given."""
    own = vars(backbone).get("forward")
    backbone.forward = lambda *_, **__: output
    try:
        yield
    finally:
        del backbone.forward
        if own is not None:
            backbone.forward = own
