"""The main job, whole and for real: what the README promises, in fresh clones.

Nothing here is stood in for: ./invoke makes its environments, makes the smoke base, trains,
merges, converts and reads back.
"""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contract.digest import digest_of_file
from contract.results.train import TrainResult
from launcher.configuration import resolve
from launcher.pipeline.stages import training_stages
from tests.conftest import bare_clone, clone_with_run, invoke, run_smoke, start_training

SAME_TO_THE_BYTE = [
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "gguf/model-f16.gguf",
    "gguf/model-q8_0.gguf",
    "merged/model.safetensors",
    "Modelfile",
]


SMOKE_STAGES = training_stages(resolve("smoke"))


def stage_lines(text):
    names = {stage.name for stage in SMOKE_STAGES}
    lines = [line.split() for line in text.splitlines() if line.startswith("✓")]
    return {words[1]: " ".join(words[2:]) for words in lines if words[1] in names}


def test_fine_tuning_visibly_works(smoke_run):
    scores = smoke_run.manifest.result(TrainResult).held_out
    assert scores.loss.tuned < scores.loss.base / 2
    assert scores.exact_match.base < 0.05
    assert scores.exact_match.tuned > 0.70
    assert scores.answered_rows >= 50


def test_the_summary_says_what_was_made_and_what_is_next(smoke_run):
    shown = smoke_run.shown
    for said in (
        "adapter/adapter_model.safetensors",
        "gguf/model-f16.gguf",
        "held-out loss",
        "exact match",
        "No Ollama server responds at http://127.0.0.1:9",
        "ollama create affineur-smoke -f ",
    ):
        assert said in shown
    for word in ("expected", "base", "tuned"):
        assert sum(line.split()[:1] == [word] for line in shown.splitlines()) == 3


def test_the_manifest_holds_what_lies_in_the_folder(smoke_run):
    manifest = smoke_run.manifest
    assert [record.stage for record in manifest.stages] == [stage.name for stage in SMOKE_STAGES]
    interpreter = smoke_run.project / ".venv" / "bin" / "python"
    said = subprocess.check_output([str(interpreter), "--version"], text=True)
    for record in manifest.stages:
        assert f"Python {record.python}\n" == said
        # What preflight finds is in its record alone.
        assert record.outputs or record.stage == "preflight"
        for name, digest in record.outputs.items():
            assert digest_of_file(smoke_run.folder / name) == digest
    data = smoke_run.project / "data"
    assert manifest.data == {
        "data": digest_of_file(data / "training" / "smoke.jsonl"),
        "evaluation": digest_of_file(data / "evaluation" / "smoke.jsonl"),
    }
    assert manifest.versions["torch"] == "2.13.0"
    assert manifest.recipe.seed == 42
    assert smoke_run.folder.name == manifest.key[:12]


def test_no_path_of_the_machine_stands_in_the_manifest(smoke_run):
    assert str(smoke_run.made_in) not in (smoke_run.folder / "manifest.json").read_text()


def test_a_second_run_has_nothing_to_do(smoke_run):
    before = (smoke_run.folder / "manifest.json").read_bytes()
    again = invoke(smoke_run.project, "train", "--profile", "smoke")
    assert again.returncode == 0
    assert stage_lines(again.stderr) == {stage.name: "up to date" for stage in SMOKE_STAGES}
    assert (smoke_run.folder / "manifest.json").read_bytes() == before


def test_the_plan_says_what_would_run_and_runs_nothing(smoke_run):
    def planned(*words):
        shown = invoke(smoke_run.project, "plan", "--profile", "smoke", *words).stdout
        return dict(line.split(maxsplit=1) for line in shown.splitlines() if line)

    same = planned()
    assert same["modelfile"] == "up to date"
    assert same["compute"] == "fp32: nothing is rounded"
    assert same["attention"].startswith("sdpa: ")
    assert "training" not in same
    assert planned("--set", "num_ctx=512")["convert"] == "up to date"
    assert planned("--set", "num_ctx=512")["modelfile"] == "to run: num_ctx 1024 -> 512"
    shorter = planned("--set", "epochs=1")
    assert shorter["prepare"] == "to run: in a new run"
    assert shorter["train"] == "to run: epochs 3.0 -> 1.0"
    assert shorter["merge"] == "to run: after train"
    assert shorter["training"].startswith("90 steps of about 371 tokens, 33,369 tokens: about ")
    assert not (smoke_run.folder.parent / "0").exists()
    assert len(list(smoke_run.folder.parent.glob("*/"))) == 1


