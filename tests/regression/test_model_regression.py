"""Does the model still know what its base knew?

`pytest tests/regression/test_model_regression.py --model NAME [--base NAME]`. Without a name: the
smoke run's.
"""

import json

import pytest

from contract import paths
from launcher.evaluate.evaluation import SKILLS
from launcher.evaluate.record import Evaluation
from launcher.evaluate.report import percent
from tests.conftest import invoke, lend_tools
from trainer.base.smoke_corpus import REPEAT, fine_tuning_rows


@pytest.mark.parametrize("skill", sorted(path.stem for path in SKILLS.glob("*.jsonl")))
def test_a_skill_is_kept(evaluation, skill):
    found = next(result for result in evaluation.skills if result.set == skill)
    assert found.base is not None, "nothing to compare with: use --base NAME"
    assert not found.regression, (
        f"{percent(found.base.score)} -> {percent(found.model.score)} of {found.rows} rows"
    )


def test_a_skill_that_training_took_is_found_lost_and_the_gate_says_so(smoke_run, tools, tmp_path):
    """The smoke base repeats what it is told; tuned to classify, the model does that alone."""
    lend_tools(smoke_run.project, tools)
    rows = [
        {"instruction": REPEAT, "input": row["input"], "output": row["input"], "metric": "chrf"}
        for row in fine_tuning_rows()[1]
    ]
    folder = tmp_path / "ce qu'elle savait"
    folder.mkdir()
    with (folder / "répéter.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    words = ("--model", "affineur-smoke", "--ollama", "none", "--skills", str(folder))
    done = invoke(smoke_run.project, "evaluate", *words)
    assert done.returncode == 0, done.stderr
    assert "répéter: a regression" in done.stdout
    (skill,) = Evaluation.of_run(smoke_run.folder, "affineur-smoke").skills
    assert skill.verdict == "worse"
    said_no = invoke(smoke_run.project, "gate", "--model", "affineur-smoke")
    assert said_no.returncode == 3, said_no.stderr
    assert "répéter" in said_no.stdout
    card = (smoke_run.folder / paths.CARD).read_text(encoding="utf-8")
    assert "do not ship" in card
    assert "| ❌ | skills |" in card
