"""A run is rebuilt from its manifest alone, from inputs that are its own, and each file compared.

The engine writes at once what stages would; `test_a_second_clone_reproduces_the_smoke_run` has the
real one, and tests/container the images.
"""

import json
import re
import shutil

import pytest

from contract import paths
from contract.digest import digest_of_file, files_below
from contract.errors import ExitCode, UserError
from contract.manifest import ImageRecord, Manifest
from contract.precision_policy import Card
from launcher.cli import reproduction_report
from launcher.configuration import resolve
from launcher.display import Display, terminal
from launcher.pipeline import finished_run, inputs, training
from launcher.pipeline.finished_run import Run
from launcher.pipeline.stages import Input
from launcher.reproduce import reproduction
from launcher.reproduce.conditions import conditions, in_words
from launcher.reproduce.record import Condition, Reproduction
from launcher.reproduce.recorded_images import RecordedImages
from launcher.reproduce.recorded_inputs import GivenPlaces
from launcher.reproduce.reproduction import ReproductionRequest
from tests.conftest import bare_clone, invoke
from tests.instant_run import InstantEngine

QUIET = Display(quiet=True)
STAGES = ["preflight", "prepare", "rendering", "train", "merge"]
STAGES += ["convert", "modelfile", "reference"]
ADAPTER = "adapter/adapter_model.safetensors"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of runs, and one for what is rebuilt; no stage here reads llama.cpp's parts."""
    monkeypatch.setattr(finished_run, "MODELS", tmp_path / "models")
    monkeypatch.setattr(reproduction, "REPRODUCED", tmp_path / "reproduced")
    parts = {name: Input(name, lambda: tmp_path) for name in ("llama_cpp", "tools")}
    monkeypatch.setattr(inputs, "llama_cpp_inputs", lambda display: dict(parts))
    return tmp_path


