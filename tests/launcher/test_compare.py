"""Two runs side by side: what was done otherwise, what came of it, and which answers changed."""

import io
import json
import shutil

import pytest
from rich.cells import cell_len

from contract import paths
from contract.errors import UserError
from launcher.cli import comparison_report
from launcher.display import terminal
from launcher.pipeline.finished_run import Run
from launcher.runs.comparison import compare
from tests.conftest import invoke
from tests.launcher.made_runs import (
    evaluate,
    make_run,
    prepared,
    record,
    trained,
    write_reference,
    write_rows,
)

ROWS = [("1+1?", "2"), ("2+2?", "4"), ("3+3?", "6")]
HELD_OUT = [("Rome?", "oui"), ("Oslo?", "non")]


def shown(found, width=80):
    file = io.StringIO()
    comparison_report.show(found, terminal(file=file, width=width))
    return file.getvalue()


def words(text):
    return " ".join(text.split())


def pair(models, **b):
    """Two runs of a model, the second made otherwise."""
    return Run(make_run(models, "m", "aaaa")), Run(make_run(models, "m", "bbbb", **b))


def test_the_learning_rate_is_named_and_the_answers_that_changed(models):
    answers = [
        ("Rome?", "oui", "x", "n"),
        ("2+2?", "4", "five", "4"),
        ("Paris?", "oui", "non", "oui"),
    ]
    others = [
        ("Rome?", "oui", "x", "o"),
        ("2+2?", "4", "five", "22"),
        ("Paris?", "oui", "non", "oui"),
    ]
    runs = [
        make_run(
            models,
            "m",
            key,
            settings=[f"learning_rate={rate}"],
            records=[record("prepare", prepared()), record("train", trained(asked, loss))],
        )
        for key, rate, asked, loss in (("aaaa", 0.002, answers, 0.5), ("bbbb", 0.001, others, 0.75))
    ]
    found = compare(*map(Run, runs))
    assert [(one.name, one.a, one.b) for one in found.recipe] == [("learning_rate", 0.002, 0.001)]
    assert found.inputs == []
    assert found.answers.compared == {"held-out example": 3}
    first, second = found.answers.changed
    # First the one that was right.
    assert (first.question, first.expected, first.a, first.b) == ("2+2?", "4", "4", "22")
    assert (first.a_score, first.b_score) == (1, 0)
    assert (second.question, second.a_score, second.b_score) == ("Rome?", 0, 0)
    said = words(shown(found))
    assert "learning_rate 0.002 0.001" in said
    assert "held-out loss, tuned 0.5 0.75" in said
    assert "2 changed 2 of 3 of the training's examples" in said
    assert "asked 2+2? expected 4 A 4 ✓ B 22 ✗" in said
    assert "Nothing differs" not in said


def test_that_nothing_differs_is_said(models):
    a, b = pair(models, day=2)
    for run in (a, b):
        write_rows(run.folder, ROWS, paths.PREPARED_TRAIN)
        write_rows(run.folder, HELD_OUT, paths.PREPARED_HELD_OUT)
        write_reference(run.folder, {"Rome?": "oui"})
        evaluate(run.folder, {"q": ("a", "a")})
    found = compare(a, b)
    assert found.nothing_differs
    said = shown(found)
    assert "Nothing differs but sizes and times" in said
    assert "rows  the same: 3 trained, 2 held out" in said
    assert "answers  0 changed" in said


def test_inputs_that_differ_are_named_with_their_digests(models):
    inputs = {"inputs": {"data": "d" * 64, "tools": "7" * 64}}
    a = make_run(
        models,
        "m",
        "aaaa",
        records=[record(name, decided_by=inputs) for name in ("merge", "convert")],
    )
    inputs = {"inputs": {"data": "e" * 64, "tools": "8" * 64}}
    b = make_run(
        models,
        "m",
        "bbbb",
        records=[
            record(name, decided_by=inputs, python="3.12.1", engine="docker")
            for name in ("merge", "convert")
        ],
        base={"source": "smoke", "revision": None, "digest": "b" * 64, "files": {}},
        data={"data": "e" * 64, "evaluation": "f" * 64},
        locks={"t4.lock": "2" * 64, "rtx.lock": "2" * 64},
        code={"merge": "3" * 64, "convert": "4" * 64},
        versions={"torch": "2.1"},
        machine={"platform": "x", "processor": "z", "cores": 64},
    )
    found = compare(Run(a), Run(b))
    differing = {one.name: (one.a, one.b) for one in found.inputs}
    assert differing["the dataset"] == ("d" * 64, "e" * 64)
    assert differing["the evaluation rows"] == (None, "f" * 64)
    assert differing["llama.cpp's tools"] == ("7" * 64, "8" * 64)
    assert differing["the base"] == ("0", "b" * 64)
    assert differing["rtx.lock"] == ("1" * 64, "2" * 64)
    assert differing["code of merge"] == ("c" * 64, "3" * 64)
    assert differing["torch"] == ("2.0", "2.1")
    assert (differing["processor"], differing["cores"]) == (("y", "z"), (1, 64))
    said = words(shown(found))
    assert "the dataset dddddddddddd eeeeeeeeeeee" in said
    assert "the evaluation rows - ffffffffffff" in said
    assert "code of merge, convert differs" in said
    assert "Python of merge, convert 3.11.2 3.12.1" in said
    assert "engine of merge, convert local docker" in said


