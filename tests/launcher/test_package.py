"""A package is one file with all that an application needs of a run, the same file each time."""

import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from contract import paths
from contract.digest import digest_of_file
from contract.errors import UserError
from launcher.display import Display
from launcher.pipeline import package
from launcher.pipeline.finished_run import Run
from tests.conftest import invoke

QUIET = Display(quiet=True)


@pytest.fixture
def run(smoke_run):
    return Run(smoke_run.folder)


@pytest.fixture
def copied(run_copy):
    return Run(run_copy)


def test_it_holds_what_the_run_made_and_nothing_of_its_work(run, tmp_path):
    target = tmp_path / "à moi.zip"
    package.write_package(run, target, QUIET)
    with zipfile.ZipFile(target) as opened:
        assert opened.testzip() is None
        names = opened.namelist()
        opened.extractall(tmp_path / "there")
    (folder,) = (tmp_path / "there").iterdir()
    assert folder.name == f"affineur-smoke-{run.name}"
    found = sorted(name.split("/", 1)[1] for name in names)
    assert found == sorted(
        [
            *("Modelfile", "manifest.json", "metrics.jsonl", "serving.json", "gguf/model-f16.gguf"),
            *(path.relative_to(run.folder).as_posix() for path in run.adapter.iterdir()),
        ]
    )
    for name in found:
        assert digest_of_file(folder / name) == digest_of_file(run.folder / name)
    # What the Modelfile names lies where it says.
    (line,) = (line for line in (folder / "Modelfile").read_text().splitlines() if "FROM" in line)
    assert (folder / line.removeprefix("FROM ")).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "à moi.zip"]


def test_it_is_the_same_file_whenever_it_is_written(copied, tmp_path):
    package.write_package(copied, tmp_path / "one.zip", QUIET)
    for path in copied.folder.rglob("*"):
        os.utime(path, (1, 1))
    package.write_package(copied, tmp_path / "two.zip", QUIET)
    assert digest_of_file(tmp_path / "one.zip") == digest_of_file(tmp_path / "two.zip")


def test_an_evaluated_runs_card_goes_with_it(copied, tmp_path):
    for name in (paths.EVALUATION, paths.CARD):
        (copied.folder / name).write_text("{}")
    package.write_package(copied, tmp_path / "p.zip", QUIET)
    names = zipfile.ZipFile(tmp_path / "p.zip").namelist()
    assert {Path(name).name for name in names} >= {"evaluation.json", "card.md"}


@pytest.mark.parametrize("name", ["adapter/adapter_model.safetensors", "gguf/model-f16.gguf"])
def test_a_file_that_the_run_did_not_make_is_refused_and_nothing_is_written(copied, tmp_path, name):
    (copied.folder / name).write_bytes(b"another")
    with pytest.raises(UserError, match="is not the file that the run created"):
        package.write_package(copied, tmp_path / "p.zip", QUIET)
    assert not (tmp_path / "p.zip").exists()


def test_a_disk_without_room_is_said_before_anything_is_written(run, tmp_path, monkeypatch):
    full = SimpleNamespace(free=1000)
    monkeypatch.setattr("contract.disk_space.shutil.disk_usage", lambda folder: full)
    with pytest.raises(UserError, match=r"GB free, but the package takes .*--output"):
        package.write_package(run, tmp_path / "p.zip", QUIET)
    assert list(tmp_path.iterdir()) == []


def test_as_a_person_asks_for_it(smoke_run, tmp_path):
    project = smoke_run.project
    words = ("package", "--model", "affineur-smoke")
    done = invoke(project, *words, "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.iterdir()
    assert done.stdout == f"{written}\n"
    assert written.name == f"affineur-smoke-{smoke_run.folder.name}.zip"
    assert "ollama create affineur-smoke -f Modelfile" in done.stderr
    again = invoke(project, *words, "--output", str(written))
    assert again.returncode == 2
    assert "already exists. Delete it, or choose another name." in again.stderr
    nowhere = invoke(project, *words, "--output", str(tmp_path / "no" / "p.zip"))
    assert nowhere.returncode == 2
    assert "is no folder. Make it first" in nowhere.stderr
    unknown = invoke(project, "package", "--model", "nobody")
    assert unknown.returncode == 2
    assert "has no finished run here" in unknown.stderr
