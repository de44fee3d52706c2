"""The datasets that are shipped are what they are said to be."""

import json
import re
from collections import Counter

import pytest

from contract.metrics import complaint, score
from contract.row_forms import conversation_of
from launcher.project import ROOT
from trainer.base.smoke_corpus import fine_tuning_rows, pretraining_turns
from trainer.prepare.reading import read_rows
from trainer.prepare.splitting import DatasetRow, RowDigests
from trainer.questions.leakage import QuestionText, find_leaks

KEYS = ["id", "titre", "type", "preconditions", "etapes", "resultat_attendu"]
EVALUATION = ROOT / "data" / "evaluation"
SKILLS = sorted((EVALUATION / "skills").glob("*.jsonl"))
COLUMNS = ["instruction", "input", "output", "metric", "example"]
# Words that one of the two languages has and the other has not.
FRENCH = re.compile(
    r"\b(?:le|la|les|un|une|des|du|de|et|est|dans|sur|avec|pour|que|qui|quel|quelle|combien|"
    r"je|tu|il|elle|nous|vous|ne|pas|par|ce|cette|ces|en|au|aux|à|où|réponds|donne|"
    r"écris|seulement|sans|mon|ma|ta|ton|son|sa)\b",
    re.IGNORECASE,
)
ENGLISH = re.compile(
    r"\b(?:the|a|an|of|and|is|are|in|on|with|for|that|which|what|how|who|i|you|he|she|it|"
    r"we|they|not|by|this|these|to|at|answer|give|write|only|without|my|your|his|her|"
    r"from|into|do|does)\b",
    re.IGNORECASE,
)
TYPES = {"nominal", "erreur", "limite", "sécurité"}
CATEGORIES = {"delivery", "refund", "billing", "account", "technical", "other"}


def conversations(folder, name):
    problems = []
    rows = list(read_rows(ROOT / "data" / folder / name, problems))
    assert problems == []
    return [DatasetRow(row.where, conversation_of(row.values, {}, None)) for row in rows]


def digests(folder, name):
    found = RowDigests()
    for row in conversations(folder, name):
        found.append(row.question_digest, row.digest)
    return found


@pytest.mark.parametrize("name", ["smoke.jsonl", "sfd_analysis_dataset.jsonl", "demo.jsonl"])
def test_nothing_stands_twice_or_on_both_sides(name):
    train, held_out = digests("training", name), digests("evaluation", name)
    assert len(train) > 100
    assert len(train.duplicates()) == len(held_out.duplicates()) == 0
    assert len(train.conflicts()) == len(held_out.asked_in(train)) == 0


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


