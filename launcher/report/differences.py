"""An answer beside the expected one, with the words marked in which they differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

# Words, signs and the space between them: what is put together again is the text.
_WORDS = re.compile(r"\w+|\s+|[^\w\s]")
# The comparison takes the product of both lengths.
_MOST_WORDS = 2_000
# Where less of an answer is as expected, marks would cover it.
_LEAST_COMMON = 0.25

State = Literal["equal", "partly", "throughout"]


@dataclass(frozen=True)
class Piece:
    """A part of a text, and whether the other text has something else there."""

    text: str
    differs: bool


@dataclass(frozen=True)
class MarkedAnswer:
    """Both texts in pieces, and how many words of the answer are not as expected.

    Of answers that differ throughout, and of very long ones, nothing is marked.
    """

    state: State
    expected: tuple[Piece, ...]
    answer: tuple[Piece, ...]
    words: int


def mark_differences(expected: str, answer: str) -> MarkedAnswer:
    """Compare two texts word by word."""
    ours, theirs = _WORDS.findall(answer), _WORDS.findall(expected)
    whole = _filled([Piece(expected, False)]), _filled([Piece(answer, False)])
    if answer == expected:
        return MarkedAnswer("equal", *whole, words=0)
    if max(len(ours), len(theirs)) > _MOST_WORDS:
        return MarkedAnswer("throughout", *whole, words=_words(ours))
    expected_pieces, answer_pieces, common = [], [], 0
    for tag, start, end, our_start, our_end in SequenceMatcher(
        None, theirs, ours, autojunk=False
    ).get_opcodes():
        differs = tag != "equal"
        expected_pieces.append(Piece("".join(theirs[start:end]), differs))
        answer_pieces.append(Piece("".join(ours[our_start:our_end]), differs))
        common += 0 if differs else _words(ours[our_start:our_end])
    if common < _LEAST_COMMON * max(_words(ours), _words(theirs)):
        return MarkedAnswer("throughout", *whole, words=_words(ours))
    return MarkedAnswer(
        "partly",
        _filled(expected_pieces),
        _filled(answer_pieces),
        words=max(_words(ours), _words(theirs)) - common,
    )


def _words(tokens: Sequence[str]) -> int:
    return sum(not token.isspace() for token in tokens)


def _filled(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    return tuple(piece for piece in pieces if piece.text)
