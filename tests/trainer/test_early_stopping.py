"""The adapter of least held-out loss is kept, and a training that no longer improves stops."""

import io
import json
import math
import shutil

import pytest
import torch
from transformers import TrainerControl, TrainerState

from contract.digest import digest_of_file
from contract.errors import UserError
from contract.paths import StagePaths
from contract.recipe import Recipe, TrainSection
from contract.results.train import TrainingMetrics, TrainResult
from launcher.configuration import resolve
from tests.conftest import stage
from trainer.entrypoint import Reporter
from trainer.prepared import read_prepared
from trainer.train.callbacks import EvaluationCallback
from trainer.train.early_stopping import BestAdapter, evaluation_due
from trainer.train.loading import load_base
from trainer.train.scoring import held_out_loss
from trainer.train.stage import train


@pytest.mark.parametrize(
    ("eval_steps", "planned", "steps"),
    [
        (3, 10, [3, 6, 9, 10]),
        (0.25, 10, [3, 6, 9, 10]),
        (0.5, 10, [5, 10]),
        (0.2, 3, [1, 2, 3]),
        (50, 10, [10]),
        (1, 2, [1, 2]),
    ],
)
def test_every_so_many_steps_or_share_of_the_run_and_the_last_one(eval_steps, planned, steps):
    due = [step for step in range(1, planned + 1) if evaluation_due(step, planned, eval_steps)]
    assert due == steps


def train_with_losses(losses, *, patience):
    """A training of one weight that is its step, evaluated after each; and where it ended."""
    model = torch.nn.Linear(1, 1, bias=False)
    left = iter(losses)
    callback = EvaluationCallback(lambda *_: next(left), eval_steps=1, patience=patience)
    control = TrainerControl()
    for step in range(1, len(losses) + 1):
        model.weight.data.fill_(step)
        state = TrainerState(global_step=step, max_steps=len(losses))
        callback.on_step_end(None, state, control, model=model)
        assert control.should_log
        if control.should_training_stop:
            break
    callback.best.restore(model)
    return callback, step, model.weight.item()


@pytest.mark.parametrize(
    ("losses", "patience", "ended", "kept"),
    [
        ([3, 2, 1], 1, 3, 3),
        ([3, 2, 4, 1], 1, 3, 2),
        ([3, 2, 4, 1], 2, 4, 4),
        ([3, 2, 4, 5, 1], 2, 4, 2),
        # An equal loss is no improvement, and the earlier adapter is kept.
        ([2, 2, 2, 1], 2, 3, 1),
        ([2, math.nan, 1, 4], 2, 4, 3),
        ([math.nan, 2, math.nan, math.inf, 1], 2, 4, 2),
        # Never before the end.
        ([1, 2, 3, 4, 5, 6], 0, 6, 1),
    ],
)
def test_patience_counts_evaluations_without_a_lower_loss(losses, patience, ended, kept):
    callback, step, weight = train_with_losses(losses, patience=patience)
    assert (step, callback.best.step, weight) == (ended, kept, kept)
    assert list(callback.losses) == list(range(1, ended + 1))


def test_where_no_loss_is_a_number_the_last_adapter_stays():
    callback, step, weight = train_with_losses([math.nan] * 3, patience=0)
    assert (callback.best.step, step, weight) == (None, 3, 3)


def test_what_is_kept_is_a_copy_of_the_trained_weights_alone():
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    best = BestAdapter()
    best.offer(1, 1.0, model)
    assert list(best.weights) == ["weight"]
    kept = best.weights["weight"].clone()
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    best.restore(model)
    assert torch.equal(model.weight, kept)
    assert not model.bias.any()


def train_again(run, smoke_run, *, rows, held_out, **changed):
    """The stage `train` alone, on the first rows of a run's data and with other keys."""
    for name, number in (("train", rows), ("held_out", held_out)):
        file = run / "prepared" / f"{name}.jsonl"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:number]))
    recipe = json.loads((run / "recipe.json").read_text())
    # One thread: on a busy machine two wait for each other at every operation.
    keys = {"cpu_threads": 1, "logging_steps": 5, "held_out_answers": 0, **changed}
    (run / "recipe.json").write_text(json.dumps({**recipe, **keys}))
    shutil.rmtree(run / "adapter")
    flags = ("--run", str(run), "--base", str(smoke_run.base))
    code, events, log = stage("trainer.train", *flags)
    assert code == 0, (events, log)
    return TrainResult.model_validate(events[-1]["values"]), events


