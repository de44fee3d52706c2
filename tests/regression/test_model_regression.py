"""Does the model still know what its base knew?

`pytest tests/regression/test_model_regression.py --model NAME [--base NAME]`. Without a name: the
smoke run's.
"""

import json

import pytest

from contract import paths
from contract.evaluation import Questions
from launcher.evaluate.answer_bounds import max_new_tokens
from launcher.evaluate.evaluation import SKILLS
from launcher.evaluate.record import Evaluation
from launcher.evaluate.report import percent
from launcher.evaluate.response_cache import ResponseCache
from tests.conftest import invoke, lend_tools


@pytest.mark.parametrize("skill", sorted(path.stem for path in SKILLS.glob("*.jsonl")))
def test_a_skill_is_kept(evaluation, skill):
    found = next(result for result in evaluation.skills if result.set == skill)
    assert found.base is not None, "nothing to compare with: use --base NAME"
    assert not found.regression, (
        f"{percent(found.base.score)} -> {percent(found.model.score)} of {found.rows} rows"
    )


def test_a_skill_that_training_took_is_found_lost_and_the_gate_says_so(smoke_run, tools, tmp_path):
    """What the base answers to the task's questions is its own skill, and training took it."""
    lend_tools(smoke_run.project, tools)
    words = ("evaluate", "--model", "affineur-smoke", "--ollama", "none")
    before = invoke(smoke_run.project, *words, "--skills", "none")
    assert before.returncode == 0, before.stderr
    folder = tmp_path / "ce qu'elle savait"
    folder.mkdir()
    with (folder / "répéter.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in answered_by_the_base(smoke_run)[:40])
    done = invoke(smoke_run.project, *words, "--skills", str(folder))
    assert done.returncode == 0, done.stderr
    assert "répéter: regression" in done.stdout
    (skill,) = Evaluation.of_run(smoke_run.folder, "affineur-smoke").skills
    assert skill.base.score.mean == 1
    assert skill.verdict == "worse"
    said_no = invoke(smoke_run.project, "gate", "--model", "affineur-smoke")
    assert said_no.returncode == 3, said_no.stderr
    assert "répéter" in said_no.stdout
    card = (smoke_run.folder / paths.CARD).read_text(encoding="utf-8")
    assert "do not ship" in card
    assert "| ❌ | skills |" in card
    assert "| ❌ | each skill | répéter -100.0" in card


def answered_by_the_base(smoke_run):
    """Rows that the base has wholly right: the task's questions, and its own answers to them."""
    evaluation = Evaluation.of_run(smoke_run.folder, "affineur-smoke")
    folder = smoke_run.folder / paths.EVALUATION_FOLDER
    items = Questions.read(folder / paths.QUESTIONS).items
    cache = ResponseCache(
        folder / paths.ANSWERS / evaluation.base.answers_file,
        [item.messages for item in items],
        [max_new_tokens(item, evaluation.max_new_tokens) for item in items],
    )
    return [
        {"instruction": item.messages[-1]["content"], "output": answer.text, "metric": "exact"}
        for item, answer in zip(items, cache.answers, strict=True)
        if answer.text.strip()
    ]
