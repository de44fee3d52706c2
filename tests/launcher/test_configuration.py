"""A recipe is resolved from profile, file and --set, and every mistake is named at once."""

import json
from pathlib import Path

import pytest

from contract.errors import UserError
from launcher.configuration import profiles, resolve
from launcher.project import CONFIGS, PROFILES
from launcher.runtime import gpus
from launcher.runtime.gpu_generations import GENERATIONS

GUIDE = {
    "model_to_fine_tune": "Qwen/Qwen2.5-1.5B-Instruct",
    "dataset_path": "data/training/sfd_analysis_dataset.jsonl",
    "output_model_name": "my-analyzer",
    "epochs": 3,
    "learning_rate": 2e-4,
    "batch_size": 4,
    "lora_rank": 16,
}


def problems_of(*arguments, **keywords):
    with pytest.raises(UserError) as caught:
        resolve(*arguments, **keywords)
    return [str(problem) for problem in caught.value.problems]


def written(folder: Path, name: str, content) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("profile", profiles())
def test_every_profile_makes_a_recipe(profile):
    assert resolve(profile).profile == profile


def test_there_is_a_profile_for_each_gpu_generation_and_three_for_none():
    assert profiles() == sorted([*GENERATIONS, "cpu", "demo", "smoke"])


@pytest.mark.parametrize("profile", profiles())
def test_a_profile_opens_with_its_launch_command(profile):
    first = (PROFILES / f"{profile}.yaml").read_text().splitlines()[0]
    assert first == f"# ./invoke train --profile {profile}"


def test_the_shipped_configuration_has_the_guides_seven_keys():
    shipped = json.loads((CONFIGS / "training_config.json").read_text())
    assert set(shipped) == set(GUIDE)


def test_the_guides_configuration_runs_unchanged(tmp_path):
    recipe = resolve("cpu", config=written(tmp_path, "training_config.json", GUIDE))
    assert {key: getattr(recipe, key) for key in GUIDE} == GUIDE


def test_yaml_says_the_same_as_json(tmp_path):
    text = "".join(f"{key}: {value}\n" for key, value in GUIDE.items())
    from_yaml = resolve("cpu", config=written(tmp_path, "c.yaml", text))
    assert from_yaml == resolve("cpu", config=written(tmp_path, "c.json", GUIDE))


def test_a_number_written_2e_4_is_a_number(tmp_path):
    recipe = resolve("smoke", settings=["learning_rate=2e-4"])
    assert recipe.learning_rate == 0.0002


def test_later_layers_win_and_nested_keys_are_laid_over(tmp_path):
    path = written(tmp_path, "c.json", {"epochs": 2, "columns": {"instruction": "q"}})
    recipe = resolve("smoke", config=path, settings=["epochs=5", "columns.output=a"])
    assert recipe.epochs == 5
    assert recipe.columns == {"instruction": "q", "output": "a"}


def test_another_dataset_drops_what_was_said_of_the_old_one():
    recipe = resolve("smoke", data="other.jsonl")
    assert recipe.dataset_path == "other.jsonl"
    assert recipe.evaluation_path is None


def test_columns_given_with_the_new_dataset_stay():
    recipe = resolve("smoke", data="other.csv", settings=["columns.instruction=question"])
    assert recipe.columns == {"instruction": "question"}


def test_keys_that_begin_with_a_hash_are_comments(tmp_path):
    recipe = resolve("smoke", config=written(tmp_path, "c.json", {"# a remark": None, "epochs": 2}))
    assert recipe.epochs == 2


def test_an_unknown_key_suggests_the_nearest_one(tmp_path):
    path = written(tmp_path, "c.json", {"learnig_rate": 1e-4})
    (problem,) = problems_of("smoke", config=path)
    assert "c.json: learnig_rate: unknown key. Did you mean learning_rate?" in problem


def test_a_setting_is_in_our_keys_and_another_trainers_key_is_recognised():
    (problem,) = problems_of("smoke", settings=["lora_r=8"])
    assert "lora_r: unknown key. Did you mean lora_rank?" in problem
    (problem,) = problems_of("smoke", settings=["save_steps=8"])
    assert "is not used here" in problem


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("metric=chrff", "--set metric: metric: there is no metric 'chrff'. Did you mean chrf?"),
        ("lock=rxt", "--set lock: lock: there is no lock 'rxt'. Did you mean rtx? Known: "),
        ("columns.anwer=a", "--set columns.anwer: columns: there is no target column 'anwer'"),
        ("metric=3", "metric: input should be a valid string (got 3)"),
    ],
)
def test_a_name_that_no_table_has_is_refused_with_the_nearest_one(setting, said):
    (problem,) = problems_of("smoke", settings=[setting])
    assert said in problem


