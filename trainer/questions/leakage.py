"""Which evaluation rows stand in the training data: what was learned by heart proves nothing.

A row leaks where its question is a training row's, word for word after normalisation, or where at
least half of its 13-grams stand in the training data. 13 words are what GPT-3's authors compare by
(arXiv 2005.14165, appendix C), who also pass over what stands in more than ten documents. So do we:
a paragraph or a 13-gram that many rows have is the task's own instruction, and no leak.

The training rows pass by twice and are not kept: in memory are 64 bits of each different paragraph
of theirs, and of each 13-gram of the asked rows.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import numpy as np

from contract.evaluation import Leak
from trainer.batches import batches

Words = tuple[str, ...]

_GRAM_WORDS = 13
_NEAR = 0.5
# In more rows than so many, or than this share of a small dataset, it is a common phrase.
_COMMON_ROWS, _COMMON_SHARE = 10, 0.1
# Any odd number does; this one is Knuth's, 2^64 divided by the golden ratio.
_FACTORS = np.array(
    [pow(0x9E3779B97F4A7C15, power, 1 << 64) for power in range(_GRAM_WORDS)], dtype=np.uint64
)
_WAITING = 1 << 20


@dataclass(frozen=True)
class QuestionText:
    """A question and where it stands."""

    where: str
    text: str


def find_leaks(asked: Sequence[QuestionText], trained: Iterable[QuestionText]) -> list[Leak]:
    """Every asked row that stands in the trained ones, with where it does.

    Args:
        trained: what can be iterated twice, with the same rows each time.
    """
    paragraphs = _ParagraphCounts()
    rows = 0
    for row in trained:
        paragraphs.add(_paragraphs(row.text))
        rows += 1
    most = min(_COMMON_ROWS, max(1, int(rows * _COMMON_SHARE)))
    common = paragraphs.above(most)
    del paragraphs

    questions = _Asked(asked, common)
    for batch in batches(trained, lambda row: len(row.text)):
        questions.compare(batch)
    return questions.leaks(most)


class _ParagraphCounts:
    """In how many rows each paragraph stands: 9 bytes of each different one."""

    def __init__(self) -> None:
        self._hashes: np.ndarray = np.empty(0, dtype=np.int64)
        # Up to 255, far above what is asked of them.
        self._rows: np.ndarray = np.empty(0, dtype=np.uint8)
        self._waiting = array("q")

    def add(self, paragraphs: Iterable[Words]) -> None:
        """Count the paragraphs of a row."""
        self._waiting.extend({hash(words) for words in paragraphs})
        if len(self._waiting) >= _WAITING:
            self._merge()

    def above(self, most: int) -> np.ndarray:
        """The hashes of paragraphs that stand in more rows than this, sorted."""
        self._merge()
        hashes: np.ndarray = self._hashes[self._rows > most]
        return hashes

    def _merge(self) -> None:
        hashes, rows = np.unique(np.array(self._waiting, dtype=np.int64), return_counts=True)
        self._waiting = array("q")
        at, known = _find(hashes, self._hashes)
        sums = rows + np.where(known, self._rows[at], 0) if len(self._rows) else rows
        sums = np.minimum(sums, 255).astype(np.uint8)
        self._rows[at[known]] = sums[known]
        places = np.searchsorted(self._hashes, hashes[~known])
        self._hashes = np.insert(self._hashes, places, hashes[~known])
        self._rows = np.insert(self._rows, places, sums[~known])


class _Asked:
    """The asked rows' texts and 13-grams, and what was found of them in trained rows."""

    def __init__(self, asked: Sequence[QuestionText], common: np.ndarray) -> None:
        """Nothing is found yet; `common` are the hashes of common paragraphs, sorted."""
        self._common = common
        self._wheres = [row.where for row in asked]
        self._digests: list[bytes] = []
        grams: list[np.ndarray] = []
        rows: list[np.ndarray] = []
        for batch in batches(asked, lambda row: len(row.text)):
            folded = [_paragraphs(row.text) for row in batch]
            of_batch, row_of = _grams(folded, common)
            grams.append(of_batch)
            rows.append(row_of + len(self._digests))
            self._digests += map(_digest, folded)
        self._whole: dict[bytes, str | None] = dict.fromkeys(self._digests)
        # In the order of the rows and of their words: the gram's number, and the asked row's.
        self._hashes, self._gram_of = np.unique(_joined(grams, np.uint64), return_inverse=True)
        self._row_of = _joined(rows, np.int64)
        self._trained_rows: np.ndarray = np.zeros(len(self._hashes), dtype=np.int64)
        self._first: np.ndarray = np.full(len(self._hashes), -1, dtype=np.int64)
        self._seen = 0
        self._places: dict[int, str] = {}

    def compare(self, trained: Sequence[QuestionText]) -> None:
        """Look for all of it in a batch of trained rows."""
        folded = [_paragraphs(row.text) for row in trained]
        for row, paragraphs in zip(trained, folded, strict=True):
            digest = _digest(paragraphs)
            if digest in self._whole and self._whole[digest] is None:
                self._whole[digest] = row.where
        grams, row_of = _grams(folded, self._common)
        at, known = _find(grams, self._hashes)
        # A row counts once, however often it has a gram; the first row of each gram comes first.
        pairs = np.unique(at[known] * len(trained) + row_of[known])
        found, begins, rows = np.unique(
            pairs // len(trained), return_index=True, return_counts=True
        )
        self._trained_rows[found] += rows
        new = self._first[found] < 0
        firsts = pairs[begins][new] % len(trained)
        self._first[found[new]] = firsts + self._seen
        self._places |= {int(row) + self._seen: trained[row].where for row in np.unique(firsts)}
        self._seen += len(trained)

    def leaks(self, most: int) -> list[Leak]:
        """The rows that stand in the trained ones; grams in more rows than `most` tell nothing."""
        telling = self._trained_rows[self._gram_of] <= most
        found = telling & (self._first[self._gram_of] >= 0)
        rows = len(self._digests)
        of_row = np.bincount(self._row_of[telling], minlength=rows).tolist()
        found_of_row = np.bincount(self._row_of[found], minlength=rows).tolist()
        firsts = self._first[self._gram_of[found]]
        with_any, begins = np.unique(self._row_of[found], return_index=True)
        first_of = dict(zip(with_any.tolist(), firsts[begins].tolist(), strict=True))
        leaks = []
        for number, (where, digest) in enumerate(zip(self._wheres, self._digests, strict=True)):
            if (trained := self._whole[digest]) is not None:
                leaks.append(Leak(where=where, trained_where=trained, overlap=None))
            elif number in first_of and (share := found_of_row[number] / of_row[number]) >= _NEAR:
                trained = self._places[first_of[number]]
                leaks.append(Leak(where=where, trained_where=trained, overlap=round(share, 3)))
        return leaks