def test_what_a_training_changed_for_want_of_memory_is_named(models):
    changed = [record("train", trained(changed={"packing_length": 512}))]
    found = compare(*pair(models, records=changed))
    assert [(one.name, one.a, one.b) for one in found.recipe] == [
        ("packing_length, changed while training", None, 512)
    ]


def test_rows_are_compared_by_what_they_say(models):
    a, b = pair(models)
    write_rows(a.folder, [*ROWS, ROWS[0]], paths.PREPARED_TRAIN)
    # In another order, from other lines, and one with another answer.
    write_rows(b.folder, [("3+3?", "7"), *reversed(ROWS[:2])], paths.PREPARED_TRAIN)
    for run in (a, b):
        write_rows(run.folder, HELD_OUT, paths.PREPARED_HELD_OUT)
    found = compare(a, b)
    trained_on, held_out = found.rows
    assert (trained_on.both, trained_on.only_a, trained_on.only_b) == (2, 2, 1)
    assert (held_out.both, held_out.only_a, held_out.only_b) == (2, 0, 0)
    said = words(shown(found))
    assert "rows in both in A alone in B alone trained 2 2 1 held out 2 0 0" in said


def test_rows_that_are_gone_or_damaged_are_not_compared(models):
    a, b = pair(models)
    for run in (a, b):
        write_rows(run.folder, ROWS, paths.PREPARED_TRAIN)
        write_rows(run.folder, HELD_OUT, paths.PREPARED_HELD_OUT)
    (b.folder / paths.PREPARED_HELD_OUT).write_text('{"where":')
    assert [rows.name for rows in compare(a, b).rows] == ["trained"]
    shutil.rmtree(b.folder / paths.PREPARED)
    found = compare(a, b)
    assert found.rows == []
    assert "The rows were not compared" in shown(found)


def test_files_that_differ_are_named(models):
    a = make_run(
        models, "m", "aaaa", records=[record("merge", outputs={"same": "1", "x": "2", "old": "3"})]
    )
    b = make_run(
        models, "m", "bbbb", records=[record("merge", outputs={"same": "1", "x": "4", "new": "5"})]
    )
    found = compare(Run(a), Run(b))
    assert found.same_outputs == 1
    assert {one.name for one in found.outputs} == {"x", "old", "new"}
    said = shown(found)
    assert "1 the same, 3 not:" in said
    assert "  old  (A alone)\n" in said
    assert "  new  (B alone)\n" in said


def test_answers_of_the_evaluation_are_compared_with_their_scores(models):
    a, b = pair(models)
    evaluate(a.folder, {f"q{n}": ("a", "a" if n < 10 else "b") for n in range(40)})
    evaluate(b.folder, {f"q{n}": ("a", "a") for n in range(40)})
    found = compare(a, b)
    assert found.answers.compared["evaluation"] == 40
    changed = [one for one in found.answers.changed if one.source == "evaluation"]
    assert len(changed) == 30
    assert changed[0].where == "sort: sort.jsonl:11"
    assert (changed[0].a_score, changed[0].b_score) == (0, 1)
    (task,) = found.sets
    assert (task.a.mean, task.b.mean, task.verdict) == (0.25, 1.0, "better")
    assert task.difference.mean == 0.75
    said = shown(found)
    assert "30 of 40 of the evaluation" in said
    assert "and 20 more: --json has all of them" in said
    assert "better" in said


def test_other_questions_are_not_compared_as_if_they_were_the_same(models):
    a, b = pair(models)
    evaluate(a.folder, {"q1": ("a", "a"), "q2": ("a", "b")})
    evaluate(b.folder, {"q2": ("a", "a"), "q3": ("a", "a")})
    found = compare(a, b)
    assert found.answers.compared["evaluation"] == 1
    (task,) = found.sets
    assert (task.difference, task.verdict) == (None, None)


def test_answers_that_are_gone_leave_the_scores(models):
    a, b = pair(models)
    evaluate(a.folder, {"q1": ("a", "a")})
    evaluate(b.folder, {"q1": ("a", "b")})
    shutil.rmtree(b.folder / "evaluation" / "answers")
    found = compare(a, b)
    assert "evaluation" not in found.answers.compared
    assert (found.sets[0].a.mean, found.sets[0].b.mean) == (1, 0)


def test_a_run_without_an_evaluation_has_a_dash(models):
    a, b = pair(models)
    evaluate(a.folder, {"q1": ("a", "a")})
    found = compare(a, b)
    assert found.sets[0].b is None
    (line,) = [line for line in shown(found).splitlines() if line.startswith("  sort")]
    assert line.split()[-1] == "-"


