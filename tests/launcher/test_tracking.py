"""Trackers are told a training's metrics by a process of the launcher's, which holds nothing up."""

import io
import json
import subprocess
from contextlib import suppress

import pytest
from rich.console import Console

from contract.events import Metrics
from contract.paths import TRACKING
from launcher.configuration import resolve
from launcher.display import Display
from launcher.pipeline.stages import training_stages
from launcher.runtime.environment import ensure_environment
from launcher.tracking import tracking as module
from launcher.tracking.messages import Begin
from launcher.tracking.tracking import Tracking, tracked

READ = """
import json, sys
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

folder, uri = sys.argv[1:]
events = EventAccumulator(folder)
events.Reload()
found = {"tensorboard": {tag: [[e.step, round(e.value, 6)] for e in events.Scalars(tag)]
                         for tag in events.Tags()["scalars"]},
         "texts": {tag: events.Tensors(tag)[-1].tensor_proto.string_val[0].decode()
                   for tag in events.Tags()["tensors"]}}
client = MlflowClient(tracking_uri=uri)
if experiment := client.get_experiment_by_name("un modèle"):
    [run] = client.search_runs([experiment.experiment_id])
    found["mlflow"] = {name: [[m.step, round(m.value, 6)]
                              for m in client.get_metric_history(run.info.run_id, name)]
                       for name in run.data.metrics}
    found["mlflow_run"] = [run.info.run_name, run.info.status, run.data.params["learning_rate"],
                           run.data.tags["data"]]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def python():
    return ensure_environment("tracking", ["tracking"], Display())


@pytest.fixture
def run(tmp_path, monkeypatch):
    folder = tmp_path / "é models" / "0123456789ab"
    folder.mkdir(parents=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return folder


def recipe(*trackers):
    names = ", ".join(trackers)
    return resolve("smoke", settings=[f"trackers=[{names}]", "output_model_name=modele"])


def begin(run, uri, *trackers):
    return Begin(
        trackers=list(trackers),
        folder=run / TRACKING,
        model="un modèle",
        run=run.name,
        parameters={"learning_rate": 0.003, "trackers": list(trackers)},
        tags={"data": "d" * 64},
        mlflow_uri=uri,
    )


def display():
    return Display(console=Console(file=io.StringIO(), width=200))


def steps(*numbers):
    return [
        Metrics(step=number, values={"train/loss": 1 / number, "eval/loss": 2 / number})
        for number in numbers
    ]


def read(python, run, uri):
    done = subprocess.run(
        [str(python), "-c", READ, str(run / TRACKING / "tensorboard"), uri],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_tensorboard_and_mlflow_show_what_was_measured(python, run, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    shown = display()
    tracking = Tracking(python, begin(run, uri, "tensorboard", "mlflow"), run / "log", shown)
    for metrics in steps(5, 10):
        tracking.on_metrics(metrics)
    tracking.scores = {"eval/loss_tuned": 0.125}
    tracking.end("finished")
    assert shown.console.file.getvalue() == ""
    found = read(python, run, uri)
    curves = {
        "train/loss": [[5, 0.2], [10, 0.1]],
        "eval/loss": [[5, 0.4], [10, 0.2]],
        "eval/loss_tuned": [[10, 0.125]],
    }
    assert found["tensorboard"] == curves
    assert "|learning_rate|0.003|" in found["texts"]["recipe"]
    assert found["texts"]["status"] == "finished"
    assert found["mlflow"] == curves
    assert found["mlflow_run"] == [run.name, "FINISHED", "0.003", "d" * 64]


def test_an_attempt_after_another_shows_as_one_run(python, run, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for ending, numbers in (("stopped", (5,)), ("finished", (5, 10))):
        tracking = Tracking(python, begin(run, uri, "tensorboard"), run / "log", display())
        for metrics in steps(*numbers):
            tracking.on_metrics(metrics)
        tracking.end(ending)
    assert read(python, run, uri)["tensorboard"]["train/loss"] == [[5, 0.2], [10, 0.1]]


def test_wandb_is_an_offline_folder(python, run, tmp_path):
    shown = display()
    tracking = Tracking(python, begin(run, "", "wandb"), run / "log", shown)
    for metrics in steps(5, 10):
        tracking.on_metrics(metrics)
    tracking.end("finished")
    assert shown.console.file.getvalue() == "", (run / "log").read_text()
    [offline] = (run / TRACKING / "wandb").glob("offline-run-*")
    assert list(offline.glob("run-*.wandb"))


def test_a_server_that_is_away_is_a_note_and_the_others_go_on(python, run, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = "http://127.0.0.1:9"
    shown = display()
    tracking = Tracking(python, begin(run, uri, "mlflow", "tensorboard"), run / "log", shown)
    for metrics in steps(5, 10):
        tracking.on_metrics(metrics)
    tracking.end("finished")
    said = shown.console.file.getvalue()
    assert "mlflow was not told all of it" in said
    assert said.count("\n") == 1
    assert "tensorboard" in (run / TRACKING).iterdir().__next__().name


def stand_in(tmp_path, text):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return program


def test_a_tracker_that_hangs_holds_no_training_up(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_TIME_TO_END_S", 0.2)
    shown = display()
    hanging = stand_in(tmp_path, "exec sleep 600")
    tracking = Tracking(hanging, begin(run, "", "mlflow"), run / "log", shown)
    # Far more than a pipe holds.
    for metrics in steps(*range(1, 20_000)):
        tracking.on_metrics(metrics)
    tracking.end("finished")
    assert "tracking did not end within" in shown.console.file.getvalue()


def test_a_tracker_that_dies_is_a_note(run, tmp_path):
    shown = display()
    dying = stand_in(tmp_path, "exit 1")
    tracking = Tracking(dying, begin(run, "", "mlflow"), run / "log", shown)
    for metrics in steps(*range(1, 20_000)):
        tracking.on_metrics(metrics)
    tracking.end("finished")
    assert "tracking ended by a bug" in shown.console.file.getvalue()


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt, "stopped"), (RuntimeError, "failed"), (None, "finished")],
)
def test_how_it_ended_is_said(run, tmp_path, monkeypatch, error, status):
    said = tmp_path / "said"
    program = stand_in(tmp_path, f"cat > '{said}'")
    monkeypatch.setattr(module, "ensure_environment", lambda *_: program)
    with suppress(BaseException), tracked(recipe("mlflow"), run, {}, display()) as tracking:
        tracking.on_metrics(steps(1)[0])
        if error:
            raise error
    lines = [json.loads(line) for line in said.read_text().splitlines()]
    assert [line.get("message") or line["event"] for line in lines] == ["begin", "metrics", "end"]
    assert lines[0]["parameters"]["learning_rate"] == 0.003
    assert lines[-1]["status"] == status


def test_nothing_is_begun_where_nothing_is_trained_or_tracked(run, tmp_path, monkeypatch):
    program = stand_in(tmp_path, f"touch '{tmp_path / 'begun'}'")
    monkeypatch.setattr(module, "ensure_environment", lambda *_: program)
    with tracked(recipe("mlflow"), run, {}, display()):
        pass
    monkeypatch.setattr(module, "ensure_environment", lambda *_: pytest.fail("needs none"))
    with tracked(recipe(), run, {}, display()) as tracking:
        assert tracking is None
    assert not (tmp_path / "begun").exists()


def test_trackers_are_part_of_no_stages_key():
    for stage in training_stages(resolve("smoke")):
        assert stage.section is None or "trackers" not in stage.section.model_fields
