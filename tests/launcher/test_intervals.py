"""The intervals hold what they promise: on models whose true accuracy is known."""

import random

import pytest

from launcher.evaluate.intervals import Interval, mean_score, verdict
from launcher.evaluate.paired_differences import mean_difference

ROWS = 60
TRIALS = 1_000


def answers(rng, accuracy):
    return [float(rng.random() < accuracy) for _ in range(ROWS)]


@pytest.mark.slow
def test_a_95_percent_interval_covers_the_truth_in_95_percent_of_trials():
    rng = random.Random(1)
    covered = 0
    for _ in range(TRIALS):
        accuracy = rng.uniform(0.05, 0.95)
        found = mean_score(answers(rng, accuracy))
        covered += found.low <= accuracy <= found.high
    assert 0.93 <= covered / TRIALS <= 0.97


def test_equal_models_are_called_different_in_at_most_5_percent_of_trials():
    rng = random.Random(2)
    different = 0
    for _ in range(TRIALS):
        accuracy = rng.uniform(0.05, 0.95)
        found = mean_difference(answers(rng, accuracy), answers(rng, accuracy))
        different += verdict(found) != "inconclusive"
    assert different / TRIALS <= 0.05


def test_models_that_differ_are_told_apart():
    rng = random.Random(3)
    good, bad = answers(rng, 0.9), answers(rng, 0.5)
    assert verdict(mean_difference(good, bad)) == "better"
    assert verdict(mean_difference(bad, good)) == "worse"
    assert mean_difference(good, bad).mean == pytest.approx((sum(good) - sum(bad)) / ROWS)


def test_pairs_tell_apart_what_separate_rows_would_not():
    # The same rows are hard for both: only every third may differ, always in one direction.
    rng = random.Random(4)
    base = answers(rng, 0.5)
    ours = [1.0 if number % 3 == 0 else score for number, score in enumerate(base)]
    assert verdict(mean_difference(ours, base)) == "better"
    assert mean_score(ours).low < mean_score(base).high


def test_all_right_leaves_a_doubt():
    found = mean_score([1.0] * 25)
    assert found.mean == 1
    assert found.low < 0.95
    assert mean_difference([1.0] * 25, [1.0] * 25).high > 0


def test_it_is_the_same_every_time_and_holds_its_mean():
    scores = [0.25, 0.5, 0.75, 1.0, 0.125] * 6
    assert mean_score(scores) == mean_score(scores)
    found = mean_score(scores)
    assert found.low < found.mean < found.high


def test_a_bound_is_passed_only_beyond_the_interval():
    assert verdict(Interval(0.2, 0.11, 0.3), by=0.1) == "better"
    assert verdict(Interval(0.2, 0.09, 0.3), by=0.1) == "inconclusive"
    assert verdict(Interval(-0.2, -0.3, -0.11), by=0.1) == "worse"
    assert verdict(Interval(-0.2, -0.3, -0.09), by=0.1) == "inconclusive"