def _paragraphs(text: str) -> list[Words]:
    return [words for line in text.splitlines() if (words := _words(line))]


def _words(text: str) -> Words:
    """Letters and digits alone, case and compatibility forms folded."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return tuple(re.findall(r"[^\W_]+", folded))


def _digest(paragraphs: Iterable[Words]) -> bytes:
    """Of all words of a text, wherever its lines break."""
    return blake2b(" ".join(chain.from_iterable(paragraphs)).encode(), digest_size=16).digest()


def _grams(rows: Sequence[Sequence[Words]], common: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of the 13-grams of rows without their common paragraphs, and each one's row.

    Two different grams of 10^8 have one hash with a chance of 1 to 4,000.

    Args:
        rows: their paragraphs.
        common: hashes, sorted.
    """
    numbers = [row for row, paragraphs in enumerate(rows) for _ in paragraphs]
    paragraphs = list(chain.from_iterable(rows))
    hashes = np.fromiter(map(hash, paragraphs), dtype=np.int64, count=len(paragraphs))
    kept = np.flatnonzero(~_find(hashes, common)[1]).tolist()
    lengths = [len(paragraphs[index]) for index in kept]
    of_kept = np.array([numbers[index] for index in kept], dtype=np.int64)
    row_of: np.ndarray = np.repeat(of_kept, lengths)
    words = chain.from_iterable(paragraphs[index] for index in kept)
    word_hashes = np.fromiter(map(hash, words), dtype=np.int64, count=len(row_of)).view(np.uint64)
    count = max(0, len(row_of) - _GRAM_WORDS + 1)
    grams: np.ndarray = np.zeros(count, dtype=np.uint64)
    for offset, factor in enumerate(_FACTORS):
        grams += word_hashes[offset : offset + count] * factor
    inside = row_of[:count] == row_of[len(row_of) - count :]
    return grams[inside], row_of[:count][inside]


def _find(values: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each value would stand in a sorted array, and whether it does."""
    if not len(among):
        nowhere: np.ndarray = np.zeros(len(values), dtype=np.int64)
        return nowhere, nowhere.astype(bool)
    at = np.minimum(np.searchsorted(among, values), len(among) - 1)
    return at, among[at] == values


def _joined(arrays: list[np.ndarray], dtype: type[np.generic]) -> np.ndarray:
    joined: np.ndarray = np.concatenate([np.empty(0, dtype=dtype), *arrays])
    return joined