def test_only_what_a_change_reaches_runs_again(smoke_run, tmp_path):
    project = clone_with_run(smoke_run.project, tmp_path / "clone")
    done = invoke(project, "train", "--profile", "smoke", "--set", "quantizations=[f16]")
    assert done.returncode == 0, done.stderr
    lines = stage_lines(done.stderr)
    kept = {name for name, said in lines.items() if said == "up to date"}
    assert kept == {"prepare", "train", "merge"}
    folder = project / "data" / "models" / "affineur-smoke" / smoke_run.folder.name
    assert not (folder / "gguf" / "model-q8_0.gguf").exists()
    assert digest_of_file(folder / "gguf" / "model-f16.gguf") == digest_of_file(
        smoke_run.folder / "gguf" / "model-f16.gguf"
    )


def children_of(folder):
    """Processes whose command names this folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_text(errors="replace")
        except OSError:
            continue
        if str(folder) in command and "trainer.train" in command:
            found.append(file.parent.name)
    return found


@pytest.fixture(scope="module")
def small_run(smoke_run, tmp_path_factory):
    """A run of seconds on two columns of a CSV, and the words that it was started with."""
    data = tmp_path_factory.mktemp("csv") / "mes données.csv"
    rows = [f"Combien font {n} et {n + 1} ?;{2 * n + 1}\n" for n in range(40)]
    data.write_text("question;réponse\n" + "".join(rows), encoding="utf-8")
    settings = ("columns.instruction=question", "columns.output=réponse", "max_rows=30")
    # As many steps as it takes to be cut off among them.
    settings += ("epochs=12", "logging_steps=1", "held_out_answers=2", "output_model_name=calcul")
    words = ("--data", str(data), *(word for value in settings for word in ("--set", value)))
    return run_smoke(smoke_run.project, *words), words


def test_any_two_columns_of_a_csv_train(small_run):
    run, _ = small_run
    report = json.loads((run.folder / "prepared" / "report.json").read_text())
    assert report["train"] + report["held_out"] == 30


def test_a_run_that_one_goes_back_to_is_the_last(small_run):
    first, words = small_run
    latest = first.folder.parent / "latest"
    other = run_smoke(first.project, *words, "--set", "seed=7")
    assert other.folder != first.folder
    assert latest.read_text() == f"{other.folder.name}\n"
    again = run_smoke(first.project, *words)
    assert set(stage_lines(again.said).values()) == {"up to date"}
    assert latest.read_text() == f"{first.folder.name}\n"
    # Of what stages write to while they run, nothing stays.
    assert not list(first.folder.parent.rglob(".work"))


def test_a_run_cut_off_and_started_again_gives_the_same_bytes(small_run, tmp_path):
    whole, words = small_run
    project = bare_clone(whole.project, tmp_path / "second clone")
    process, folder = start_training(project, *words)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=150)[1]
    assert process.returncode == 130, said
    assert "run the same command to resume" in said
    assert "Traceback" not in said
    assert children_of(folder) == []
    assert not (folder / "manifest.json").exists()

    # Once more, and this time without a word to it: the training must not outlive its launcher.
    process, _ = start_training(project, *words)
    assert children_of(folder) != []
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while children_of(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert children_of(folder) == []
    assert not (folder / "manifest.json").exists()

    second = run_smoke(project, *words)
    assert stage_lines(second.said)["prepare"] == "up to date"
    assert second.folder.name == whole.folder.name
    digests = {
        name: digest_of_file(second.folder / name) == digest_of_file(whole.folder / name)
        for name in SAME_TO_THE_BYTE
    }
    assert digests == dict.fromkeys(SAME_TO_THE_BYTE, True)


@pytest.mark.parametrize("way", ["script", "module"])
def test_somebodys_own_invoke_is_handed_over(smoke_run, tmp_path, way):
    # An invoke of another environment: this test's own, in both ways that people start it.
    script = tmp_path / "invoke"
    script.write_text(
        f"#!{sys.executable}\n"
        "import sys\nfrom invoke.main import program\nsys.exit(program.run())\n"
    )
    script.chmod(0o755)
    start = [str(script)] if way == "script" else [sys.executable, "-m", "invoke"]
    done = subprocess.run(
        [*start, "plan", "--profile", "smoke"],
        cwd=smoke_run.project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^modelfile +up to date$", done.stdout, re.M)


def test_two_runs_in_one_folder_do_not_mix(smoke_run):
    import fcntl

    with (smoke_run.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = invoke(smoke_run.project, "train", "--profile", "smoke")
    assert done.returncode == 2
    assert "is in use by another run" in done.stderr
