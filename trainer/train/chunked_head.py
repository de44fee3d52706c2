"""A model's logits at chosen positions alone, a few positions at a time.

On a vocabulary of 150,000 tokens, the logits of whole rows are most of the memory that scoring
takes: 7 GB in fp32 for four rows of 1,024 tokens and their softmax.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from trainer.prepared import IGNORED

# Of fp32 logits: 256 positions of a vocabulary of 150,000, which is enough for a fast product.
PIECE_BYTES = 256 * 150_000 * 4


class ChunkedHead:
    """A model's hidden states at the wanted positions, and its head for a few of them at a time.

    The backbone runs once. Its hidden states then go through the model's own `forward` piece by
    piece, with the backbone answering what it has already computed: so each architecture scales
    and caps its logits itself (Gemma 2, Granite, Cohere), and an adapter, a mixed precision and
    whatever else wraps the model apply as they do everywhere else.
    """

    def __init__(
        self, model: Any, inputs: Mapping[str, torch.Tensor], wanted: torch.Tensor
    ) -> None:
        """Args:
        model: one of transformers' for causal language modelling, or PEFT's around one.
        inputs: what its `forward` takes, without labels.
        wanted: a mask in the shape of `input_ids`, (batch, seq).
        """
        self._model = model
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._backbone = causal.base_model
        self._ids = inputs["input_ids"]
        hidden, self._output = _hidden_states(model, self._backbone, inputs)
        vocabulary = causal.config.get_text_config().vocab_size
        positions = max(PIECE_BYTES // (4 * vocabulary), 1)
        # Row by row, (positions, hidden) each.
        self.pieces: tuple[torch.Tensor, ...] = hidden[wanted].split(positions)

    def logits(self, piece: torch.Tensor) -> torch.Tensor:
        """The logits of one of `pieces`: (positions, vocab) in fp32."""
        placeholders = self._ids.new_zeros(1, len(piece))
        output = replace(self._output, last_hidden_state=piece[None])
        with _already_computed(self._backbone, output):
            logits = self._model(input_ids=placeholders, use_cache=False).logits
        return torch.as_tensor(logits[0].float())


def next_tokens(labels: torch.Tensor) -> torch.Tensor:
    """What the logits of each position predict: the label at t + 1, (batch, seq)."""
    targets = torch.full_like(labels, IGNORED)
    targets[:, :-1] = labels[:, 1:]
    return targets


def chunked_logits(
    model: Any, inputs: Mapping[str, torch.Tensor], wanted: torch.Tensor
) -> Iterator[torch.Tensor]:
    """The logits at the wanted positions, row by row: `(positions, vocab)` in fp32, in pieces.

    Call it without gradients; for the arguments, see `ChunkedHead`.
    """
    head = ChunkedHead(model, inputs, wanted)
    for piece in head.pieces:
        yield head.logits(piece)


def _hidden_states(
    model: Any, backbone: Any, inputs: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, Any]:
    """What the backbone says: (batch, seq, hidden), and the whole of its output."""
    outputs: list[Any] = []
    handle = backbone.register_forward_hook(lambda *call: outputs.append(call[-1]))
    try:
        # The head is not what this is for: one position goes through it.
        model(**{**inputs, "use_cache": False, "logits_to_keep": 1})
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
