"""JSON is read as it stands in the file, or its flaw is named."""

import json
from datetime import date, datetime
from decimal import Decimal

import pytest

from contract.exact_json import (
    MAX_DEPTH,
    Flaw,
    Number,
    dumps,
    flaw,
    flaw_of_row,
    is_missing,
    loads,
    native,
)

DIGITS = "9" * 5000


@pytest.mark.parametrize(
    "text",
    [
        *("0", "-0", "7", "2.50", "1e-05", "1E+2", "1.0", "-0.0", "0.1", "1e400"),
        *("3.14159265358979323846", DIGITS, f"-{DIGITS}", f"0.{DIGITS}"),
        *("true", "false", "null", '"2.50"', '"é\\n\\"🚀"', "[]", "{}"),
        '{"a": [1, 2.50, true, null], "b": {"ç": "x"}}',
    ],
    ids=lambda text: text[:20],
)
def test_what_is_read_is_written_letter_for_letter(text):
    assert dumps(loads(text)) == text


def test_numbers_that_python_writes_alike_are_pythons():
    assert loads('[1, -20, 2.5, true, "1"]') == [1, -20, 2.5, True, "1"]
    assert loads("[2.50, -0]") == [Number("2.50"), Number("-0")]


def test_nan_is_a_missing_value_and_infinity_is_named():
    assert loads('{"a": NaN}') == {"a": None}
    assert "contains -Infinity" in flaw(loads('{"a": [1, -Infinity]}')).what


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "'a'"),
        ('{"x": [{"é": 1, "é": 2}]}', "'é'"),
        ('{"\\ud83d": 1, "\\ud83d": 2}', "'\\ud83d'"),
    ],
)
def test_a_key_that_stands_twice_is_named(text, key):
    found = flaw(loads(text))
    assert f"the key {key}" in found.what
    found.what.encode()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": ["x", {"b": "\ud83d"}]}, "half a character (\\ud83d"),
        ({"\udc00": 1}, "half a character (\\udc00"),
        (["a\0b"], "NUL"),
        (Flaw("x"), "x"),
        (json.loads("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)), "nested more than"),
    ],
)
def test_what_cannot_be_carried_is_found_at_any_depth(value, said):
    assert said in flaw(value).what


def test_sound_values_have_no_flaw():
    deep = json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert flaw(deep) is None
    assert flaw({"a": ["🚀", 1, None, Number("2.50"), b"x", True, "\x1b[1m\x07\t\ufeff"]}) is None


def test_a_rows_flaw_is_told_with_its_column():
    assert flaw_of_row({"a": 1, "sortie": ["\ud83d"]}).what.startswith("sortie: contains half")
    assert "a column whose name contains half" in flaw_of_row({"\ud83d": 1}).what
    assert flaw_of_row({"a": 1}) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-(10**20), "-100000000000000000000"),
        (1e-05, "1e-05"),
        (Decimal("2.50"), "2.50"),
        (date(2026, 2, 3), '"2026-02-03"'),
        ([datetime(2026, 2, 3, 4, 5)], '["2026-02-03T04:05:00"]'),
        ({"a": float("nan"), 3: (1, 2)}, '{"a": null, "3": [1, 2]}'),
    ],
)
def test_values_of_tables_have_a_text_as_well(value, text):
    assert dumps(value) == text


def test_integers_of_any_length_have_a_text():
    assert dumps(10**5000) == "1" + "0" * 5000


@pytest.mark.parametrize("value", [b"x", float("inf"), Decimal("-Infinity"), object(), {"a": {1}}])
def test_what_has_no_text_is_refused(value):
    with pytest.raises(ValueError, match="which has no text"):
        dumps(value)


def test_native_numbers_are_those_of_the_text():
    assert native(loads('{"a": [2.50, -0, 1e2, NaN, 12345678901234567890], "b": "x"}')) == {
        "a": [2.5, 0, 100.0, None, 12345678901234567890],
        "b": "x",
    }
    assert native({"a": date(2026, 2, 3), "b": Decimal("2.50")}) == {"a": "2026-02-03", "b": 2.5}


@pytest.mark.parametrize(
    "text",
    ["3.14159265358979323846", DIGITS, "1e400", "1e-99999999999999999999"],
    ids=lambda text: text[:20],
)
def test_a_number_that_would_lose_digits_is_no_native_one(text):
    with pytest.raises(ValueError, match="more digits than are kept"):
        native(loads(f"[{text}]"))


def test_missing_is_null_or_nan():
    assert [is_missing(v) for v in (None, float("nan"), Decimal("NaN"), Decimal("sNaN"))] == [
        True
    ] * 4
    assert not any(map(is_missing, ("", 0, False, [], "nan", Number("0.00"))))
