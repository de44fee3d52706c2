"""The gate errs as rarely as it promises: on simulated models whose true changes are known."""

import pytest

from benchmarks.gate_power import GRADED, SETS, Truth, count, decisions, shipped_bounds

TRIALS = 250
FIVE_PERCENT = 0.05 * TRIALS
# Where the true rate is 5 %, more than this is found once in 3,000 seeds.
ABOUT_FIVE_PERCENT = 0.1 * TRIALS
# Right or wrong alone and loosely correlated is the hardest; then the sets as they are shipped.
HARD: tuple[float, frozenset[int]] = (0.3, frozenset())
SHIPPED = (0.5, GRADED)


def judged(gain, loss, correlation, graded):
    losses = [loss] * SETS if isinstance(loss, float) else loss
    return count(decisions(Truth(gain, losses, correlation, graded), trials=TRIALS))


@pytest.mark.parametrize("scores", [HARD, SHIPPED])
def test_a_loss_of_10_points_ships_in_at_most_5_percent(scores):
    assert judged(0.2, 0.1, *scores).shipped <= FIVE_PERCENT


def test_a_loss_of_two_sets_alone_ships_in_at_most_5_percent():
    found = judged(0.2, [0.0] * (SETS - 2) + [0.4, 0.4], *HARD)
    assert found.shipped <= FIVE_PERCENT
    assert found.lost >= 0.8 * TRIALS


@pytest.mark.parametrize("scores", [HARD, SHIPPED])
def test_a_gain_of_20_points_without_a_loss_ships_in_at_least_80_percent(scores):
    assert judged(0.2, 0.0, *scores).shipped >= 0.8 * TRIALS


@pytest.mark.parametrize("scores", [HARD, SHIPPED])
def test_a_model_that_is_its_base_ships_in_at_most_5_percent(scores):
    assert judged(0.0, 0.0, *scores).shipped <= FIVE_PERCENT


@pytest.mark.parametrize("scores", [HARD, SHIPPED])
def test_no_set_is_said_to_have_lost_that_did_not_in_more_than_5_percent(scores):
    assert judged(0.0, 0.0, *scores).lost <= FIVE_PERCENT
    # The hardest truth: each has lost just what it may.
    assert judged(0.2, shipped_bounds()[1], *scores).lost <= ABOUT_FIVE_PERCENT


def test_a_loss_of_just_the_bound_ships_in_at_most_5_percent():
    assert judged(0.3, shipped_bounds()[1], *SHIPPED).shipped <= ABOUT_FIVE_PERCENT
