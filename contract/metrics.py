"""The table of metrics: how an answer is scored against the expected one, 0 to 1.

Both wings read it: the stage `questions` checks each expected answer and chooses a metric where
none is named, and the launcher scores. A new metric is an entry of `METRICS`, and nothing else;
`./invoke fix` writes the table of configs/README.md from it. White space around an answer and
around what is expected is no part of them.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from contract.chrf import chrf
from contract.json_f1 import json_f1

_SHORT_WORDS = 6
# What is no part of a number: spaces that group its digits, thin ones among them.
_GROUPING = re.compile(r"(?<=\d)[ \u00a0\u202f](?=\d{3}(?!\d))")
_NUMBER = re.compile(r"[-−]?\d+(?:[.,]\d+)*")
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_NUMBER_ALONE = re.compile(r"[-+−]?\d[\d\s.,]*")
_RESULT = "####"


@dataclass(frozen=True)
class Metric:
    """How answers are scored.

    `score` takes the answer and what is expected, and gives 0 to 1. `complaint` says why an
    expected answer cannot be compared with, or gives an empty string. `fits` says whether an
    expected answer lets this metric be chosen automatically; most are chosen by name alone.
    `right_where` ends the sentence `an answer is right where ...` in configs/README.md.
    """

    name: str
    right_where: str
    score: Callable[[str, str], float]
    complaint: Callable[[str], str] = lambda expected: ""
    fits: Callable[[str], bool] = lambda expected: False
    answers_are_json: bool = False


def score(metric: str, answer: str, expected: str) -> float:
    """The answer's score by this metric, 0 to 1."""
    return METRICS[metric].score(answer.strip(), expected.strip())


def fitting_metric(expected: Sequence[str]) -> str:
    """The first metric of the table that fits all of a set's expected answers."""
    return next(
        metric.name
        for metric in METRICS.values()
        if all(metric.fits(text.strip()) for text in expected)
    )


def is_json(text: str) -> bool:
    """Whether the text as a whole is JSON, as a program reads it."""
    return not _json_error(text)


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


def _json_error(text: str) -> str:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.msg
    except RecursionError:
        return "nested too deeply"
    return ""


def _json_f1(answer: str, expected: str) -> float:
    return json_f1(json.loads(answer), json.loads(expected)) if is_json(answer) else 0.0


def _no_json(expected: str) -> str:
    error = _json_error(expected)
    return f"is scored as JSON, but its output is not JSON: {error}" if error else ""


def _is_object_or_array(expected: str) -> bool:
    return is_json(expected) and isinstance(json.loads(expected), dict | list)


def _number(answer: str, expected: str) -> float:
    found = number_in(answer)
    return float(found is not None and found == number_in(expected))


def _no_number(expected: str) -> str:
    if number_in(expected) is None:
        return "is scored as a number, but its output contains none"
    return ""


def _is_number_or_result(expected: str) -> bool:
    is_one = _RESULT in expected or _NUMBER_ALONE.fullmatch(expected) is not None
    return is_one and number_in(expected) is not None


def _normalized(answer: str, expected: str) -> float:
    return float(normalized(answer) == normalized(expected))


def _is_short(expected: str) -> bool:
    return len(expected.split()) <= _SHORT_WORDS


def _exact(answer: str, expected: str) -> float:
    return float(answer == expected)


def _json_valid(answer: str, _expected: str) -> float:
    return float(is_json(answer))


def _contains(answer: str, expected: str) -> float:
    wanted = json.loads(expected) if expected.startswith("[") and is_json(expected) else [expected]
    # Whole words: 1 does not stand in 10.
    text = f" {normalized(answer)} "
    return float(all(f" {normalized(str(part))} " in text for part in wanted))


def _regex(answer: str, expected: str) -> float:
    return float(re.search(expected, answer) is not None)


def _no_regex(expected: str) -> str:
    try:
        re.compile(expected)
    except re.error as error:
        return f"its output is not a valid regular expression: {error}"
    return ""


# In the order in which they are tried where none is named: the first that fits all rows.
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="json_f1",
            right_where="(0 to 1) its keys and values are the expected ones; objects in lists in "
            "any order",
            score=_json_f1,
            complaint=_no_json,
            fits=_is_object_or_array,
            answers_are_json=True,
        ),
        Metric(
            name="number",
            right_where="the number after its last `####`, or else its last number, is the same; "
            "`1,000`, `1 000` and `3,5` are read the way people mean them",
            score=_number,
            complaint=_no_number,
            fits=_is_number_or_result,
        ),
        Metric(
            name="normalized",
            right_where="its letters and digits are the same, ignoring case, punctuation and "
            "spaces",
            score=_normalized,
            fits=_is_short,
        ),
        Metric(
            name="chrf",
            right_where="(0 to 1) its character n-grams match the expected ones (chrF)",
            score=chrf,
            fits=lambda expected: True,
        ),
        Metric(
            name="exact",
            right_where="it equals the expected one exactly",
            score=_exact,
        ),
        Metric(
            name="contains",
            right_where="the expected text, or every text in a JSON array of them, occurs in it as "
            "whole words",
            score=_contains,
        ),
        Metric(
            name="regex",
            right_where="the expected pattern matches somewhere in it (Python's `re`)",
            score=_regex,
            complaint=_no_regex,
        ),
        Metric(
            name="json_valid",
            right_where="all of it is valid JSON, with no code fence and no text around it",
            score=_json_valid,
            answers_are_json=True,
        ),
    )
}
