"""A name that is not known is answered with the nearest one."""

import pytest

from contract.errors import did_you_mean, unknown_name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("epcohs", "Did you mean epochs?"),
        ("zzz", ""),
    ],
)
def test_the_nearest_known_word_is_suggested_where_one_is_near(given, said):
    assert did_you_mean(given, ["epochs", "seed"]) == said


def test_where_no_word_is_near_something_else_may_be_said():
    assert did_you_mean("zzz", ["epochs"], "See the list.") == "See the list."


def test_an_unknown_name_is_one_sentence_with_all_known_ones():
    known = {"exact": 1, "number": 2}
    assert str(unknown_name("exakt", known, kind="metric", where="--metric")) == (
        "--metric: there is no metric 'exakt'. Did you mean exact? Known: exact, number."
    )
    assert str(unknown_name("zzz", known, kind="metric", where="--metric")) == (
        "--metric: there is no metric 'zzz'. Known: exact, number."
    )
