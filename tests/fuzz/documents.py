"""What people and containers may write: sound documents, damaged in many ways."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# Of each kind of input: 1,000 in CI, and 10,000 at night.
EXAMPLES = int(os.environ.get("AFFINEUR_FUZZ_EXAMPLES", "1000"))
# The same examples on every machine.
FUZZED = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
# Generous: it ends what would never end, and measures nothing.
_HANGS_AFTER_S = 120

texts = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=10),
    st.sampled_from(
        [
            *("", " ", "~", "null", "true", "on", "1e999", "0x10", "-1", "1_000", "12:30", "\0"),
            *(
                "\ufeff",
                "\u2028",
                "é",
                "e\u0301",
                "🚀",
                "\ud83d",
                "../../etc",
                "/dev/null",
                "${HOME}",
            ),
            *(
                "auto",
                "smoke",
                "rtx",
                "[",
                "{",
                "&a",
                "*a",
                "<<",
                "!!python/name:os.system",
                "- - -",
            ),
            *("x" * 300, "a: b", "a=b", "'", '"', "\\", "#", "%", "[red]", "[/]", "\x1b[2J"),
        ]
    ),
)
numbers = st.one_of(
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.sampled_from([10**400, -(10**400), 2**63, 2**64, 1e308, 5e-324, float("nan"), -0.0]),
)
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=6,
)
deep = st.sampled_from(["[" * 1500, "{" * 1500, '{"a":' * 1500, "- " * 1500, "a: [" * 500])


def as_json(value: Any) -> str:
    """JSON as a careless program writes it: NaN, and surrogates as they are."""
    return json.dumps(value, ensure_ascii=False)


def as_bytes(value: Any) -> bytes:
    """The same in UTF-8, with surrogates as a careless program writes them."""
    return as_json(value).encode(errors="surrogatepass")


def damaged(text: str) -> st.SearchStrategy[bytes]:
    """The text's bytes, cut, doubled, mixed with others, or as they are."""
    whole = text.encode()

    def cut(places: tuple[int, int, bytes]) -> bytes:
        start, length, piece = places
        start %= len(whole) + 1
        return whole[:start] + piece + whole[start + length % 40 :]

    pieces = st.one_of(
        st.binary(max_size=6),
        texts.map(lambda piece: piece.encode(errors="surrogatepass")),
        deep.map(str.encode),
    )
    place = st.tuples(st.integers(0, 10**6), st.integers(0, 39), pieces)
    return st.one_of(place.map(cut), st.binary(max_size=60), pieces, st.just(whole))


def changed(document: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The document with some values, or keys, that are others."""
    one = st.tuples(st.sampled_from(sorted(document)), st.one_of(st.just(...), values))
    more = st.dictionaries(texts, values, max_size=2)

    def change(drawn: tuple[list[tuple[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        changes, added = drawn
        new = {**document, **{key: value for key, value in changes if value is not ...}, **added}
        for key, value in changes:
            if value is ...:
                new.pop(key, None)
        return new

    return st.tuples(st.lists(one, max_size=3), more).map(change)


@contextmanager
def no_hang() -> Iterator[None]:
    """Raise where the block does not end."""

    def hang(_signal: int, _frame: object) -> None:
        raise TimeoutError("it does not end")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(_HANGS_AFTER_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
