"""Attention of rows that lie behind each other in one sequence, where each sees itself alone.

transformers keeps packed rows apart by a mask over the whole sequence, whose attention takes its
length squared in time, and no flash kernel. Here each row goes through torch's
`scaled_dot_product_attention` by itself, causal and without a mask: the work of the rows alone, in
the kernel that FlashAttention (arXiv 2307.08691) has on every card and on a CPU.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv

from trainer.train.evaluation_mode import evaluating
from trainer.train.micro_batches import positions_of

# transformers makes no mask for an attention that it has none for.
_NAME = "sdpa_by_row"
# What changes the scores, and is no argument of torch's attention.
_NOT_TAKEN = ("softcap", "s_aux", "position_bias")
# Of the rows that a model computes at the moment. Activations that are computed again in a backward
# pass on a GPU are computed in a thread of torch's own, which sees no context variable.
_lengths: list[int] = []


def _by_row(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    sliding_window: int | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Shapes as transformers has them: (1, heads, seq, head) in, (1, seq, heads, head) out."""
    del attention_mask
    groups = getattr(module, "num_key_value_groups", 1)
    queries, keys, values = (states.split(_lengths, dim=2) for states in (query, key, value))
    outputs = [
        _one_row(*row, groups, _window(row[0], sliding_window), settings)
        for row in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _one_row(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    groups: int,
    mask: torch.Tensor | None,
    settings: dict[str, Any],
) -> torch.Tensor:
    """Causal attention of one row: (1, heads, seq, head)."""
    if unknown := [name for name in _NOT_TAKEN if settings.get(name) is not None]:
        raise ValueError(f"torch's attention takes no {', '.join(unknown)}")
    grouped = groups > 1
    if grouped and not (mask is None and _has_grouped_kernel(query)):
        # The kernel that would be left computes all scores of a row, and keeps them.
        key, value, grouped = repeat_kv(key, groups), repeat_kv(value, groups), False
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=settings.get("dropout", 0.0),
        scale=settings.get("scaling"),
        is_causal=mask is None,
        enable_gqa=grouped,
    )


def _has_grouped_kernel(query: torch.Tensor) -> bool:
    """Whether a fused kernel takes fewer heads of keys than of queries: torch's flash attention."""
    if query.device.type != "cuda":
        return True
    half = query.dtype in (torch.float16, torch.bfloat16)
    return half and torch.cuda.get_device_capability(query.device) >= (8, 0)


def _window(query: torch.Tensor, width: int | None) -> torch.Tensor | None:
    """The mask of a row that is longer than what each of its tokens sees; else none."""
    length = query.shape[2]
    if width is None or length <= width:
        return None
    seen = torch.ones(length, length, dtype=torch.bool, device=query.device)
    return seen.tril().triu(1 - width)[None, None]


AttentionInterface.register(_NAME, _by_row)


@contextmanager
def rows_apart(model: Any, lengths: Sequence[int]) -> Iterator[None]:
    """Where a model computes rows of these lengths in one sequence, forward and backward.

    A class that takes no `sdpa` keeps its own attention, and transformers' mask.
    """
    config = model.config
    own = config._attn_implementation
    if own == "sdpa":
        config._attn_implementation = _NAME
    _lengths[:] = lengths
    try:
        yield
    finally:
        config._attn_implementation = own
        _lengths.clear()


def keeps_rows_apart(model: Any) -> bool:
    """Whether a row's hidden states are the same whatever stands before it in its sequence.

    They are not where layers hand on a state from token to token (Mamba, short convolutions), or
    where the class computes its positions itself. It is tried, on some twenty tokens: what a class
    says of itself is not enough.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "position_ids" not in inspect.signature(causal.forward).parameters:
        return False
    lengths = [12, 9]
    vocabulary = causal.get_input_embeddings().weight.shape[0]
    drawn = torch.Generator().manual_seed(0)
    first, other, second = (
        torch.randint(vocabulary, (1, length), generator=drawn) for length in (lengths[0], *lengths)
    )
    found = [
        _hidden_states(causal, torch.cat([before, second], dim=1), lengths)
        for before in (first, other)
    ]
    difference = (found[0] - found[1]).abs().max()
    # Equal to the bit where nothing is handed on; a mixture of experts may sum in another order.
    return bool(difference <= 1e-2 * found[0].abs().max())


def _hidden_states(causal: Any, ids: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Of the second row, in the last layer: (seq, hidden)."""
    with torch.no_grad(), evaluating(causal), rows_apart(causal, lengths):
        output = causal.base_model(
            input_ids=ids.to(causal.device),
            position_ids=positions_of(lengths).to(causal.device),
            use_cache=False,
        )
    return torch.as_tensor(output.last_hidden_state[0, lengths[0] :].float())
