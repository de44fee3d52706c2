"""The manifest says what the recipe says, also where no stage reads what was changed."""

import pytest

from contract.base import BaseIdentity
from contract.manifest import StageRecord
from launcher.configuration import resolve
from launcher.pipeline import training
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.finished_run import Run
from launcher.pipeline.inputs import RunInputs
from launcher.pipeline.runner import StageFolder
from launcher.pipeline.stages import Input, training_stages


@pytest.fixture
def write(tmp_path):
    """Writes the manifest of a run of which every stage is up to date; returns its bytes."""
    folder = StageFolder(tmp_path, FileDigests(tmp_path / "digests.json"))
    identity = BaseIdentity(source="b", revision=None, digest="0", files={})
    for stage in training_stages(resolve("smoke")):
        record = StageRecord(
            stage=stage.name,
            key="k",
            command=[],
            engine="local",
            started="2026-01-01T00:00:00+00:00",
            seconds=1,
            inputs={},
            outputs={},
            result={},
        )
        folder.write_record(record)

    def manifest(*settings):
        recipe = resolve("smoke", settings=settings)
        inputs = RunInputs(recipe, identity, {"data": Input("d"), "base": Input("b")})
        keys = training.training_keys(recipe, inputs)
        training._write_manifest(Run(tmp_path), recipe, inputs=inputs, keys=keys, folder=folder)
        return keys, (tmp_path / "manifest.json").read_bytes()

    return manifest


@pytest.mark.parametrize(
    "setting", ["metric=number", "max_skill_loss=0.31", "dataset_path=data/training/demo.jsonl"]
)
def test_a_key_that_no_stage_reads_is_in_the_manifest_all_the_same(write, tmp_path, setting):
    keys, before = write()
    assert write() == (keys, before)
    keys_after, after = write(setting)
    assert keys_after == keys
    name, _, value = setting.partition("=")
    assert str(getattr(Run(tmp_path).recipe, name)) == value
    assert after != before