@pytest.fixture
def data(place):
    file = place / "données" / "rows.jsonl"
    file.parent.mkdir()
    rows = [{"instruction": f"Compte {n}.", "output": str(n)} for n in range(9)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def base(place):
    folder = place / "base"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def original(base, data):
    """A finished run of eight stages."""
    recipe = resolve(
        "smoke",
        settings=[f"model_to_fine_tune={base}", "evaluation_path=null", "held_out_fraction=0.1"],
        data=str(data),
    )
    return training.train(recipe, InstantEngine(), QUIET).run


def reproduce(original, engine=None, **request):
    engine = engine or InstantEngine()
    return reproduction.reproduce(original, ReproductionRequest(**request), engine, QUIET)


def refused(original, **request):
    """What is said where an input is refused; no stage has run, and nothing was made."""
    engine = InstantEngine()
    with pytest.raises(UserError) as caught:
        reproduce(original, engine, **request)
    assert engine.ran == []
    assert not reproduction.reproduction_folder(original.manifest).exists()
    return caught.value.text()


def content(folder):
    return {path: (path.stat().st_mtime_ns, digest_of_file(path)) for path in files_below(folder)}


def states(found):
    return {file.file: file.state for file in found.files}


def differing(found):
    return {file.file: file for file in found.files if not file.as_promised}


def edited(run, **changes):
    """The run with another manifest."""
    run.write_manifest(run.manifest.model_copy(update=changes))
    return Run(run.folder)


def test_every_stage_runs_anew_and_the_run_itself_is_left_as_it_is(original, place):
    before = content(original.folder)
    engine = InstantEngine()
    found = reproduce(original, engine)
    assert engine.ran == STAGES
    assert content(original.folder) == before
    assert found.identical
    # What the training took of time is in one file, and no other.
    assert set(states(found).values()) == {"identical", "times differ"}
    assert [name for name, state in states(found).items() if state != "identical"] == [
        "metrics.jsonl"
    ]
    folder = place / "reproduced" / f"affineur-smoke-{original.name}"
    assert Reproduction.read(folder / "reproduction.json") == found
    # It is no run of its model's, and does not become the latest.
    assert Run.find("affineur-smoke").folder == original.folder
    rebuilt = Manifest.read(folder / "manifest.json")
    assert rebuilt.recipe == original.recipe
    assert {r.stage: r.key for r in rebuilt.stages} == original.keys


def test_it_rebuilds_from_the_manifest_alone(original, tmp_path):
    elsewhere = tmp_path / "unzipped"
    elsewhere.mkdir()
    shutil.copy(original.folder / paths.MANIFEST, elsewhere)
    shutil.rmtree(original.folder)
    named = Run.named(str(elsewhere / "manifest.json"))
    assert reproduce(named).identical
    # Of what differs, no more is known than that it does.
    found = reproduce(named, InstantEngine(weights=2.0), into=tmp_path / "other")
    assert differing(found)[ADAPTER].where == ["the run's own file is not at hand"]
    assert differing(found)["metrics.jsonl"].where == ["step 1: loss 0.5, rebuilt 1.0"]


def test_a_changed_configuration_counts_for_nothing(original, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("launcher.configuration.PROFILES", tmp_path / "none")
    assert reproduce(original).identical


def test_what_differs_is_named_by_its_tensor_with_how_much(original):
    found = reproduce(original, InstantEngine(weights=1.5))
    apart = differing(found)
    assert set(apart) == {
        *(ADAPTER, "merged/model.safetensors", "gguf/model-f16.gguf", "metrics.jsonl")
    }
    (tensor,) = apart[ADAPTER].tensors
    assert (tensor.name, tensor.largest) == ("b", 0.5)
    assert apart[ADAPTER].where == ["1 of 2 tensors, at most by 0.5; b: largest difference 0.5"]
    assert apart["gguf/model-f16.gguf"].tensors[0].name == "token_embd.weight"
    assert apart["metrics.jsonl"].where == ["line 1: loss: 0.5, rebuilt 0.75"]
    assert not found.identical


def test_a_changed_line_of_json_a_missing_file_and_one_too_many_are_told_apart(original, tmp_path):
    found = reproduce(original, InstantEngine(answer="Si.", also="README.md"))
    apart = differing(found)
    assert apart["reference.json"].where == ['questions[1].answer: "Oui.", rebuilt "Si."']
    assert apart["adapter/README.md"].state == "unexpected"
    assert len(apart) == 2
    richer = training.train(
        original.recipe.model_copy(update={"output_model_name": "richer"}),
        InstantEngine(also="README.md"),
        QUIET,
    ).run
    found = reproduce(richer, into=tmp_path / "poorer")
    assert {name: file.state for name, file in differing(found).items()} == {
        "adapter/README.md": "missing"
    }


def test_a_file_of_the_run_that_was_changed_since_is_compared_with_nothing(original):
    (original.folder / ADAPTER).write_bytes(b"edited")
    assert reproduce(original).identical
    found = reproduce(original, InstantEngine(weights=2.0), into=original.folder.parent / "b")
    assert differing(found)[ADAPTER].where == ["the run's own file was changed since"]


def test_one_flipped_bit_of_the_data_is_refused_and_its_row_named(original, data):
    content = bytearray(data.read_bytes())
    at = content.index(b"Compte 6.")
    content[at] ^= 1
    data.write_bytes(content)
    said = refused(original)
    assert "rows.jsonl: is not the file that the run read: rows.jsonl:7 differs (sha256 " in said
    assert "Name the file that the run read: --data FILE." in said


def test_data_that_moved_is_taken_from_where_it_is(original, data, tmp_path):
    moved = tmp_path / "ailleurs" / "autre nom.bak"
    moved.parent.mkdir()
    data.rename(moved)
    said = refused(original)
    assert f"dataset_path: {data} does not exist. Name the file that the run read: --data" in said
    given = GivenPlaces(data=str(moved))
    found = reproduce(original, given=given)
    # Rows are named after their file, and `prepared/` holds their names.
    assert states(found)["prepared/train.jsonl"] == "identical"
    assert found.identical
    moved.write_text(moved.read_text() + "{}\n")
    again = {"given": given, "into": tmp_path / "again"}
    with pytest.raises(UserError, match=r"autre nom.bak:10 was not in it"):
        reproduce(original, **again)
    with pytest.raises(UserError, match=r"--data: nowhere.jsonl does not exist"):
        reproduce(original, given=GivenPlaces(data="nowhere.jsonl"), into=tmp_path / "again")


def test_two_files_that_are_not_the_runs_are_both_named(base, data, place):
    held_out = place / "held out.jsonl"
    held_out.write_text('{"instruction": "a", "output": "b"}\n' * 3)
    settings = [f"model_to_fine_tune={base}", f"evaluation_path={held_out}"]
    recipe = resolve("smoke", settings=settings, data=str(data))
    run = training.train(recipe, InstantEngine(), QUIET).run
    data.unlink()
    held_out.write_text(held_out.read_text().replace("b", "c", 2))
    said = refused(run)
    assert "affineur: 2 problems" in said
    assert "dataset_path: " in said
    assert "held out.jsonl:1 differs" in said
    assert "--evaluation FILE" in said


def test_another_base_is_refused_by_its_files(original, base, tmp_path):
    (base / "tokenizer.json").write_text('{"other": 1}')
    said = refused(original)
    assert "base: is not the one that the run had, base (sha256 " in said
    assert "not the same: tokenizer.json" in said
    (base / "tokenizer.json").write_text("{}")
    moved = base.rename(tmp_path / "moved base")
    assert "--base PATH" in refused(original)
    assert reproduce(original, given=GivenPlaces(base=str(moved))).identical


def test_other_code_and_another_lock_are_refused_unless_they_are_asked_for(original, tmp_path):
    run = edited(
        original,
        code={**original.manifest.code, "train": "0" * 64, "merge": "0" * 64},
        locks={**original.manifest.locks, "rtx.lock": "0" * 64},
    )
    said = refused(run)
    assert "the code of train, merge; docker/locks/rtx.lock: not what made the run" in said
    assert "--with-this-code" in said
    found = reproduce(run, with_this_code=True)
    assert found.other_code == ["the code of train, merge", "docker/locks/rtx.lock"]
    assert found.identical
    found = reproduce(
        run, InstantEngine(weights=3.0), with_this_code=True, into=tmp_path / "differs"
    )
    (line,) = (
        line.plain for line in reproduction_report.conclusion(found) if "made the run" in line.plain
    )
    assert "the code of train, merge" in line


def test_what_decides_a_stage_besides_is_refused_by_name(original, monkeypatch, place):
    parts = {"llama_cpp": Input("llama_cpp", lambda: place), "tools": Input("x", lambda: place)}
    monkeypatch.setattr(inputs, "llama_cpp_inputs", lambda display: dict(parts))
    assert "rendering: not what made the run: llama.cpp's tools" in refused(original)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: (folder / "something").write_text(""), "is not empty. Delete it"),
        (lambda folder: (folder.rmdir(), folder.write_text("")), "is no folder"),
    ],
)
def test_a_folder_that_is_not_free_is_refused(original, tmp_path, make, said):
    folder = tmp_path / "taken"
    folder.mkdir()
    make(folder)
    assert said in refused(original, into=folder)


