"""chrF (Popović 2015, https://aclanthology.org/W15-3049), per sentence, as sacrebleu computes it.

Here, not from sacrebleu, because that brings numpy and lxml into the environment of everybody who
starts the launcher; `tests/contract` holds the two against each other.
"""

from __future__ import annotations

from collections import Counter

_ORDER = 6
_BETA = 2


def chrf(answer: str, expected: str) -> float:
    """The F-score of character n-grams of 1 to 6, recall counting twice; 0 to 1.

    White space does not count, and neither do orders longer than one of the texts.
    """
    answer, expected = "".join(answer.split()), "".join(expected.split())
    precisions, recalls = [], []
    for order in range(1, _ORDER + 1):
        found, wanted = _grams(answer, order), _grams(expected, order)
        if not found or not wanted:
            continue
        matching = (found & wanted).total()
        precisions.append(matching / found.total())
        recalls.append(matching / wanted.total())
    if not precisions:
        return 0.0
    precision, recall = (sum(values) / len(values) for values in (precisions, recalls))
    if not precision + recall:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (_BETA**2 * precision + recall)


def _grams(text: str, order: int) -> Counter[str]:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))
