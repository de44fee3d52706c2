"""Greedy answers, computed in the same way by every stage that needs some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def greedy(
    model: PreTrainedModel,
    ends: Sequence[int],
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int = 16,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[int]]:
    """The most likely continuation of each prompt, without its end-of-turn token.

    A bounded greedy search without penalties, whatever the base's own generation settings say:
    some (Qwen2.5's) sample and penalise repetition, which would make two runs differ.

    Args:
        ends: the ids that end an answer (`ChatFormat.end_ids`).
        prompts: token ids; lengths may differ.
        max_new_tokens: where an answer that does not end by itself is truncated.

    Returns:
        The new token ids of each prompt, in the order of the prompts.
    """
    from transformers import GenerationConfig

    stops = list(ends)
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        repetition_penalty=1.0,
        eos_token_id=stops,
        pad_token_id=stops[0],
    )
    # Values left unset would be filled in from the model's own settings.
    model.generation_config = settings
    answers: list[list[int]] = []
    for first in range(0, len(prompts), batch_size):
        batch = prompts[first : first + batch_size]
        width = max(len(prompt) for prompt in batch)
        # Padding on the left, so that all answers of a batch begin in the same column.
        input_ids = torch.tensor(
            [[stops[0]] * (width - len(prompt)) + list(prompt) for prompt in batch]
        )  # (batch, width)
        attention_mask = torch.tensor(
            [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch]
        )  # (batch, width)
        with torch.inference_mode():
            generated: Any = model.generate(
                input_ids=input_ids.to(model.device),
                attention_mask=attention_mask.to(model.device),
                generation_config=settings,
            )  # (batch, width + new)
        answers += [_until_stop(row[width:].tolist(), stops) for row in generated]
        on_batch(len(answers), len(prompts))
    return answers


def _until_stop(tokens: list[int], stops: list[int]) -> list[int]:
    for position, token in enumerate(tokens):
        if token in stops:
            return tokens[:position]
    return tokens
