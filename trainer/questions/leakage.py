"""Which evaluation rows stand in the training data: what was learned by heart proves nothing.

A row leaks where its question is a training row's, word for word after normalisation, or where at
least half of its 13-grams stand in the training data. 13 words are what GPT-3's authors compare by
(arXiv 2005.14165, appendix C), who also pass over what stands in more than ten documents. So do we:
a paragraph or a 13-gram that many rows have is the task's own instruction, and no leak.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from contract.evaluation import Leak

Words = tuple[str, ...]

_GRAM_WORDS = 13
_NEAR = 0.5
# In more rows than so many, or than this share of a small dataset, it is a common phrase.
_COMMON_ROWS, _COMMON_SHARE = 10, 0.1


@dataclass(frozen=True)
class QuestionText:
    """A question and where it stands."""

    where: str
    text: str


def find_leaks(asked: Sequence[QuestionText], trained: Sequence[QuestionText]) -> list[Leak]:
    """Every asked row that stands in the trained ones, with where it does."""
    most = min(_COMMON_ROWS, max(1, int(len(trained) * _COMMON_SHARE)))
    paragraphs = Counter(part for row in trained for part in set(_paragraphs(row.text)))
    common = {part for part, rows in paragraphs.items() if rows > most}
    whole: dict[Words, str] = {}
    rows_of: Counter[Words] = Counter()
    first: dict[Words, str] = {}
    for row in trained:
        whole.setdefault(_words(row.text), row.where)
        grams = set(_grams(row.text, common))
        rows_of.update(grams)
        for gram in grams:
            first.setdefault(gram, row.where)
    leaks = []
    for row in asked:
        if (words := _words(row.text)) in whole:
            leaks.append(Leak(where=row.where, trained_where=whole[words], overlap=None))
            continue
        telling = [gram for gram in _grams(row.text, common) if rows_of[gram] <= most]
        found = [gram for gram in telling if gram in first]
        if found and len(found) / len(telling) >= _NEAR:
            overlap = round(len(found) / len(telling), 3)
            leaks.append(Leak(where=row.where, trained_where=first[found[0]], overlap=overlap))
    return leaks


def _paragraphs(text: str) -> list[Words]:
    return [words for line in text.splitlines() if (words := _words(line))]


def _words(text: str) -> Words:
    """Letters and digits alone, case and compatibility forms folded."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return tuple(re.findall(r"[^\W_]+", folded))


def _grams(text: str, common: Collection[Words]) -> Iterator[Words]:
    """The 13-grams of a text without its common paragraphs."""
    words = [word for part in _paragraphs(text) if part not in common for word in part]
    for start in range(len(words) - _GRAM_WORDS + 1):
        yield tuple(words[start : start + _GRAM_WORDS])
