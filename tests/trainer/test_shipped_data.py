"""The datasets that are shipped are what they are said to be."""

import json
import re

import pytest

from contract.row_forms import conversation_of
from launcher.project import ROOT
from trainer.base.smoke_corpus import fine_tuning_rows, pretraining_turns
from trainer.prepare.reading import read_rows
from trainer.prepare.splitting import DatasetRow, conflicts, duplicates, in_both
from trainer.questions.leakage import QuestionText, find_leaks

KEYS = ["id", "titre", "type", "preconditions", "etapes", "resultat_attendu"]
TYPES = {"nominal", "erreur", "limite", "sécurité"}
CATEGORIES = {"delivery", "refund", "billing", "account", "technical", "other"}


def conversations(folder, name):
    problems = []
    rows = read_rows(ROOT / "data" / folder / name, problems)
    assert problems == []
    return [DatasetRow(row.where, conversation_of(row.values, {}, None)) for row in rows]


@pytest.mark.parametrize("name", ["smoke.jsonl", "sfd_analysis_dataset.jsonl", "demo.jsonl"])
def test_nothing_stands_twice_or_on_both_sides(name):
    train, held_out = conversations("training", name), conversations("evaluation", name)
    assert duplicates(train) == duplicates(held_out) == []
    assert conflicts(train) == in_both(train, held_out) == []


def test_the_smoke_rows_are_those_of_the_seeded_template():
    for folder, rows in zip(("training", "evaluation"), fine_tuning_rows(), strict=True):
        lines = (ROOT / "data" / folder / "smoke.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == rows


def test_the_base_is_never_shown_a_held_out_row_with_its_answer():
    answers = {
        (f"{row['instruction']}\n\n{row['input']}", row["output"]) for row in fine_tuning_rows()[1]
    }
    turns = pretraining_turns()
    # As many as the base sees: 260 steps of 16.
    seen = {next(turns) for _ in range(260 * 16)}
    assert not answers & seen


@pytest.mark.parametrize(("folder", "at_least"), [("training", 120), ("evaluation", 20)])
def test_every_specification_has_its_scenarios(folder, at_least):
    rows = conversations(folder, "sfd_analysis_dataset.jsonl")
    assert len(rows) >= at_least
    for row in rows:
        scenarios = json.loads(row.conversation.messages[-1]["content"])
        assert [scenario["id"] for scenario in scenarios] == [
            f"SC-{number:02d}" for number in range(1, len(scenarios) + 1)
        ]
        assert all(list(scenario) == KEYS for scenario in scenarios), row.where
        assert {scenario["type"] for scenario in scenarios} <= TYPES, row.where
        assert scenarios[0]["type"] == "nominal"
        assert any(scenario["type"] != "nominal" for scenario in scenarios), row.where
        assert all(scenario["etapes"] for scenario in scenarios), row.where


def messages_and_labels(folder):
    lines = (ROOT / "data" / folder / "demo.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    # What is asked of the model is the same everywhere; only the message differs.
    assert len({row["instruction"] for row in rows}) == 1
    return [(row["input"], json.loads(row["output"])) for row in rows]


def is_french(message):
    words = set(re.findall(r"[^\W\d_]+", message.casefold()))
    french = {"le", "la", "les", "de", "des", "du", "une", "je", "et", "vous", "est", "pour", "en"}
    english = {"the", "a", "of", "is", "i", "my", "to", "you", "and", "for", "it", "in", "your"}
    return len(words & french) > len(words & english)


@pytest.mark.parametrize(("folder", "at_least"), [("training", 340), ("evaluation", 100)])
def test_every_message_is_labelled_by_the_rule(folder, at_least):
    rows = messages_and_labels(folder)
    assert len(rows) >= at_least
    for message, label in rows:
        assert list(label) == ["category", "urgent", "order"], message
        assert type(label["urgent"]) is bool, message
        # The order's number as it was written, in one form.
        written = re.findall(r"(?<![\w-])([A-Za-z])[- ]?(\d{4})(?![\w-])", message)
        orders = [f"{letter.upper()}-{digits}" for letter, digits in written]
        assert label["order"] == (orders[0] if orders else None), message
    categories = [label["category"] for _, label in rows]
    assert set(categories) == CATEGORIES
    # A model that always says the same is wrong of most.
    assert max(categories.count(name) for name in categories) < len(rows) / 5
    urgent = sum(label["urgent"] for _, label in rows)
    assert 0.1 < urgent / len(rows) < 0.5


@pytest.mark.parametrize("folder", ["training", "evaluation"])
def test_half_of_the_messages_are_french(folder):
    rows = messages_and_labels(folder)
    french = sum(is_french(message) for message, _ in rows)
    assert abs(french - len(rows) / 2) <= len(rows) / 20


def test_no_message_is_another_one_over_again():
    trained, held_out = (
        [QuestionText(str(number), message) for number, (message, _) in enumerate(rows)]
        for rows in map(messages_and_labels, ("training", "evaluation"))
    )
    assert find_leaks(held_out, trained) == []
    # Nor made by a template: no seven words in a row stand in two messages.
    texts = [re.findall(r"[^\W_]+", row.text.casefold()) for row in (*trained, *held_out)]
    seen = {}
    for number, words in enumerate(texts):
        for start in range(len(words) - 6):
            gram = tuple(words[start : start + 7])
            assert seen.setdefault(gram, number) == number, " ".join(gram)
