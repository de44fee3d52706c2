"""Every stage has a result of its own type, and it survives the event and the manifest."""

import json

import pytest

from contract.errors import UserError
from contract.events import Result, parse_event
from contract.manifest import Manifest, StageRecord
from contract.results.merge import MergeResult
from contract.results.prepare import PrepareResult
from contract.results.table import RESULTS
from contract.results.train import (
    BaseAndTuned,
    HeldOutScores,
    MemoryFigures,
    StepLosses,
    TrainResult,
)
from launcher.configuration import resolve
from launcher.project import ROOT

SCORES = HeldOutScores(
    held_out_rows=4,
    answered_rows=2,
    loss=BaseAndTuned(base=3.0, tuned=float("inf")),
    exact_match=None,
    examples=[],
)
TRAINED = TrainResult(
    device="cpu, 2 threads",
    losses=[
        StepLosses(step=5, loss=2.5, held_out_loss=None),
        StepLosses(step=8, loss=0.1, held_out_loss=float("nan")),
    ],
    steps=8,
    planned_steps=10,
    best_step=None,
    resumed_after=[3],
    memory=MemoryFigures(estimate_bytes=1 << 31),
    held_out=SCORES,
)


def record(**changed):
    values = {
        **{"stage": "train", "key": "k", "command": [], "engine": "local", "started": "now"},
        **{"seconds": 1.0, "inputs": {}, "outputs": {}, "result": TRAINED.model_dump(mode="json")},
    }
    return StageRecord(**{**values, **changed})


def manifest(*stages):
    return Manifest(
        affineur_version="0",
        key="k",
        recipe=resolve("smoke"),
        base={"source": "x", "revision": None, "digest": "d", "files": {}},
        machine={"platform": "Linux", "processor": "p", "cores": 2},
        **{name: {} for name in ("data", "locks", "code", "versions")},
        created="now",
        stages=list(stages),
    )


def test_every_stage_of_the_trainer_has_a_result_and_nothing_else_has():
    packages = {file.parent.name for file in (ROOT / "trainer").glob("*/__main__.py")}
    assert set(RESULTS) == packages
    assert all(RESULTS[name].stage == name for name in RESULTS)


def test_a_result_comes_through_the_event_and_the_manifest_unchanged(tmp_path):
    event = parse_event(Result(values=TRAINED.model_dump(mode="json")).model_dump_json())
    manifest(record(result=event.values)).write(tmp_path / "manifest.json")
    found = Manifest.read(tmp_path / "manifest.json").result(TrainResult)
    assert found.model_dump_json() == TRAINED.model_dump_json()


def test_pairs_of_places_come_through_as_pairs():
    figures = {"min": 1, "median": 1, "p95": 1, "max": 1}
    pairs = {name: [("a:1", "a:2")] for name in ("duplicates", "conflicts", "in_both")}
    report = PrepareResult(
        **{"rows": 2, "train": 2, "held_out": 0, "max_length": 16, "lengths": [1, 1]},
        **{
            "tokens": figures,
            "answer_tokens": figures,
            "cut": [],
            "no_room": [],
            "laid_out": [],
            **pairs,
        },
    )
    written = record(stage="prepare", result=json.loads(report.model_dump_json()))
    assert written.typed_result(PrepareResult) == report


def test_a_manifest_of_another_version_is_read_and_its_result_told_in_a_sentence(tmp_path):
    manifest(record(result={"device": "cpu"})).write(tmp_path / "manifest.json")
    old = Manifest.read(tmp_path / "manifest.json")
    with pytest.raises(
        UserError,
        match=r"result of train: was written by another version .*\(losses: field required\)",
    ):
        old.result(TrainResult)


def test_another_stages_result_is_a_bug():
    with pytest.raises(TypeError, match="MergeResult is not what train finds out"):
        record().typed_result(MergeResult)
    with pytest.raises(LookupError, match="no stage merge"):
        manifest(record()).result(MergeResult)
