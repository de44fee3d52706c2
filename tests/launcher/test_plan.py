"""The plan runs preflight where that takes seconds, and nothing else; a run checks the server."""

import json

import pytest

from contract import paths
from contract.chat_format import ChatFormat
from contract.digest import digest_of_value
from contract.errors import UserError
from contract.manifest import StageRecord
from contract.results.preflight import PreflightResult
from launcher.configuration import resolve
from launcher.display import Display
from launcher.pipeline import training
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.key_changes import key_changes
from launcher.pipeline.runner import StageFolder
from launcher.pipeline.stages import PREFLIGHT, PREPARE, TRAIN
from launcher.pipeline.work_folder import WorkFolder
from launcher.project import CACHE
from launcher.runtime.local_engine import LocalEngine

pytestmark = pytest.mark.slow


class UnbuiltEngine(LocalEngine):
    """An engine whose image or environment would have to be made first."""

    def is_ready(self, lock, *, exporter=False):
        return False

    def run(self, job, on_event, display):
        raise AssertionError("the plan made the engine build something")


def planned(base, engine, *settings):
    recipe = resolve("smoke", settings=[f"model_to_fine_tune={base}", *settings])
    return dict(training.plan(recipe, engine, Display(quiet=True)).stages)


def test_the_plan_finds_no_problem_with_a_good_base_and_leaves_nothing(untrained, llama_cpp):
    assert llama_cpp.is_dir()
    lines = planned(untrained, LocalEngine())
    assert lines[PREFLIGHT.name] == "no problem found"
    assert lines[TRAIN.name] == "to run"
    assert list(lines)[1] == PREFLIGHT.name
    assert not list(CACHE.glob("plan-*"))


def test_the_plan_says_from_which_step_a_training_is_resumed(untrained, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "model_folder", lambda name: tmp_path)
    engine = UnbuiltEngine()
    recipe = resolve("smoke", settings=[f"model_to_fine_tune={untrained}"])
    inputs = training.inputs_at_hand(recipe, display=Display(quiet=True), digests=FileDigests())
    keys = training.training_keys(recipe, inputs)
    work = WorkFolder(training.run_folder(recipe, keys), TRAIN)
    work.open(keys[TRAIN.name])
    for name in ("step-9", "step-120", "step-240.unfinished", "base_scores.json"):
        (work.path / "checkpoints" / name).mkdir(parents=True)
    assert planned(untrained, engine)[TRAIN.name] == "to be resumed after step 120"
    # One of other settings is another training's.
    assert planned(untrained, engine, "learning_rate=1e-5")[TRAIN.name] == "to run"


@pytest.fixture
def recorded(untrained, tmp_path, monkeypatch):
    """A run whose stages are all recorded, with nothing written; and its folder."""
    monkeypatch.setattr(training, "model_folder", lambda name: tmp_path)
    monkeypatch.setattr(training.Run, "exists", lambda model: any(tmp_path.iterdir()))
    recipe = resolve("smoke", settings=[f"model_to_fine_tune={untrained}"])
    inputs = training.inputs_at_hand(recipe, display=Display(quiet=True), digests=FileDigests())
    keys = training.training_keys(recipe, inputs)
    folder = StageFolder(training.run_folder(recipe, keys), FileDigests(tmp_path / "digests.json"))
    parts = training.training_key_parts(recipe, inputs)
    for stage in training.training_stages(recipe):
        folder.write_record(record(folder, stage, keys[stage.name], parts[stage.name]))
    monkeypatch.setattr(training.Run, "find", lambda model: training.Run(folder.path))
    monkeypatch.setattr(training.Run, "is_finished", True)
    return folder


def record(folder, stage, key, decided_by):
    return StageRecord(
        stage=stage.name,
        key=key,
        decided_by=decided_by,
        command=[],
        engine="local",
        started="2026-01-01T00:00:00+00:00",
        seconds=1,
        inputs=folder.upstream_digests(stage),
        outputs={},
        result={},
    )


def states(untrained, *settings):
    lines = planned(untrained, UnbuiltEngine(), *settings)
    return {name: state for name, state in lines.items() if name not in ("base", PREFLIGHT.name)}


def test_the_plan_says_what_is_up_to_date_and_what_was_changed(untrained, recorded):
    assert set(states(untrained).values()) == {"up to date"}
    found = states(untrained, "quantizations=[q8_0]", "temperature=0.5")
    assert found == {
        "prepare": "up to date",
        "rendering": "up to date",
        "train": "up to date",
        "merge": "up to date",
        "convert": 'to run: quantizations ["f16", "q8_0"] -> ["q8_0"]',
        "modelfile": "to run: temperature 0.0 -> 0.5",
        "reference": 'to run: quantizations ["f16", "q8_0"] -> ["q8_0"]',
    }


