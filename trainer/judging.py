"""Whether an answer that another program gave is the merged model's own greedy answer.

Nothing is generated for that: one pass over the question and the answer shows at each token
whether it is the most likely one, and if it always is, this is the greedy answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainer.distributions import next_token_logprobs

# Two tokens whose probabilities are within 5 % of each other: servers compute in 16 bits.
NEAR_TIE_NATS = 0.05


@dataclass(frozen=True)
class Judgement:
    """What the merged model says of an answer.

    Attributes:
        answer: its own greedy answer, without the token that ends it; where the other one leaves
            it, one token more than what they have in common.
        same: the answer that was judged is this one.
        decided: how many tokens come before the first near tie; None without one. Two programs
            that add up the same numbers in another order, or in another precision, may take either
            of two tokens that are almost equally likely, and diverge from there.
        differs_at: the first token in which the other one differs; None where it is the same.
    """

    answer: list[int]
    same: bool
    decided: int | None
    differs_at: int | None

    @property
    def right(self) -> bool:
        """It is the same, or differs from a near tie on."""
        return self.same or self._from_a_near_tie_on

    @property
    def _from_a_near_tie_on(self) -> bool:
        return (
            self.decided is not None
            and self.differs_at is not None
            and self.decided <= self.differs_at
        )


def judge(
    model: Any,
    prompt: Sequence[int],
    answer: Sequence[int],
    *,
    stops: Sequence[int],
    near_nats: float = NEAR_TIE_NATS,
) -> Judgement:
    """Judge an answer, which has the token that ended it at its end, unless it was cut off.

    Args:
        stops: tokens that end an answer, whichever it is.
        near_nats: log-probabilities that are closer than this are a near tie.
    """
    if not answer:
        return Judgement([], same=True, decided=None, differs_at=None)
    last = len(prompt) - 1
    positions = list(range(last, last + len(answer)))
    logprobs = next_token_logprobs(model, [*prompt, *answer[:-1]], positions)
    # Which of the stop tokens it is makes no difference.
    logprobs[:, stops[0]] = logprobs[:, list(stops)].max(-1).values
    for other in stops[1:]:
        logprobs[:, other] = -torch.inf
    given = [stops[0] if token in stops else token for token in answer]
    best = logprobs.topk(2, dim=-1)
    own = best.indices[:, 0].tolist()
    near = ((best.values[:, 0] - best.values[:, 1]) < near_nats).nonzero()
    differing = [at for at, token in enumerate(given) if token != own[at]]
    said = own[: differing[0] + 1] if differing else own
    if said[-1] == stops[0]:
        said = said[:-1]
    return Judgement(
        answer=said,
        same=not differing,
        decided=int(near[0]) if len(near) else None,
        differs_at=differing[0] if differing else None,
    )
