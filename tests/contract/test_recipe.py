"""The recipe refuses what would decide memory or results by accident."""

import pytest
from pydantic import ValidationError

from contract.recipe import PrepareSection, Recipe, TrainSection
from launcher.configuration import resolve


@pytest.fixture
def recipe():
    return resolve("smoke")


def test_a_dump_read_again_is_the_same_recipe(recipe, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(recipe.model_dump_json())
    assert Recipe.read(path) == recipe


def test_a_section_holds_its_own_keys_alone(recipe):
    section = recipe.section(PrepareSection)
    assert section.max_length == recipe.max_length
    assert not hasattr(section, "learning_rate")


def test_no_key_that_decides_results_has_a_default():
    with_default = [name for name, field in Recipe.model_fields.items() if not field.is_required()]
    assert with_default == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("precision", "fp16", "use fp32 or bf16 on a CPU"),
        ("optim", "paged_adamw_8bit", "needs device cuda"),
        ("lora_rank", 0, "greater than or equal to 1"),
        ("learning_rate", float("nan"), "finite"),
        ("output_model_name", "modèle été", "letters without accents"),
        ("output_model_name", "-x", "letters without accents"),
        ("eval_steps", 0, "greater than 0"),
        ("eval_steps", 2.5, "neither a whole number of steps nor a share of the run below 1"),
        ("early_stopping_patience", -1, "greater than or equal to 0"),
        ("serving", "onnx", "'merged' or 'adapter'"),
        ("quantizations", ["f17"], "is not a known type"),
        ("quantizations", [], "at least 1"),
        ("typo", 1, "Extra inputs"),
    ],
)
def test_a_bad_value_is_refused(recipe, key, value, said):
    with pytest.raises(ValidationError) as caught:
        Recipe(**{**recipe.model_dump(), key: value})
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["a", "qwen2.5-sfd", "me/model:v1.2", "Modele_1"])
def test_names_that_ollama_takes_are_taken(recipe, name):
    changed = Recipe(**{**recipe.model_dump(), "output_model_name": name})
    assert changed.output_model_name == name


def test_a_frozen_recipe_cannot_be_changed(recipe):
    section = recipe.section(TrainSection)
    with pytest.raises(ValidationError):
        section.epochs = 9


def test_stopping_early_needs_evaluations_and_held_out_rows(recipe):
    patient = {**recipe.model_dump(), "early_stopping_patience": 3}
    assert Recipe(**patient).early_stopping_patience == 3
    with pytest.raises(ValidationError, match="with eval_steps null there are none"):
        Recipe(**{**patient, "eval_steps": None})
    nothing = {"evaluation_path": None, "held_out_fraction": 0}
    with pytest.raises(ValidationError, match="early_stopping_patience needs held-out rows"):
        Recipe(**{**patient, **nothing})
    # Without them, nothing is evaluated and nothing is wrong; null is never, as well.
    assert Recipe(**{**patient, **nothing, "early_stopping_patience": None}).eval_steps