def test_a_name_that_no_table_has_stands_among_the_other_problems():
    problems = problems_of("smoke", settings=["metric=chrff", "epochs=0", "lern=1"])
    assert len(problems) == 3


def test_all_problems_are_named_at_once_each_with_its_origin(tmp_path):
    path = written(tmp_path, "c.json", {"epochs": -1, "aplha": 3})
    problems = problems_of("smoke", config=path, settings=["lora_rank=zero"])
    text = "\n".join(problems)
    assert len(problems) == 3
    assert "c.json: aplha: unknown key" in text
    assert "c.json: epochs: input should be greater than 0 (got -1)" in text
    assert "--set lora_rank: lora_rank: input should be a valid integer" in text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("c.json", '{"epochs": 1,}', "is not valid JSON"),
        ("c.json", '{"epochs": 1, "epochs": 2}', "has the key 'epochs' twice"),
        ("c.json", '{"system_prompt": "\\ud83d"}', "half a character"),
        ("c.json", "[" * 10**5, "is nested more than 100 levels deep"),
        ("c.json", '{"epochs": ' + "9" * 5000 + "}", "is not valid JSON: Exceeds"),
        ("c.json", "[1, 2]", "is not a mapping of keys to values"),
        ("c.yaml", "epochs: [1\nx: 2", "c.yaml:2: is not valid YAML"),
        ("c.toml", "epochs = 1", ".toml is not a configuration format"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, name, content, said):
    (problem,) = problems_of("smoke", config=written(tmp_path, name, content))
    assert said in problem


def test_a_missing_file_is_named(tmp_path):
    (problem,) = problems_of("smoke", config=tmp_path / "absent.json")
    assert "there is no file" in problem


@pytest.mark.parametrize(
    ("shown_by_driver", "taken", "why"),
    [
        (["NVIDIA GeForce RTX 4060, 580.65.06, 8188, 8.9"], "rtx", "NVIDIA GeForce RTX 4060"),
        (["Tesla T4, 580.65.06, 15360, 7.5"], "t4", "compute capability 7.5"),
        ([], "cpu", "no NVIDIA GPU was found"),
    ],
)
def test_the_guides_configuration_runs_without_a_profile(
    tmp_path, monkeypatch, shown_by_driver, taken, why
):
    monkeypatch.setattr(
        gpus, "detect_gpus", lambda *_: [gpus._gpu(line) for line in shown_by_driver]
    )
    notes: list[str] = []
    path = written(tmp_path, "guide.json", GUIDE)
    recipe = resolve("auto", config=path, note=notes.append)
    assert (recipe.profile, recipe) == (taken, resolve(taken, config=path))
    assert len(notes) == 1
    assert notes[0].startswith(f"profile {taken}: ")
    assert why in notes[0]


def test_without_a_profile_the_device_that_is_named_decides(tmp_path, monkeypatch):
    card = "NVIDIA GeForce RTX 4060, 580.65.06, 8188, 8.9"
    monkeypatch.setattr(gpus, "detect_gpus", lambda *_: [gpus._gpu(card)])
    notes: list[str] = []
    path = written(tmp_path, "c.json", {**GUIDE, "device": "cpu"})
    assert resolve("auto", config=path, note=notes.append).profile == "cpu"
    assert notes[0].endswith("c.json says device: cpu")
    assert resolve("auto", config=path, settings=["device=cuda"]).profile == "rtx"


def test_a_file_and_a_profile_for_different_devices_contradict_each_other(tmp_path):
    path = written(tmp_path, "c.json", {**GUIDE, "device": "cpu"})
    (problem, *_) = problems_of("rtx", config=path)
    assert "c.json: device: cpu: profile rtx is for device cuda. Use --profile cpu" in problem


def test_an_unknown_profile_suggests_the_nearest_one():
    (problem,) = problems_of("rtxx")
    assert "Did you mean rtx?" in problem


@pytest.mark.parametrize("text", ["epochs", "=3"])
def test_a_setting_without_key_or_value_is_refused(text):
    (problem,) = problems_of("smoke", settings=[text])
    assert "is not key=value" in problem
