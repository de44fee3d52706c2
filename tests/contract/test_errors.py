"""A name that is not known is answered with the nearest one; problems are named and counted."""

import pytest

from contract.errors import Problem, Problems, did_you_mean, unknown_name


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


def test_of_very_many_problems_the_first_are_kept_and_all_are_counted():
    problems = Problems()
    assert not problems
    for number in range(3000):
        for _ in range(2 if number < 5 else 1):
            problems.append(Problem(where=f"d:{number}", what="is bad"))
    error = problems.error()
    assert problems
    assert (len(error.problems), error.more) == (1000, 2000)
    lines = error.text().splitlines()
    assert lines[0] == "affineur: 3000 problems"
    assert lines[1] == "  d:0: is bad"
    assert lines[-1] == "  ... and 2980 more"
    assert len(lines) == 22
