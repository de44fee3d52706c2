"""Texts as words and signs, to compare them without regard to case, punctuation and spaces."""

from __future__ import annotations

import re
import unicodedata

# Scripts that put no spaces between words: each letter, with its marks, is taken for a word.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]"
)
# Of one meaning; hyphens and the minus sign before others, which stand between words only.
_SAME = str.maketrans(
    {"≤": "<=", "≥": ">=", "≠": "!=", "×": "*", "÷": "/", "⁄": "/"}
    | dict.fromkeys("\u2010\u2011\u2212", "-")
)
_DASHES_BEFORE_DIGITS = "\u2012\u2013"
_MEANT = "%‰&@/\\"
_JOINER = "\u200d"
_NO_ZERO = re.compile(r"(?<![\w.])\.(?=\d)")
_DECIMAL = re.compile(r"(?<!\d)(?<!\d[.,])(\d+)[.,](?=\d+(?![.,]?\d))")


def normalized(text: str, *, whole_numbers: bool = False) -> str:
    """The text's words and signs with a space between each; empty where it has none.

    Compatibility forms and case are folded. Letters, digits and the marks that combine with them
    make words. Symbols (`+`, `<`, `=`, `€`, emoji) count, and so does punctuation that changes the
    meaning: a minus, `%`, `/`, `&`, `@`, the `!` of `!=`, the `#` of `C#`. All else is a space.

    Args:
        text: an answer, or a part of one.
        whole_numbers: whether `1.5` and `1,5` are one word, and not two.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = "".join(char for char in text.translate(_SAME) if not _is_invisible(char))
    text = _NO_ZERO.sub("0.", text)
    if whole_numbers:
        text = _DECIMAL.sub(r"\1_", text)
    tokens: list[str] = []
    attach = False
    for position, char in enumerate(text):
        before, after = _neighbours(text, position)
        if _is_part_of_word(char) or (whole_numbers and char == "_" and after.isdigit()):
            starts = not attach or (_UNSPACED.match(char) and unicodedata.category(char)[0] == "L")
            tokens += [""] if starts else []
            tokens[-1] += char
            attach = True
        elif _is_sign(text, position):
            joins = bool(tokens) and (before == _JOINER or _belongs_to_last(char, before, after))
            tokens += [] if joins else [""]
            tokens[-1] += "-" if char in _DASHES_BEFORE_DIGITS else char
            attach = tokens[-1] == "-"
        elif char == _JOINER or "\U000e0020" <= char <= "\U000e007f":
            if before and tokens and not before.isspace():
                tokens[-1] += char
        else:
            attach = False
    return " ".join(tokens)


def _neighbours(text: str, position: int) -> tuple[str, str]:
    return text[max(0, position - 1) : position], text[position + 1 : position + 2]


def _is_part_of_word(char: str) -> bool:
    return unicodedata.category(char)[0] in "LNM"


def _is_invisible(char: str) -> bool:
    """Soft hyphens, marks of direction, the choice between text and emoji."""
    if char in "\ufe0e\ufe0f":
        return True
    tag = "\U000e0020" <= char <= "\U000e007f"
    return unicodedata.category(char) == "Cf" and char != _JOINER and not tag


def _is_sign(text: str, position: int) -> bool:
    char = text[position]
    before, after = _neighbours(text, position)
    behind_word = bool(before) and (_is_part_of_word(before) or before in ")]")
    before_word = bool(after) and (_is_part_of_word(after) or after == ".")
    if char == "-":
        return before_word and not behind_word
    if char in _DASHES_BEFORE_DIGITS:
        return after.isdigit() and not behind_word
    if char == "!":
        return after == "=" or (before_word and not behind_word)
    if char == "#":
        return behind_word and not before_word
    if char == "*":
        tight = behind_word and before_word
        spaced = text[max(0, position - 2) : position + 2]
        return tight or re.fullmatch(r"\d \* ", spaced) is not None
    # Unassigned here may be an emoji of a later Unicode.
    return char in _MEANT or (
        unicodedata.category(char) in ("Sm", "Sc", "So", "Sk", "Co", "Cn") and char != "`"
    )


def _belongs_to_last(char: str, before: str, after: str) -> bool:
    """Whether a sign is a part of what stands before it: C++, C#, a colour of skin."""
    if "\U0001f3fb" <= char <= "\U0001f3ff":
        return not before.isspace()
    if char == "#":
        return True
    grows = bool(before) and (_is_part_of_word(before) or before == "+")
    return char == "+" and grows and not (after and (_is_part_of_word(after) or after == "="))
