"""Both losses are drawn on any terminal, and the step whose adapter is kept is marked."""

import io

import pytest

from contract.results.train import BaseAndTuned, HeldOutScores, StepLosses, TrainResult
from launcher.cli import summary
from launcher.cli.loss_chart import Curve, loss_chart
from launcher.display import terminal

HELD_OUT = {3: 1.5, 6: 1.0, 9: 1.2, 12: 2.0}


def trained(held_out=HELD_OUT, **changed):
    losses = [
        StepLosses(step=step, loss=2.5 - 0.2 * step, held_out_loss=held_out.get(step))
        for step in range(1, 13)
    ]
    scores = HeldOutScores(
        held_out_rows=4,
        answered_rows=0,
        loss=BaseAndTuned(base=2.4, tuned=1.0),
        exact_match=None,
        examples=[],
    )
    values = {"losses": losses, "steps": 12, "planned_steps": 12, "best_step": 6}
    values["resumed_after"] = []
    return TrainResult(**{"device": "cpu", "held_out": scores, **values, **changed})


def shown(result, *, encoding="utf-8", width=80):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    summary._scores(result, terminal(file=file, width=width))
    file.flush()
    return file.buffer.getvalue().decode(encoding)


def test_the_step_that_is_kept_is_marked():
    text = shown(trained())
    *drawn, legend = [line for line in text.splitlines() if "●" in line]
    assert len(drawn) == 1
    assert "least, kept: step 6" in legend
    # Halfway along the steps, above the training's last loss.
    columns = len(next(line for line in text.splitlines() if "└" in line).split("└")[1])
    assert drawn[0].split("│")[1].index("●") == round((columns - 1) / 2)
    assert "step 12" in text
    assert "stopped" not in text


def test_a_training_that_stopped_early_says_so():
    text = shown(trained(planned_steps=40))
    assert "stopped early after step 12 of 40" in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_these_characters_gets_others(encoding):
    text = shown(trained(), encoding=encoding)
    assert text.isascii()
    assert "* least, kept: step 6" in text


@pytest.mark.parametrize("width", [24, 40, 80, 200])
def test_the_chart_is_never_wider_than_the_terminal(width):
    curves = [
        Curve("training", [(step, 5.0 / step) for step in range(1, 400)], "·", ".", ""),
        Curve("held out", [(100, 1.0), (399, 0.5)], "○", "o", ""),
    ]
    lines = [line.plain for line in loss_chart(curves, width=width, plain=False)]
    assert max(len(line) for line in lines) <= width
    # The training's loss is seen all along, and the held-out one twice.
    drawn = [line.split("│")[1] for line in lines if "│" in line]
    assert sum(line.count("○") for line in drawn) == 2
    assert drawn[0].startswith("·")


def test_losses_that_are_no_numbers_are_left_out():
    held_out = {**HELD_OUT, 9: float("nan"), 12: float("inf")}
    text = shown(trained(held_out))
    drawn = [line.split("│")[1] for line in text.splitlines() if "│" in line]
    # The base's, and that of step 3; step 6 is the one that is kept.
    assert sum(line.count("○") for line in drawn) == 2


def test_where_nothing_was_evaluated_the_training_loss_is_a_line():
    text = shown(trained({}, best_step=None))
    assert "training loss  2.300 █" in text
    assert "└" not in text
