"""What a training measures is said as events, for whoever follows it."""

import io
import json
import math
from types import SimpleNamespace

from trainer.entrypoint import Reporter
from trainer.train.callbacks import MetricsCallback


def callback(tmp_path, held_out):
    stream = io.StringIO()
    return MetricsCallback(tmp_path / "metrics.jsonl", Reporter(stream), held_out), stream


def log(metrics, step, **logs):
    state = SimpleNamespace(global_step=step, max_steps=10)
    given = {"loss": 0.5, "learning_rate": 0.003, "epoch": 1.0, "num_tokens": 40.0, **logs}
    metrics.on_log(None, state, None, logs=given)


def said(stream):
    return [
        (event["step"], event["values"])
        for event in map(json.loads, stream.getvalue().splitlines())
        if event["event"] == "metrics"
    ]


def test_each_line_of_metrics_is_an_event(tmp_path):
    metrics, stream = callback(tmp_path, {10: 0.25})
    metrics.on_train_begin(None, None, None)
    log(metrics, 5, grad_norm=2.0)
    # A first norm may be no number, and JSON has none for it.
    log(metrics, 10, grad_norm=math.inf)
    (first, values), (second, last) = said(stream)
    assert (first, second) == (5, 10)
    assert values["train/loss"] == 0.5
    assert values["train/grad_norm"] == 2.0
    assert values["train/learning_rate"] == 0.003
    assert "eval/loss" not in values
    assert last["eval/loss"] == 0.25
    assert "train/grad_norm" not in last


def test_a_training_that_goes_on_says_its_lines_again(tmp_path):
    before, _ = callback(tmp_path, {})
    before.on_train_begin(None, None, None)
    log(before, 5, grad_norm=1.0)
    metrics, stream = callback(tmp_path, {})
    metrics.restore(before.lines, seconds=3)
    metrics.on_train_begin(None, None, None)
    log(metrics, 6, grad_norm=1.0)
    assert [step for step, _ in said(stream)] == [5, 6]
