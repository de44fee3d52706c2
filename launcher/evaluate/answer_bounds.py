"""How long an answer may be: by what is expected, so that a model that runs in circles ends soon.

A small base often goes on until it is cut off, and the run's own limit is meant for the longest
answer of all. The bound is generous: four times what the expected answer takes at three bytes a
token, which is more than a token for each byte, so that it fits with any tokenizer; and 96 tokens
for a sentence around it. The same question has the same bound for the model and for its base.
"""

from __future__ import annotations

from contract.evaluation import Item
from contract.metrics import METRICS

_LEAST_TOKENS = 96
_TIMES, _BYTES_PER_TOKEN = 4, 3


def max_new_tokens(item: Item, most: int, *, reasons: bool = False) -> int:
    """The most tokens that the answer to this question may have, never above `most`.

    Args:
        most: the run's `num_predict`; also the bound where nothing says how long a right answer is,
            because its metric looks for a part of it and the row has no `example`.
        reasons: whether one of the models reasons before it answers, at a length that no expected
            answer tells of.
    """
    whole = [item.expected] if METRICS[item.metric].expects_answer else []
    known = [*whole, *([item.example] if item.example else [])]
    if reasons or not known:
        return most
    longest = max(len(text.encode("utf-8", "replace")) for text in known)
    return min(most, _LEAST_TOKENS + _TIMES * -(-longest // _BYTES_PER_TOKEN))