def demo_rows(folder):
    lines = (ROOT / "data" / folder / "demo.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def messages_and_labels(folder):
    rows = [row for row in demo_rows(folder) if "input" in row]
    # What is asked of the model is the same everywhere; only the message differs.
    assert len({row["instruction"] for row in rows}) == 1
    return [(row["input"], json.loads(row["output"])) for row in rows]


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


def test_a_fifth_of_what_the_demo_trains_on_are_ordinary_questions_of_no_skill_set():
    rows = demo_rows("training")
    ordinary = [row for row in rows if "input" not in row]
    assert 0.15 < len(ordinary) / len(rows) < 0.25
    french = sum(language(row["instruction"] + " " + row["output"]) == "fr" for row in ordinary)
    assert abs(french - len(ordinary) / 2) <= len(ordinary) / 10
    asked = [row for path in SKILLS for row in skill_rows(path)]
    skills = {" ".join(words(f"{row['instruction']} {row.get('input', '')}")) for row in asked}
    for row in ordinary:
        assert " ".join(words(row["instruction"])) not in skills, row["instruction"]
    assert all("input" in row for row in demo_rows("evaluation"))


@pytest.mark.parametrize("folder", ["training", "evaluation"])
def test_half_of_the_messages_are_french(folder):
    rows = messages_and_labels(folder)
    french = sum(language(message) == "fr" for message, _ in rows)
    assert abs(french - len(rows) / 2) <= len(rows) / 20


def test_no_message_is_another_one_over_again():
    trained, held_out = (
        [QuestionText(str(number), message) for number, (message, _) in enumerate(rows)]
        for rows in map(messages_and_labels, ("training", "evaluation"))
    )
    assert find_leaks(held_out, trained) == []
    # Nor made by a template: no seven words in a row stand in two messages.
    seen = {}
    for number, row in enumerate((*trained, *held_out)):
        written = words(row.text)
        for start in range(len(written) - 6):
            gram = tuple(written[start : start + 7])
            assert seen.setdefault(gram, number) == number, " ".join(gram)


def skill_rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def words(text):
    return re.findall(r"[^\W_]+", text.casefold())


def language(text):
    """`fr` or `en`; empty where there is no telling word, as in `462 / 6 = ?`."""
    french, english = (len(words.findall(text)) for words in (FRENCH, ENGLISH))
    return "fr" if french > english else "en" if english > french else ""


def question(row):
    return QuestionText(row["instruction"], f"{row['instruction']}\n\n{row.get('input', '')}")


@pytest.mark.parametrize("path", SKILLS, ids=lambda path: path.stem)
def test_a_skill_has_rows_enough_to_show_a_loss_and_each_is_right(path):
    rows = skill_rows(path)
    assert len(rows) >= 60
    for row in rows:
        assert list(row) == [name for name in COLUMNS if name != "input" or name in row]
        assert complaint(row["metric"], row["output"]) == "", row
        assert score(row["metric"], row["example"], row["output"]) == pytest.approx(1), row


@pytest.mark.parametrize("path", SKILLS, ids=lambda path: path.stem)
def test_half_of_a_skill_is_french_and_half_is_english(path):
    rows = skill_rows(path)
    found = Counter(language(row["instruction"]) for row in rows)
    assert found[""] <= len(rows) / 10
    assert abs(found["fr"] - found["en"]) <= len(rows) / 20
    # From the easiest rung to the hardest.
    for start in range(0, len(rows) - 15, 16):
        rung = Counter(language(row["instruction"]) for row in rows[start : start + 16])
        assert min(rung["fr"], rung["en"]) >= 5, (start, rung)


def test_harmless_questions_are_half_of_the_refusals_in_both_languages():
    (path,) = [path for path in SKILLS if path.stem == "refusal"]
    found = Counter((language(row["instruction"]), row["metric"]) for row in skill_rows(path))
    assert {metric for _, metric in found} == {"refused", "answered"}
    for wanted in ("fr", "en"):
        assert found[wanted, "refused"] >= 20
        assert found[wanted, "answered"] >= 20


def test_no_two_questions_of_the_skills_are_alike():
    places = Counter()
    for path in SKILLS:
        for row in skill_rows(path):
            places[" ".join(re.findall(r"[\w+×÷*/−-]+", question(row).text.lower()))] += 1
    assert [text for text, times in places.items() if times > 1] == []


@pytest.mark.parametrize(
    "trained", sorted((ROOT / "data" / "training").glob("*.jsonl")), ids=lambda path: path.stem
)
def test_no_skill_asks_what_is_trained_on(trained):
    asked = [question(row) for path in SKILLS for row in skill_rows(path)]
    problems = []
    rows = list(read_rows(trained, problems))
    assert rows
    assert problems == []
    trained_on = [
        QuestionText(
            row.where,
            "\n\n".join(
                message["content"]
                for message in conversation_of(row.values, {}, None).messages
                if message["role"] == "user"
            ),
        )
        for row in rows
    ]
    assert find_leaks(asked, trained_on) == []
    assert find_leaks([trained_on[0]], trained_on)


def test_the_table_of_the_evaluation_sets_names_each_skill_with_its_size():
    table = (EVALUATION / "README.md").read_text(encoding="utf-8")
    sizes = {name: int(rows) for name, rows in re.findall(r"(?m)^\| `(\w+)` \| (\d+) \|", table)}
    assert sizes == {path.stem: len(skill_rows(path)) for path in SKILLS}
