"""The plan runs preflight where that takes seconds, and nothing else; a run checks the server."""

import json

import pytest

from contract import paths
from contract.chat_format import ChatFormat
from contract.errors import UserError
from contract.manifest import StageRecord
from contract.results.preflight import PreflightResult
from launcher.configuration import resolve
from launcher.display import Display
from launcher.pipeline import training
from launcher.pipeline.file_digests import FileDigests
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
    return dict(training.plan(recipe, engine, Display(quiet=True)))


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
