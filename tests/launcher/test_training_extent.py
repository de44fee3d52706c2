"""What is said of a training's length before it begins is what it turns out to be."""

import pytest

from contract import paths
from contract.precision_policy import Card
from contract.results.prepare import LengthFigures, PrepareResult
from contract.results.train import TrainResult
from launcher.cli import plan_report
from launcher.configuration import resolve
from launcher.display import terminal
from launcher.pipeline.finished_run import Run
from launcher.pipeline.training import Plan
from launcher.pipeline.training_extent import (
    TrainingExtent,
    last_rate,
    training_extent,
    trains_alike,
)


def report(train, lengths, max_length=100):
    figures = LengthFigures(min=1, median=1, p95=1, max=1)
    return PrepareResult(
        rows=len(lengths),
        train=train,
        held_out=len(lengths) - train,
        max_length=max_length,
        tokens=figures,
        answer_tokens=figures,
        lengths=lengths,
        cut=[],
        no_room=[],
        duplicates=[],
        conflicts=[],
        in_both=[],
        laid_out=[],
    )


@pytest.mark.parametrize(
    ("settings", "rows", "steps"),
    [
        (["epochs=1", "batch_size=4"], 12, 3),
        (["epochs=1", "batch_size=5"], 12, 3),
        (["epochs=3", "batch_size=4", "gradient_accumulation_steps=2"], 12, 6),
        (["epochs=0.5", "batch_size=4"], 12, 2),
        (["epochs=2", "batch_size=8", "gradient_accumulation_steps=64"], 12, 2),
    ],
)
def test_steps_are_counted_as_transformers_does(settings, rows, steps):
    recipe = resolve("smoke", settings=settings)
    found = training_extent(recipe, report(rows, [10] * rows))
    assert found.steps == steps


def test_tokens_are_those_that_are_left_of_the_rows_that_train():
    recipe = resolve("smoke", settings=["epochs=2"])
    found = training_extent(recipe, report(3, [50, 50, 100, 900]))
    assert found.tokens == 2 * 300 * 3 / 4


def test_packing_changes_no_step():
    extents = [
        training_extent(
            resolve("smoke", settings=["epochs=1", "batch_size=2", f"packing={packing}"]),
            report(40, [10] * 40),
        )
        for packing in ("true", "false")
    ]
    assert extents == [TrainingExtent(20, 400)] * 2


def test_a_real_run_has_as_many_steps_and_about_as_many_tokens(smoke_run):
    run = Run(smoke_run.folder)
    records = {record.stage: record for record in run.manifest.stages}
    found = training_extent(run.recipe, records["prepare"].typed_result(PrepareResult))
    assert found.steps == records["train"].typed_result(TrainResult).planned_steps
    metrics = run.folder / paths.METRICS
    assert last_rate(metrics) > 0
    trained = int(metrics.read_text().rpartition('"tokens":')[2].partition(",")[0])
    assert found.tokens == pytest.approx(trained, rel=0.02)


@pytest.mark.parametrize("content", [None, "", "{}\n", '{"step": 1', "\xff"])
def test_without_metrics_there_is_no_rate(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content, encoding="latin-1")
    assert last_rate(tmp_path / "metrics.jsonl") is None


def test_another_precision_or_base_says_nothing_of_the_time():
    recipe = resolve("smoke")
    assert trains_alike(recipe, resolve("smoke", settings=["learning_rate=1e-5"]))
    assert not trains_alike(recipe, resolve("smoke", settings=["quantize_base=none"]))
    assert not trains_alike(recipe, resolve("smoke", settings=["model_to_fine_tune=a/b"]))


def shown(capsys, plan, card=None):
    plan_report.show(plan, card, terminal())
    return capsys.readouterr().out


def test_the_report_says_all_of_it(capsys):
    plan = Plan(
        [("train", "to run: learning_rate 0.003 -> 1e-05")],
        resolve("smoke"),
        attention="sdpa",
        extent=TrainingExtent(270, 99_915),
        tokens_per_s=1939.8,
    )
    said = shown(capsys, plan)
    assert "train       to run: learning_rate 0.003 -> 1e-05\n" in said
    assert "compute     fp32: nothing is rounded\n" in said
    assert "attention   sdpa: " in said
    extent = "270 steps of about 370 tokens, 99,915 tokens"
    assert f"training    {extent}: about 52 s at the last training's 1,940 tokens/s\n" in said


def test_the_report_keeps_quiet_about_what_is_not_known(capsys):
    plan = Plan([("train", "to run")], resolve("rtx"))
    said = shown(capsys, plan, card=Card((8, 6), "RTX 3060"))
    assert "attention" not in said
    assert "training " not in said
    assert "compute     bf16: RTX 3060 (compute capability 8.6) computes in it" in said