def test_the_runs_own_folder_is_refused(original):
    before = content(original.folder)
    for folder in (original.folder, original.folder / "below"):
        assert "is the run's own" in refused(original, into=folder)
    assert content(original.folder) == before


def test_one_that_was_stopped_goes_on_and_a_finished_one_is_not_written_over(original, tmp_path):
    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        reproduce(original, InstantEngine(stop_at="merge"), into=folder)
    engine = InstantEngine()
    assert reproduce(original, engine, into=folder).identical
    assert engine.ran == STAGES[STAGES.index("merge") :]
    with pytest.raises(UserError, match=r"is not empty"):
        reproduce(original, into=folder)
    # Nor does it go on with another run's.
    other = tmp_path / "others"
    with pytest.raises(KeyboardInterrupt):
        reproduce(original, InstantEngine(stop_at="merge"), into=other)
    recipe = original.recipe.model_copy(update={"seed": 7})
    another = training.train(recipe, InstantEngine(), QUIET).run
    with pytest.raises(UserError, match=r"is not empty"):
        reproduce(another, into=other)


def test_what_is_not_promised_is_said_before_anything_runs(original, capsys):
    machine = original.manifest.machine
    run = edited(original, machine=machine.model_copy(update={"processor": "a VAX"}))
    engine = InstantEngine(stop_at="preflight")
    request = ReproductionRequest()
    with pytest.raises(KeyboardInterrupt):
        reproduction.reproduce(run, request, engine, Display())
    said = " ".join(capsys.readouterr().err.split())
    announced, _, ran = said.partition("preflight")
    assert ran
    assert "promised: every file the same to the byte" in announced
    assert "another kind of processor, with another number of threads" in announced
    assert f"processor: {machine.processor}, and it was a VAX: nothing is promised" in announced
    # The recipe says how many, so they are the same everywhere.
    assert "threads: 2, as it was" in announced
    assert "engine: instant, as it was" in announced


def test_the_report_names_the_first_stage_that_differs_and_what_is_not_as_it_was(original):
    machine = original.manifest.machine.model_copy(update={"processor": "a VAX"})
    run = edited(original, machine=machine)
    found = reproduce(run, InstantEngine(weights=2.0))
    console = terminal(width=100)
    with console.capture() as captured:
        reproduction_report.show(found, console)
    shown = captured.get()
    assert re.search(r"^differs +adapter/adapter_model.safetensors +1 of 2 tensors", shown, re.M)
    assert re.search(r"^identical +prepared/train.jsonl +sha256 [0-9a-f]{16} *$", shown, re.M)
    assert "differs  4 of 11 files" in shown
    assert "the first stage that made another is train" in shown
    assert "not as it was: processor (a VAX; here " in shown


