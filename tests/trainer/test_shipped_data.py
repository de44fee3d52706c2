"""The datasets that are shipped are what they are said to be."""

import json

import pytest

from contract.row_forms import conversation_of
from launcher.project import ROOT
from trainer.base.smoke_corpus import fine_tuning_rows, pretraining_turns
from trainer.prepare.reading import read_rows
from trainer.prepare.splitting import DatasetRow, conflicts, duplicates, in_both

KEYS = ["id", "titre", "type", "preconditions", "etapes", "resultat_attendu"]
TYPES = {"nominal", "erreur", "limite", "sécurité"}


def conversations(folder, name):
    problems = []
    rows = read_rows(ROOT / "data" / folder / name, problems)
    assert problems == []
    return [DatasetRow(row.where, conversation_of(row.values, {}, None)) for row in rows]


@pytest.mark.parametrize("name", ["smoke.jsonl", "sfd_analysis_dataset.jsonl"])
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
