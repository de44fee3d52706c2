"""Find the number that an answer states, in the forms in which people and models write numbers.

Two forms mean different numbers in different countries. One reading is taken everywhere, so that a
result that is wrong by a factor of 1,000 is never right by accident:

- a comma before exactly three digits groups thousands: `1,234` is 1234, and `0,234` is 0.234;
- a single point is a decimal one: `1.234` is 1.234, and `1.234.567` is 1234567.

Where both stand in one number, the last is the decimal one: `1.234,50` and `1,234.50` are 1234.50.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

RESULT = "####"
# Spaces and apostrophes that group digits: no-break, figure, thin and narrow ones among them.
_GROUP = "[ \u00a0\u2007\u2009\u202f'’_]"
# The hyphen and dashes of all lengths but the longest, and the mathematical sign.
_MINUSES = "-\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"
_MINUS = re.escape(_MINUSES)
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺"


def _ten_to(name: str) -> str:
    return rf"10(?:(?:\^|\*\*)\{{?(?P<{name}>[+{_MINUS}]?\d+)\}}?|(?P<{name}_raised>[{_RAISED}]+))"


_TOKEN = re.compile(
    # A date or a time of day: no number.
    r"(?P<none>(?<![\d.,])\d{1,4}(?P<joint>[-/])\d{1,2}(?P=joint)\d{1,4}(?!\d)"
    r"|(?<![\d.,:])\d{1,2}(?::\d{2}){1,2}(?![\d:]))"
    # A hyphen behind a letter or a digit is no sign: x-4, 2020-2024.
    rf"|(?:(?<![\w)\]%])(?P<sign>[{_MINUS}+])[$€£¥]?)?(?:"
    r"(?P<share>(?<![\d/.,])\d+/\d+(?![\d/]))"
    rf"|(?P<ten>(?<![\d.,]){_ten_to('ten_alone')})"
    rf"|(?P<digits>\d+(?:[.,]\d+|{_GROUP}\d{{3}}(?!\d))*|(?<![\w.,)])\.\d+)"
    rf"(?:[eE](?P<exponent>[+{_MINUS}]?\d+)(?!\w)"
    rf"|\s?[×x·⋅*]\s?{_ten_to('power')})?"
    r")"
)
_FORMS = (
    re.compile(
        rf"(?P<whole>[1-9]\d{{0,2}}(?:(?P<by>{_GROUP})\d{{3}})(?:(?P=by)\d{{3}})*)"
        r"(?:[.,](?P<rest>\d+))?"
    ),
    re.compile(r"(?P<whole>[1-9]\d{0,2}(?:,\d{3})+)(?:\.(?P<rest>\d+))?"),
    re.compile(r"(?P<whole>[1-9]\d{0,2}(?:\.\d{3}){2,})(?:,(?P<rest>\d+))?"),
    re.compile(r"(?P<whole>[1-9]\d{0,2}(?:\.\d{3})+),(?P<rest>\d+)"),
    re.compile(r"(?P<whole>\d*)(?:[.,](?P<rest>\d+))?"),
)
_ALONE = re.compile(r"[$€£¥]?\s?(?P<number>.*?)\s?[%$€£¥]?[.,\s]*", re.DOTALL)
# Behind a result, words or a calculation in parentheses, or a note: 72 (see step 3), 5 (20 - 15),
# 72 [1]. What stands behind a sign is none: = (42).
_ASIDE = re.compile(
    rf"(?<=[^\s=:+/×·≈<>(,^{_MINUS}])\s*"
    rf"(?:\([^()]*(?:[^\W\d_]|\d\s*[+*/=×·{_MINUS}]\s*\d)[^()]*\)|\[[^\[\]]*\])"
)
# LaTeX's spaces and commas between digits, and the separators of Arabic digits.
_PLAIN = {"{,}": ",", "\\,": "\u2009", "\\ ": " ", "\u066b": ".", "\u066c": ","}
_FROM_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_TO_HYPHEN = str.maketrans(dict.fromkeys(_MINUSES, "-"))


def number_in(text: str) -> Decimal | None:
    """The first number behind the last `####`, or else the last one; None where there is none.

    What stands in parentheses behind a result is passed over, unless nothing else holds a number:
    `72 (see step 3)` states 72. Units and percent signs are no part of a number. `3/4` is 0.75;
    dates, times of day and versions are no numbers.
    """
    for written, plain in _PLAIN.items():
        text = text.replace(written, plain)
    _, marked, result = text.rpartition(RESULT)
    if marked:
        return next(_numbers(result), None)
    found = [*_numbers(_ASIDE.sub(" ", text))] or [*_numbers(text)]
    return found[-1] if found else None


def is_number(text: str) -> bool:
    """Whether the text is a number and nothing else but a currency or percent sign."""
    alone = _ALONE.fullmatch(text.strip())
    token = _TOKEN.fullmatch(alone["number"]) if alone else None
    return (
        token is not None
        and token["none"] is None
        and token["share"] is None
        and len(list(_numbers(token[0]))) == 1
    )


def _numbers(text: str) -> Iterator[Decimal]:
    for token in _TOKEN.finditer(text):
        if token["none"] is not None:
            continue
        for found in _values(token):
            if found is not None:
                # -0 is 0, and a context would round the digits of a long number.
                yield found.copy_negate() if token["sign"] not in (None, "+") and found else found


def _values(token: re.Match[str]) -> Iterator[Decimal | None]:
    if token["share"] is not None:
        above, _, below = token["share"].partition("/")
        try:
            yield Decimal(above) / Decimal(below)
        except ArithmeticError:
            yield None
    elif token["ten"] is not None:
        yield _decimal("1", token["ten_alone"] or token["ten_alone_raised"])
    else:
        exponent = token["exponent"] or token["power"] or token["power_raised"] or "0"
        pieces = _readable(token["digits"])
        for piece in pieces[:-1]:
            yield _decimal(piece, "0")
        yield _decimal(pieces[-1], exponent) if pieces else None


def _readable(digits: str) -> list[str]:
    """The digits with a decimal point alone; several where spaces group nothing, as 2020 100."""
    for form in _FORMS:
        if found := form.fullmatch(digits):
            whole = re.sub(r"\D", "", found["whole"])
            return [f"{whole or 0}.{found['rest'] or 0}"]
    if re.search(_GROUP, digits):
        *before, last = re.split(_GROUP, digits)
        return [piece for part in (*before, last) for piece in _readable(part)]
    # 12.05.2024 or 1.2.3.
    return []


def _decimal(digits: str, exponent: str) -> Decimal | None:
    exponent = exponent.translate(_FROM_RAISED).translate(_TO_HYPHEN)
    try:
        return Decimal(f"{digits}e{exponent}")
    except ArithmeticError:
        return None