def test_the_images_of_the_run_are_taken_by_digest_where_they_are_there(original):
    there = ImageRecord(digest="sha256:" + "a" * 64, builder="BuildKit 1")
    built = ImageRecord(digest="sha256:" + "b" * 64, builder="BuildKit 2")
    records = [record.model_copy(update={"image": there}) for record in original.manifest.stages]
    manifest = original.manifest.model_copy(update={"stages": records})

    class Docker(InstantEngine):
        has: tuple = ()

        def image(self, lock, display, *, exporter=False):
            return built

        def has_image(self, digest):
            return digest in self.has

    engine = Docker(name="docker")
    pinned = RecordedImages.of(manifest, engine, use=True)
    assert pinned.image("rtx", QUIET) == built
    of_images = pinned.conditions(manifest, QUIET)
    assert [condition.same for condition in of_images] == [False, False]
    assert "BuildKit 2, and it was sha256:aaaa" in in_words(of_images[0])
    engine.has = (there.digest,)
    assert pinned.image("rtx", QUIET, exporter=True) == there
    assert all(condition.same for condition in pinned.conditions(manifest, QUIET))
    # The code that is asked for is not in them.
    assert RecordedImages.of(manifest, engine, use=False).image("rtx", QUIET) == built


def test_another_gpu_than_it_trained_on_is_said(original, monkeypatch):
    monkeypatch.setattr(
        "launcher.reproduce.conditions.training_card",
        lambda *_: Card((9, 0), "NVIDIA H100", None),
    )
    recipe = original.recipe.model_copy(update={"device": "cuda"})
    manifest = original.manifest.model_copy(update={"recipe": recipe})
    (gpu,) = (c for c in conditions(manifest, InstantEngine()) if c.name == "GPU")
    assert (gpu.there, gpu.here, gpu.same) == ("cpu", "NVIDIA H100", False)


def test_a_condition_is_the_same_or_it_is_not():
    assert Condition(name="threads", there="2", here="2").same
    assert not Condition(name="threads", there="2", here="4").same


def test_as_a_person_asks_for_it_with_one_bit_flipped(plain_project, tmp_path, original, data):
    """In a clone that has no environment: the row is named before one is made."""
    given = tmp_path / "given.jsonl"
    content = data.read_bytes()
    given.write_bytes(content.replace(b"Compte 3.", b"Compte 2."))
    words = ("reproduce", str(original.folder / "manifest.json"), "--data", str(given))
    done = invoke(plain_project, *words, "--into", str(tmp_path / "new"))
    assert done.returncode == ExitCode.USER_ERROR, done.stderr
    assert "given.jsonl:4 differs" in done.stderr
    assert "not promised: the same bytes on another kind of processor" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "new").exists()
    nowhere = invoke(plain_project, "reproduce", "nobody")
    assert nowhere.returncode == ExitCode.USER_ERROR
    assert "RUN: nobody has no finished run here" in nowhere.stderr
    folder = invoke(plain_project, *words, "--json", str(tmp_path))
    assert folder.returncode == ExitCode.USER_ERROR
    assert "--json: " in folder.stderr


def test_a_second_clone_reproduces_the_smoke_run(smoke_run, tmp_path):
    clone = bare_clone(smoke_run.project, tmp_path / "second clone é")
    manifest = str(smoke_run.folder / "manifest.json")
    before = content(smoke_run.folder)
    words = ("reproduce", manifest, "--engine", "local", "--json", str(tmp_path / "found.json"))
    done = invoke(clone, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    found = Reproduction.read(tmp_path / "found.json")
    made = {name for record in smoke_run.manifest.stages for name in record.outputs}
    assert {file.file for file in found.files} == made
    assert {name for name, state in states(found).items() if state != "identical"} == {
        "metrics.jsonl"
    }
    assert f"all {len(made)} files" in done.stdout
    for stage in smoke_run.manifest.stages:
        assert f"✓ {stage.stage}" in done.stderr
    assert "up to date" not in done.stderr.replace("base       up to date", "")
    assert content(smoke_run.folder) == before
    # One bit of the data.
    data = clone / "data" / "training" / "smoke.jsonl"
    flipped = bytearray(data.read_bytes())
    begin = sum(map(len, bytes(flipped).splitlines(keepends=True)[:16]))
    flipped[begin + 20] ^= 1
    data.write_bytes(flipped)
    refused = invoke(clone, "reproduce", manifest, "--into", str(tmp_path / "never"))
    assert refused.returncode == ExitCode.USER_ERROR
    assert "data/training/smoke.jsonl: is not the file that the run read" in refused.stderr
    assert "smoke.jsonl:17 differs" in refused.stderr
    assert not (tmp_path / "never").exists()