def test_another_run_is_compared_with_the_last_one(untrained, recorded, capsys):
    found = states(untrained, "learning_rate=1e-5", "max_length=64")
    assert found["prepare"] == "to run: max_length 512 -> 64"
    assert states(untrained, "learning_rate=1e-5")["prepare"] == "to run: in a new run"
    assert found["train"] == "to run: learning_rate 0.003 -> 1e-05"
    assert found["merge"] == "to run: after train"
    assert found["convert"] == "to run: after merge"


def test_a_run_of_another_version_is_compared_with_nothing(untrained, recorded, monkeypatch):
    def refused(_model):
        raise UserError.one("manifest.json", "was written by another version")

    monkeypatch.setattr(training.Run, "find", refused)
    assert states(untrained, "learning_rate=1e-5")["train"] == "to run"


def test_what_was_written_and_is_changed_is_made_again(untrained, recorded):
    (recorded.path / "metrics.jsonl").write_text("{}")
    found = states(untrained)
    assert found["prepare"] == "up to date"
    assert found["train"] == "to run: what it wrote is gone or was changed"
    assert found["merge"] == "to run: after train"


def test_a_record_of_an_earlier_version_says_less(untrained, recorded):
    before = recorded.record("train")
    recorded.write_record(before.model_copy(update={"key": "another", "decided_by": {}}))
    assert states(untrained)["train"] == "to run"


def test_what_a_key_is_of_is_what_is_recorded(recorded):
    for stage in ("prepare", "train", "reference"):
        found = recorded.record(stage)
        assert found.key == digest_of_value(found.decided_by)


def test_every_part_of_a_key_has_a_word():
    before = {
        "contract": 1,
        "recipe": {"a": 1, "gone": 1, "text": "x"},
        "code": "1",
        "lock": "1",
        "inputs": {"data": "1", "base": "1"},
        "upstream": {"prepare": "1"},
    }
    now = {
        "contract": 2,
        "recipe": {"a": 1, "text": "y " * 100},
        "code": "2",
        "lock": "2",
        "inputs": {"data": "2", "base": "1", "tools": "1"},
        "upstream": {"prepare": "2"},
    }
    assert key_changes(before, now) == [
        "text x -> y y y y y y y y y y y y y y...",
        "gone",
        "the dataset",
        "llama.cpp's tools",
        "the locked packages",
        "this stage's code",
        "the version of Affineur",
    ]
    assert key_changes(now, now) == []
    assert key_changes({}, now) == []


def test_the_plan_says_every_problem(untrained, llama_cpp):
    assert llama_cpp.is_dir()
    with pytest.raises(UserError) as caught:
        planned(untrained, LocalEngine(), "max_length=4096", "lora_target_modules=[q_porj]")
    assert [problem.where for problem in caught.value.problems] == [
        "max_length",
        "lora_target_modules",
    ]


def test_the_plan_builds_nothing(untrained):
    assert planned(untrained, UnbuiltEngine())[PREFLIGHT.name] == "to run"


@pytest.mark.parametrize(
    ("go_template", "why"),
    [(True, None), (None, None), (False, "the base's chat template does more than they can")],
)
def test_the_server_is_checked_by_what_preflight_found(tmp_path, go_template, why):
    result = PreflightResult(
        architecture="A",
        parameters=1,
        attention="sdpa",
        adapted=1,
        go_template=go_template,
        notes=[],
    )
    folder = StageFolder(tmp_path, FileDigests(tmp_path / "digests.json"))
    folder.write_record(
        StageRecord(
            stage=PREFLIGHT.name,
            key="k",
            command=[],
            engine="local",
            image=None,
            python=None,
            started="2026-01-01T00:00:00+00:00",
            seconds=1,
            inputs={},
            outputs={},
            result=json.loads(result.model_dump_json()),
        )
    )
    assert training._needs_template_engine(PREFLIGHT, folder) == why
    assert training._needs_template_engine(TRAIN, folder) is None


def test_the_server_is_checked_by_what_the_data_have(tmp_path):
    found = ChatFormat(
        template="",
        end="",
        ends=[],
        end_ids=[],
        thinking=None,
        needs_template_engine="the data have tools",
    )
    found.write(tmp_path / paths.CHAT_FORMAT)
    folder = StageFolder(tmp_path, FileDigests(tmp_path / "digests.json"))
    assert training._needs_template_engine(PREPARE, folder) == "the data have tools"
