"""What is refused before anything is trained, by the commands that people type, and how."""

import json
import shutil

import pytest

from tests.conftest import invoke


@pytest.mark.slow
def test_the_data_report_shows_what_will_be_cut(plain_project, untrained, tmp_path):
    # Names that look like markup are shown as they are.
    data = tmp_path / "[" / "v2]" / "tickets [bold].jsonl"
    data.parent.mkdir(parents=True)
    rows = [{"prompt": f"q{n}", "completion": "mot " * (4 + 30 * n), "id": n} for n in range(12)]
    data.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    done = invoke(
        plain_project,
        *("data", "--data", str(data), "--profile", "smoke", "--set", "max_length=128"),
        *("--set", f"model_to_fine_tune={untrained}"),
    )
    assert done.returncode == 0, done.stderr
    assert "13 rows" in done.stdout
    assert "median" in done.stdout
    assert "truncated at 128" in done.stdout
    assert "1 rows occur twice" in done.stdout
    assert "tickets [bold].jsonl:1 and tickets [bold].jsonl:13" in done.stdout
    assert "[/v2]/tickets [bold].jsonl\n" in done.stdout
    assert "not read: id (13 rows)" in done.stdout
    assert "not read: id (13 rows)" in done.stderr
    assert "█" in done.stdout


def in_a_stage(words, said):
    """Seen by a stage, which takes seconds to start."""
    return pytest.param(["--profile", "smoke", *words], said, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--profile", "smokey"], "Did you mean smoke?"),
        (["--profile", "smoke", "--data", "absent.jsonl"], "absent.jsonl does not exist"),
        (["--profile", "smoke", "--data", "data/training"], "data/training is a folder"),
        in_a_stage(["--data", "README.md"], ".md is not a supported dataset format"),
        (["--profile", "smoke", "--config", "absent.json"], "there is no file"),
        (["--profile", "smoke", "--set", "epochs=many"], "--set epochs: epochs:"),
        (["--profile", "smoke", "--set", "lora.aplha=3"], "unknown key"),
        (["--profile", "smoke", "--set", "quantizations=[q4_k_x]"], "not a known type"),
        in_a_stage(["--set", "max_length=16"], "no row has room for an answer"),
        (["--profile", "smoke", "--engine", "podman"], "no engine 'podman'"),
        (
            ["--profile", "smoke", "--set", "model_to_fine_tune=llama3:8b"],
            "No Ollama server responds at",
        ),
        in_a_stage(["--set", "columns.instruction=question"], "has no column"),
    ],
)
def test_bad_input_gets_a_sentence(plain_project, untrained, words, said):
    # A later --set wins: those that are seen by a stage have a base to be seen with.
    base = ("--set", f"model_to_fine_tune={untrained}")
    done = invoke(plain_project, "train", *words[:2], *base, *words[2:])
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().count("affineur:") == 1


def test_a_card_that_is_not_there_is_said_before_anything_is_fetched(plain_project, tmp_path):
    # A machine with little on it, and no driver's tool.
    for name in ("sh", "dirname", "cmp"):
        (tmp_path / name).symlink_to(shutil.which(name))
    done = invoke(plain_project, "train", "--profile", "rtx", PATH=str(tmp_path))
    assert done.returncode == 2
    assert "no NVIDIA GPU was found" in done.stderr
    assert "--profile cpu" in done.stderr


def test_what_was_made_of_a_configuration_is_said_before_anything_else(plain_project, tmp_path):
    config = tmp_path / "c.json"
    given = {"base_model": "a/b", "output_dir": "out/c", "num_epochs": 1, "lr": 1e-4, "lora_r": 8}
    given |= {"batch_size": 1, "dataset": "absent.jsonl", "save_steps": 10}
    config.write_text(json.dumps(given))
    done = invoke(plain_project, "train", "--config", str(config), "--set", "device=cpu")
    assert done.returncode == 2
    profile, translated, unused, error, *_ = done.stderr.splitlines()
    assert "profile cpu: --set device says device: cpu" in profile
    assert "num_epochs -> epochs: 1" in translated
    assert "not used here: save_steps" in unused
    assert "absent.jsonl does not exist" in error


def test_an_engine_that_does_not_answer_is_said(plain_project):
    done = invoke(
        plain_project,
        *("train", "--profile", "smoke", "--engine", "docker"),
        DOCKER_HOST="unix:///nowhere/docker.sock",
    )
    assert done.returncode == 2, done.stderr
    assert "no engine responds at unix:///nowhere/docker.sock" in done.stderr
    assert "--engine local" in done.stderr
    assert "Traceback" not in done.stderr
