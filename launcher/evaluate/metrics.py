"""How an answer is held against what was expected: each metric gives 0 to 1. Text in, number out.

White space around both is no part of them.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal

from contract.evaluation import Metric
from launcher.evaluate.chrf import chrf
from launcher.evaluate.structure import structure_f1

# What is no part of a number: spaces that group its digits, thin ones among them.
_GROUPING = re.compile(r"(?<=\d)[ \u00a0\u202f](?=\d{3}(?!\d))")
_NUMBER = re.compile(r"[-−]?\d+(?:[.,]\d+)*")
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_RESULT = "####"


def score(metric: Metric, answer: str, expected: str) -> float:
    """The answer's score by this metric, 0 to 1."""
    return _METRICS[metric](answer.strip(), expected.strip())


def is_json(text: str) -> bool:
    """Whether the text as a whole is JSON, as a program reads it."""
    try:
        json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return False
    return True


def number_in(text: str) -> Decimal | None:
    """The number after the last `####`, or else the last one; None where there is none.

    Thousands may be grouped by commas or spaces; any other comma is a decimal one, as in French.
    """
    part = text.rpartition(_RESULT)[2]
    found = _NUMBER.findall(_GROUPING.sub("", part))
    if not found:
        return None
    number = found[0] if _RESULT in text else found[-1]
    number = number.replace("−", "-")
    if _THOUSANDS.fullmatch(number):
        return Decimal(number.replace(",", ""))
    try:
        return Decimal(number.replace(",", "."))
    except ArithmeticError:
        # A date or a version: 12.05.2024.
        return None


def normalized(text: str) -> str:
    """Compatibility forms and case folded; all but letters and digits a space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"[^\W_]+", folded))


def _exact(answer: str, expected: str) -> float:
    return float(answer == expected)


def _normalized(answer: str, expected: str) -> float:
    return float(normalized(answer) == normalized(expected))


def _number(answer: str, expected: str) -> float:
    found = number_in(answer)
    return float(found is not None and found == number_in(expected))


def _json_valid(answer: str, _expected: str) -> float:
    return float(is_json(answer))


def _json_f1(answer: str, expected: str) -> float:
    if not is_json(answer):
        return 0.0
    return structure_f1(json.loads(answer), json.loads(expected))


def _contains(answer: str, expected: str) -> float:
    wanted = json.loads(expected) if expected.startswith("[") and is_json(expected) else [expected]
    # Whole words: 1 does not stand in 10.
    text = f" {normalized(answer)} "
    return float(all(f" {normalized(str(part))} " in text for part in wanted))


def _regex(answer: str, expected: str) -> float:
    return float(re.search(expected, answer) is not None)


_METRICS: dict[Metric, Callable[[str, str], float]] = {
    "exact": _exact,
    "normalized": _normalized,
    "number": _number,
    "json_valid": _json_valid,
    "json_f1": _json_f1,
    "contains": _contains,
    "regex": _regex,
    "chrf": chrf,
}
