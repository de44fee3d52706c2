"""Each metric gives full marks to what is right and none to what is not."""

import json
import subprocess
import sys

import pytest
from sacrebleu.metrics.chrf import CHRF

import tasks
from contract.chrf import chrf
from contract.metrics import METRICS, fitting_metric, number_in, score
from launcher.project import ROOT

SKILLS = sorted((ROOT / "data" / "evaluation" / "skills").glob("*.jsonl"))


@pytest.mark.parametrize(
    ("metric", "answer", "expected", "right"),
    [
        ("exact", " oui\n", "oui", True),
        ("exact", "Oui", "oui", False),
        ("normalized", "« Été ! »", "été", True),
        ("normalized", "l'été", "l été", True),
        ("normalized", "ete", "été", False),
        ("number", "So 3 and 4 make 7.", "7", True),
        ("number", "12 + 30 = 42\n#### 42", "so\n#### 42.0", True),
        ("number", "It costs $1,234.50.", "1234.5", True),
        ("number", "Cela fait 1 234,5 € en tout", "1234.5", True),
        ("number", "3,5", "3.5", True),
        ("number", "-4", "−4", True),
        ("number", "none", "4", False),
        ("number", "", "4", False),
        ("json_valid", '{"a": [1, 2]}', "{}", True),
        ("json_valid", '```json\n{"a": 1}\n```', "{}", False),
        ("json_valid", "{'a': 1}", "{}", False),
        ("contains", "La capitale est Paris, depuis 987.", '["Paris", "987"]', True),
        ("contains", "Il y en a 10.", "1", False),
        ("contains", "in Paris", '["Paris", "1998"]', False),
        ("regex", "Cinq mots, pas un de plus", r"\A(?:\w+\W*){6}\Z", True),
        ("regex", "deux mots", r"\A\w+\Z", False),
        ("chrf", "même phrase", "même phrase", True),
        ("chrf", "", "quelque chose", False),
    ],
)
def test_right_is_one_and_wrong_is_nothing(metric, answer, expected, right):
    assert score(metric, answer, expected) == float(right)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 1,000", "1000"),
        ("10\n#### 5\n#### 7 and 9", "7"),
        ("2 500 000", "2500000"),
        ("1,5 ou 1.5", "1.5"),
        ("le 12.05.2024", None),
        ("rien", None),
    ],
)
def test_the_result_is_found_as_people_write_it(text, number):
    found = number_in(text)
    assert found == (None if number is None else type(found)(number))


@pytest.mark.parametrize(
    ("found", "wanted", "f1"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, 1),
        ({"a": 1}, {"a": 2}, 2 * 1 / 4),
        ({"a": 1, "b": 2}, {"a": 1}, 2 * 2 / 6),
        ([{"id": 2}, {"id": 1}], [{"id": 1}, {"id": 2}], 1),
        ([{"id": 1, "t": "x"}], [{"id": 2, "t": "y"}, {"id": 1, "t": "x"}], 2 * 4 / 12),
        (["a", "b", "c"], ["b", "c"], 2 * 2 / 5),
        (["b", "a"], ["a", "b"], 2 * 1 / 4),
        (True, 1, 0),
        (1.0, 1, 1),
        ([], [], 1),
        ({}, {"a": 1}, 0),
        ("a", {"a": 1}, 0),
    ],
)
def test_structures_are_compared_by_keys_and_values(found, wanted, f1):
    assert score("json_f1", json.dumps(found), json.dumps(wanted)) == pytest.approx(f1)


def test_what_is_no_json_has_no_structure():
    assert score("json_f1", "{", "{}") == 0
    assert score("json_f1", "", "{}") == 0
    assert score("json_f1", "[" * 100_000, "{}") == 0


def test_chrf_is_sacrebleus():
    reference = CHRF()
    rows = [
        json.loads(line)
        for path in SKILLS
        for line in path.read_text(encoding="utf-8").split("\n")
        if line
    ]
    texts = [row["example"] for row in rows]
    # The published example of sacrebleu's README, the extremes, and our own texts in pairs.
    pairs = [
        ("The dog bit the man.", "The dog had bit the man."),
        ("It wasn't surprising.", "No one was surprised."),
        ("The man had just bitten him.", "The man had bitten the dog."),
        ("a", "a"),
        ("a", "b"),
        ("", "abc"),
        ("abc", "abcdefghij"),
        ("\u00a0é à\t", "é  à"),
        *zip(texts, [row["output"] for row in rows], strict=True),
        *zip(texts, texts[1:] + texts[:1], strict=True),
    ]
    for answer, expected in pairs:
        theirs = reference.sentence_score(answer, [expected]).score / 100
        assert chrf(answer, expected) == pytest.approx(theirs, abs=1e-9), (answer, expected)


@pytest.mark.parametrize(
    ("expected", "metric"),
    [
        (['{"a": 1}', "[]"], "json_f1"),
        (["12", "so\n#### 4", "1 200,5"], "number"),
        (["oui", "le chat noir"], "normalized"),
        (["une phrase qui est bien plus longue que cela", "oui"], "chrf"),
        (["12", '{"a": 1}'], "normalized"),
        # What holds digits and is no number would never be right as one.
        (["12.05.2024", "1.2.3"], "normalized"),
        (["#### rien"], "normalized"),
    ],
)
def test_the_metric_is_what_fits_all_expected_answers(expected, metric):
    assert fitting_metric(expected) == metric


@pytest.mark.parametrize(
    ("metric", "expected", "said"),
    [
        ("regex", "(", "is not a valid regular expression"),
        ("json_f1", "{", "is scored as JSON, but its output is not JSON"),
        ("json_f1", "[" * 100_000, "nested too deeply"),
        ("number", "no digit", "is scored as a number, but its output contains none"),
        ("number", "12.05.2024", "contains none"),
        ("regex", "a+", ""),
        ("json_f1", "{}", ""),
        ("number", "so\n#### 4", ""),
    ],
)
def test_an_expected_answer_that_cannot_be_compared_with_is_refused(metric, expected, said):
    complaint = METRICS[metric].complaint(expected)
    assert (said in complaint) if said else complaint == ""


@pytest.mark.parametrize("path", SKILLS, ids=lambda path: path.stem)
def test_a_skills_items_accept_their_example_and_nothing_else(path):
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    assert len(rows) >= 25
    assert len({(row["instruction"], row.get("input")) for row in rows}) == len(rows)
    for row in rows:
        assert row["metric"] in METRICS
        assert score(row["metric"], row["example"], row["output"]) == pytest.approx(1), row
        for wrong in ("", "zzz qqq"):
            assert score(row["metric"], wrong, row["output"]) < 0.3, row


def test_the_help_of_invoke_names_every_metric_and_waits_for_no_library():
    loaded = "import sys, contract.metrics; print(*{'pydantic', 'invoke'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
    assert all(name in tasks.evaluate.help["metric"] for name in METRICS)


def test_there_are_skills_enough():
    assert len(SKILLS) >= 8