def test_the_references_answers_are_right_or_wrong_by_the_held_out_rows(models):
    a, b = pair(models)
    for run in (a, b):
        write_rows(run.folder, HELD_OUT, paths.PREPARED_HELD_OUT)
    write_reference(a.folder, {"Rome?": "oui", "Oslo?": "non", "Paris?": "x"})
    write_reference(b.folder, {"Rome?": "oui", "Oslo?": "<think>so</think>oui", "Paris?": "y"})
    found = compare(a, b)
    assert found.answers.compared["reference"] == 3
    oslo, paris = (one for one in found.answers.changed if one.source == "reference")
    assert (oslo.question, oslo.expected, oslo.a, oslo.b) == ("Oslo?", "non", "non", "oui")
    assert (oslo.a_score, oslo.b_score) == (1, 0)
    # Nobody knows what is expected.
    assert (paris.expected, paris.a_score) == (None, None)


def test_it_is_readable_in_80_columns_and_moves_no_cursor(models):
    long = "\x1b[2J" + "très long " * 60
    asked = [(long, long, long, "\x1b" + "a" * 300), ("q", "a", "b", "c")]
    other = [(long, long, long, "b" * 300), ("q", "a", "b", "d")]
    a, b = (
        make_run(
            models,
            "a-model-with-a-name-of-sixty-characters-that-ollama-still-takes"[:60],
            key,
            settings=[f"system_prompt={prompt}", f"lora_target_modules={modules}"],
            records=[record("prepare", prepared()), record("train", trained(rows, 12.5))],
            code=dict.fromkeys(("preflight", "prepare", "rendering", "train"), digest * 64),
            machine={"platform": f"Linux-{'x' * 90}", "processor": "y" * 80, "cores": cores},
        )
        for key, prompt, modules, rows, digest, cores in (
            ("aaaa", "Sois bref. " * 40, "[q_proj,k_proj,v_proj,o_proj]", asked, "1", 4),
            ("bbbb", "Sois long. " * 40, "all-linear", other, "2", 8),
        )
    )
    for folder, said in ((a, "c" * 200), (b, "d" * 200)):
        evaluate(folder, {"très longue question " * 9: ("a", said)})
    text = shown(compare(Run(a), Run(b)))
    assert "\x1b" not in text
    # The folders' paths alone may be longer, so that they can be copied whole.
    lines = [line for line in text.splitlines() if str(a.parent) not in line]
    assert max(cell_len(line) for line in lines) <= 80
    assert "Sois bref." in text


def test_of_two_long_texts_it_is_seen_where_they_part(models):
    start = "the same beginning " * 20
    asked, other = ([("q", "a", "b", f"{start}{end}")] for end in ("and one end", "and another"))
    records = [record("prepare", prepared())]
    a = make_run(models, "m", "aaaa", records=[*records, record("train", trained(asked))])
    b = make_run(models, "m", "bbbb", records=[*records, record("train", trained(other))])
    said = words(shown(compare(Run(a), Run(b))))
    assert "beginning and one end ✗" in said
    assert "beginning and another ✗" in said


def test_a_run_of_another_version_is_a_sentence(models):
    a, b = pair(models)
    (b.folder / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="was written by another version of Affineur"):
        compare(a, Run(b.folder))


def test_the_command_compares_for_people_and_for_programs(clone):
    models = clone / "data" / "models"
    make_run(models, "compared", "aaaa", settings=["learning_rate=0.002"])
    make_run(models, "compared", "bbbb", settings=["learning_rate=0.001"], day=2)
    people = invoke(clone, "compare", "compared@aa", "compared")
    assert people.returncode == 0, people.stderr
    assert "learning_rate" in people.stdout
    programs = invoke(clone, "compare", "compared@aa", "data/models/compared/bbbb", "--json")
    found = json.loads(programs.stdout)
    assert found["recipe"] == [{"name": "learning_rate", "a": 0.002, "b": 0.001}]
    assert (found["a"]["key"], found["b"]["key"]) == ("aaaa", "bbbb")
    same = invoke(clone, "compare", "compared", "compared")
    assert "Nothing differs" in same.stdout
    unknown = invoke(clone, "compare", "compared", "nobody")
    assert unknown.returncode == 2
    assert "RUN: nobody has no finished run here. Known: compared." in unknown.stderr


def test_a_real_run_and_a_copy_of_it_differ_in_nothing(smoke_run, run_copy):
    found = compare(Run(smoke_run.folder), Run(run_copy))
    assert found.nothing_differs
    trained_on, held_out = found.rows
    assert trained_on.both > 100
    assert held_out.both > 0
    assert found.answers.compared["held-out example"] == 3
    assert found.answers.compared["reference"] > 0
    # Another answer in the copy is found, and is wrong by the run's own rows.
    reference = json.loads((run_copy / paths.REFERENCE).read_text())
    asked = [one for one in reference["questions"] if one["held_out"]]
    asked[-1]["answer"] = "quite another one"
    (run_copy / paths.REFERENCE).write_text(json.dumps(reference))
    (changed,) = compare(Run(smoke_run.folder), Run(run_copy)).answers.changed
    assert changed.b == "quite another one"
    assert changed.b_score == 0
    assert changed.expected
