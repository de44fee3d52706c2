"""A stage is told its folders by flags of the same names."""

from pathlib import Path

import pytest

from contract.paths import StagePaths
from launcher.runtime.engine import Job, Mount


def test_the_flags_that_a_job_writes_are_those_that_a_stage_reads(tmp_path):
    data = tmp_path / "données d'été.jsonl"
    data.write_text("")
    job = Job(
        module="trainer.convert",
        lock="rtx",
        mounts=(Mount("run", tmp_path), Mount("llama_cpp", tmp_path), Mount("data", data)),
        log=tmp_path / "log",
    )
    given = StagePaths.from_arguments(job.command()[3:])
    assert given.run == Path("/affineur/run")
    assert given.llama_cpp == Path("/affineur/llama_cpp")
    assert given.data == Path("/affineur/data/données d'été.jsonl")


def test_a_stage_writes_into_its_own_folder_or_by_hand_into_the_runs():
    assert StagePaths.from_arguments(["--run", "/x"]).output == Path("/x")
    assert StagePaths.from_arguments(["--run", "/x", "--out", "/y"]).output == Path("/y")


def test_a_missing_place_is_a_bug_and_named():
    given = StagePaths(run=Path("/x"))
    with pytest.raises(LookupError, match="--llama-cpp"):
        given.require("llama_cpp")


def test_an_unknown_flag_ends_with_2(capsys):
    with pytest.raises(SystemExit) as ended:
        StagePaths.from_arguments(["--run", "/x", "--runn", "/y"])
    assert ended.value.code == 2
    assert "--runn" in capsys.readouterr().err
