"""A finished run is found by its model's name, and its parts are compared with the disk."""

import shutil

import pytest

from contract.errors import UserError
from contract.manifest import Manifest, StageRecord
from contract.serving import Serving
from launcher.configuration import resolve
from launcher.pipeline import finished_run as module
from launcher.pipeline.finished_run import Run, canonical_name, model_folder, model_name

GGUF = "gguf/model-q8_0.gguf"


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MODELS", tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def finished(models):
    """Makes the folder of a finished run, with one served file of a few bytes."""

    def make(model, key, created="2026-01-01T00:00:00+00:00"):
        folder = models / model / key
        (folder / "gguf").mkdir(parents=True)
        (folder / GGUF).write_bytes(b"weights")
        record = StageRecord(
            stage="convert",
            key="k",
            command=[],
            engine="local",
            started=created,
            seconds=1.0,
            inputs={},
            # sha256 of b"weights".
            outputs={GGUF: "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"},
            result={},
        )
        manifest = Manifest(
            affineur_version="0",
            key=key,
            recipe=resolve("smoke"),
            base={"source": "x", "revision": None, "digest": "0", "files": {}},
            data={},
            locks={},
            code={},
            versions={},
            machine={"platform": "x", "processor": "y", "cores": 1},
            created=created,
            stages=[record],
        )
        Run(folder).write_manifest(manifest)
        serving = Serving(gguf=GGUF, template=None, system=None, parameters={})
        (folder / "serving.json").write_text(serving.model_dump_json())
        return folder

    return make


@pytest.mark.parametrize("name", ["smoke", "smoke:latest"])
def test_the_name_that_ollama_prints_is_the_models(finished, name):
    folder = finished("smoke", "0123")
    assert Run.find(name).folder == folder
    assert Run.exists(name)


def test_another_tag_is_another_model(finished, models):
    finished("smoke", "0123")
    assert not Run.exists("smoke:v2")
    assert model_folder("a/b:v2") == models / "a%2Fb%3Av2"
    assert canonical_name("a/b:latest") == "a/b"


def test_the_last_finished_run_is_found_or_the_one_that_is_named(finished):
    newer = finished("m", "aaaa", created="2026-01-02T00:00:00+00:00")
    older = finished("m", "bbbb", created="2026-01-01T00:00:00+00:00")
    assert Run.find("m").folder == newer
    assert Run.find("m", "bb").folder == older
    with pytest.raises(UserError, match=r"no finished run cc. Finished runs: aaaa, bbbb"):
        Run.find("m", "cc")
    with pytest.raises(UserError, match=r"nobody has no finished run here. Known: m"):
        Run.find("nobody")


def test_going_back_to_a_run_makes_it_the_last_whatever_the_clock_said(finished):
    a = finished("m", "aaaa", created="2026-01-01T00:00:00+00:00")
    b = finished("m", "bbbb", created="2026-01-02T00:00:00+00:00")
    for folder in (a, b, a):
        Run(folder).name_latest()
        assert Run.find("m").folder == folder
    # One that is named is found all the same, and one that is gone is not missed.
    assert Run.find("m", "bb").folder == b
    shutil.rmtree(a)
    assert Run.find("m").folder == b


@pytest.mark.parametrize("damaged", [b"", b"\xff", b"../../elsewhere", b"cccc"])
def test_a_damaged_name_of_the_last_run_is_passed_over(finished, models, damaged):
    finished("m", "aaaa", created="2026-01-01T00:00:00+00:00")
    newer = finished("m", "bbbb", created="2026-01-02T00:00:00+00:00")
    (models / "m" / "latest").write_bytes(damaged)
    assert Run.find("m").folder == newer


def test_no_two_models_share_a_folder(models):
    names = ["ab", "a--b", "a/b", "a:b", "a-b", "a/b:v2", "a/b--v2", "a%2Fb", "a%252Fb", "a.b_c"]
    folders = [model_folder(name) for name in names]
    assert len(set(folders)) == len(names)
    assert all(folder.parent == models for folder in folders)
    assert [model_name(folder) for folder in folders] == names
    # A plain name is its folder's.
    assert model_folder("affineur-smoke.v1_a") == models / "affineur-smoke.v1_a"


def test_known_models_are_listed_by_their_names(finished):
    finished(model_folder("a/b:v2").name, "aaaa")
    with pytest.raises(UserError, match=r"Known: a/b:v2\."):
        Run.find("nobody")


def test_a_run_is_named_by_one_word(finished, models, tmp_path):
    older = finished("m", "aaaa", created="2026-01-01T00:00:00+00:00")
    newer = finished("m", "bbbb", created="2026-01-02T00:00:00+00:00")
    elsewhere = tmp_path / "other clone" / "é"
    shutil.copytree(older, elsewhere)
    for name, folder in {
        "m": newer,
        "m:latest": newer,
        "m@aa": older,
        str(older): older,
        str(older / "manifest.json"): older,
        str(models / "m"): newer,
        str(elsewhere): elsewhere,
        str(elsewhere / "manifest.json"): elsewhere,
    }.items():
        assert Run.named(name).folder == folder, name
    with pytest.raises(UserError, match=r"RUN: nobody has no finished run here. Known: m"):
        Run.named("nobody")
    with pytest.raises(UserError, match=r"RUN: .*m has no finished run cc"):
        Run.named("m@cc")


def test_its_files_are_compared_with_what_the_run_made(finished):
    folder = finished("m", "aaaa")
    files = Run(folder).files
    assert list(files.blobs) == [GGUF]
    assert len(files.digest) == 64
    (folder / GGUF).write_bytes(b"other weights")
    with pytest.raises(UserError, match="is not the file that the run created"):
        _ = Run(folder).files
    shutil.rmtree(folder / "gguf")
    with pytest.raises(UserError, match="does not exist"):
        _ = Run(folder).files