# Sixteen rows, again and again: in the end they are known by heart, and the others less and less.
OVERFITS = {"learning_rate": 3e-3, "epochs": 20, "lr_scheduler_type": "constant"}


@pytest.fixture(scope="module")
def overfitted(smoke_run, tmp_path_factory):
    run = tmp_path_factory.mktemp("overfitted") / "run"
    shutil.copytree(smoke_run.folder, run)
    keys = {**OVERFITS, "eval_steps": 2, "early_stopping_patience": 5}
    result, events = train_again(run, smoke_run, rows=16, held_out=12, **keys)
    return run, result, events


def curve(result):
    return {p.step: p.held_out_loss for p in result.losses if p.held_out_loss is not None}


def test_a_training_that_overfits_stops_and_says_so(overfitted):
    run, result, events = overfitted
    assert result.steps < result.planned_steps == 40
    losses = curve(result)
    assert list(losses) == list(range(2, result.steps + 1, 2))
    assert result.best_step == min(losses, key=losses.get) == result.steps - 5 * 2
    # It did learn at first, and went on learning its own rows to the end.
    assert result.best_step > 2
    assert result.losses[-1].loss < 0.5 * losses[result.steps]
    said = f"stopped after step {result.steps} of 40: the held-out loss was no lower in 5"
    assert any(said in event["text"] for event in events if event["event"] == "note")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    written = [TrainingMetrics.model_validate_json(line) for line in lines]
    assert {line.step: line.held_out_loss for line in written if line.held_out_loss} == losses
    assert [line.step for line in written] == [point.step for point in result.losses]


def test_the_saved_adapter_is_the_one_of_least_held_out_loss(overfitted, smoke_run, tmp_path):
    from peft import PeftModel

    run, result, _ = overfitted
    losses = curve(result)
    recipe = Recipe.read(run / "recipe.json").section(TrainSection)
    model = PeftModel.from_pretrained(load_base(smoke_run.base, recipe), run / "adapter")
    rows = read_prepared(run / "prepared" / "held_out.jsonl")
    with (tmp_path / "events").open("w") as stream:
        afresh = held_out_loss(model, rows, who="afresh", reporter=Reporter(stream))
    assert afresh == pytest.approx(min(losses.values()), rel=1e-5)
    assert afresh == pytest.approx(result.held_out.loss.tuned, rel=1e-5)
    assert afresh < 0.9 * losses[result.steps]


def test_a_training_that_is_watched_is_the_same_training(smoke_run, tmp_path):
    """To the byte: with dropout, which draws random numbers, and a 4-bit base."""
    digests = {}
    for name, eval_steps in (("watched", 1), ("not watched", None)):
        run = shutil.copytree(smoke_run.folder, tmp_path / name)
        keys = {"epochs": 2, "lora_dropout": 0.2, "learning_rate": 1e-3, "eval_steps": eval_steps}
        result, _ = train_again(run, smoke_run, rows=32, held_out=6, **keys)
        assert len(curve(result)) == (8 if eval_steps else 0)
        assert result.best_step == (8 if eval_steps else None)
        digests[name] = digest_of_file(run / "adapter" / "adapter_model.safetensors")
    assert digests["watched"] == digests["not watched"]


def test_without_held_out_rows_there_is_nothing_to_stop_by(untrained, tmp_path):
    (tmp_path / "prepared").mkdir()
    for name in ("train", "held_out"):
        (tmp_path / "prepared" / f"{name}.jsonl").write_text("")
    settings = ["early_stopping_patience=2", "cpu_threads=0"]
    resolve("smoke", settings=settings).write(tmp_path / "recipe.json")
    paths = StagePaths.from_arguments(["--run", str(tmp_path), "--base", str(untrained)])
    with pytest.raises(UserError, match=r"early_stopping_patience: no rows were held out.*Raise"):
        train(paths, Reporter(io.StringIO()))
