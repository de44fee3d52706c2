"""Evaluation rows are read as training data is, scored by what fits, and none was trained on."""

import json

import pytest

from contract import paths
from contract.evaluation import Questions, QuestionsRequest
from tests.conftest import stage
from trainer.questions.leakage import QuestionText, find_leaks

LONG = " ".join(f"mot{n}" for n in range(40))


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def ask(tmp_path):
    """Run the stage on these rows; its exit code, and its problems or questions.

    `asked.notes` has what it said besides.
    """

    def asked(*rows, skills=None, trained=None, file="à moi.jsonl", **request):
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        given = QuestionsRequest(
            **{
                "task": "mine",
                "metric": None,
                "columns": {},
                "system_prompt": None,
                "drop_leaked": False,
                **request,
            }
        )
        (run / paths.QUESTIONS_REQUEST).write_text(given.model_dump_json())
        flags = ["--run", str(run), "--data", str(write(tmp_path / file, *rows))]
        if skills is not None:
            (tmp_path / "skills").mkdir()
            for name, content in skills.items():
                write(tmp_path / "skills" / f"{name}.jsonl", *content)
            flags += ["--skills", str(tmp_path / "skills")]
        if trained is not None:
            (tmp_path / "trained" / "prepared").mkdir(parents=True)
            write(
                tmp_path / "trained" / paths.PREPARED_TRAIN,
                *(
                    {"where": f"t:{n}", "messages": messages(*pair)}
                    for n, pair in enumerate(trained, 1)
                ),
            )
            flags += ["--trained", str(tmp_path / "trained")]
        code, events, log = stage("trainer.questions", *flags)
        assert code in (0, 2), log
        asked.notes = [event["text"] for event in events if event["event"] == "note"]
        if code == 2:
            return code, "\n".join(str(p) for p in events[-1]["problems"])
        return code, Questions.read(run / paths.QUESTIONS)

    return asked


def messages(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def row(question, answer, **more):
    return {"instruction": question, "output": answer, **more}


def test_rows_become_questions_with_what_is_expected(ask):
    code, found = ask(
        row("Un ?", "1"),
        row("Deux ?", "deux mots", metric="exact"),
        system_prompt="Sois bref.",
        metric="contains",
        skills={"faits": [row("Où ?", "ici")]},
    )
    assert code == 0
    first, second, skill = found.items
    assert (first.set, first.kind, first.metric, first.expected) == (
        "mine",
        "task",
        "contains",
        "1",
    )
    assert [turn["role"] for turn in first.messages] == ["system", "user"]
    assert second.metric == "exact"
    assert (skill.set, skill.kind, skill.metric) == ("faits", "skill", "normalized")
    assert [turn["role"] for turn in skill.messages] == ["user"]


def test_all_bad_rows_are_named(ask):
    code, said = ask(
        row("a", "b", metric="bleu"),
        row("a", "(", metric="regex"),
        row("a", "{", metric="json_f1"),
        row("a", "no digit", metric="number"),
        {"instruction": "a"},
        row("fine", "yes"),
    )
    assert code == 2
    for part in (
        "jsonl:1",
        "Known: json_f1",
        "jsonl:2",
        "not a valid regular expression",
        "jsonl:3",
    ):
        assert part in said
    for part in ("jsonl:4", "contains none", "jsonl:5", "has no 'output'"):
        assert part in said
    assert "jsonl:6" not in said


def test_reasoning_before_an_expected_answer_is_no_part_of_it(ask):
    code, found = ask(row("a", "<think>\n5?\n</think>\n\n4"), row("b", "12"))
    assert code == 0
    assert [(item.expected, item.metric) for item in found.items] == [
        ("4", "number"),
        ("12", "number"),
    ]
    code, found = ask(row("a", "a </think>?", metric="regex"))
    assert (code, found.items[0].expected) == (0, "a </think>?")
    code, said = ask(row("a", "<think>4</think>"), row("b", "12", metric="exact"))
    assert code == 2
    assert "has an empty answer" in said


def test_a_folder_without_a_set_is_refused_and_other_files_are_passed_over(tmp_path):
    (tmp_path / "skills").mkdir()
    (tmp_path / "skills" / "notes.md").write_text("no rows")
    flags = ["--run", str(tmp_path), "--data", str(write(tmp_path / "d.jsonl", row("a", "b")))]
    request = QuestionsRequest(
        task="mine", metric=None, columns={}, system_prompt=None, drop_leaked=False
    )
    (tmp_path / paths.QUESTIONS_REQUEST).write_text(request.model_dump_json())
    flags += ["--skills", str(tmp_path / "skills")]
    code, events, _ = stage("trainer.questions", *flags)
    assert code == 2
    assert "the folder contains no evaluation sets" in str(events[-1]["problems"])
    write(tmp_path / "skills" / "faits.JSONL", row("Où ?", "ici"))
    code, _, log = stage("trainer.questions", *flags)
    assert code == 0, log
    assert [item.set for item in Questions.read(tmp_path / paths.QUESTIONS).items] == [
        "mine",
        "faits",
    ]


def test_a_row_that_was_trained_on_is_refused_by_name_or_dropped(ask, tmp_path):
    rows = (row("« Où est le CHAT ? »", "là"), row("Où est le chien ?", "ici"))
    code, said = ask(*rows, trained=[("Où est le chat ?", "là"), ("autre", "chose")])
    assert code == 2
    assert "jsonl:1" in said
    assert "t:1, word for word" in said
    assert "--drop-leaked" in said
    assert "jsonl:2" not in said


def test_rows_left_out_are_written_down(ask):
    rows = (row("Où est le chat ?", "là"), row("Où est le chien ?", "ici"))
    code, found = ask(*rows, trained=[("Où est le chat ?", "là")], drop_leaked=True)
    assert code == 0
    assert [item.expected for item in found.items] == ["ici"]
    assert [leak.trained_where for leak in found.dropped] == ["t:1"]


def test_a_task_that_was_trained_on_whole_cannot_be_asked(ask):
    code, said = ask(row("Où ?", "là"), trained=[("Où ?", "là")], drop_leaked=True)
    assert code == 2
    assert "all of its rows are in the training data" in said


def leaks(asked, *trained):
    rows = [QuestionText(f"t:{n}", text) for n, text in enumerate(trained, 1)]
    return [leak.overlap for leak in find_leaks([QuestionText("e:1", asked)], rows)]


def test_near_is_half_of_the_13_grams():
    words = LONG.split()
    other = " ".join(f"autre{n}" for n in range(40))
    assert leaks(LONG, LONG) == [None]
    assert leaks(LONG, LONG + " et une fin") == [1.0]
    assert leaks(" ".join(words[:30]) + " " + other[:40], LONG)[0] > 0.5
    assert leaks(" ".join(words[:20]) + " " + other, LONG) == []
    assert leaks(" ".join(words[:12]), LONG) == []
    assert leaks(other, LONG) == []


def test_a_tasks_own_instruction_is_no_leak():
    instruction = " ".join(f"consigne{n}" for n in range(30))
    trained = [f"{instruction}\n\nquestion {n}" for n in range(40)]
    assert leaks(f"{instruction}\n\nquestion neuve", *trained) == []
    # On one line with the question as well: many rows have it.
    assert leaks(f"{instruction} question neuve", *(f"{instruction} {n}" for n in range(40))) == []


TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def test_tools_and_calls_of_earlier_turns_are_part_of_the_question(ask):
    turns = [
        {"role": "user", "content": "Combien ?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "Trois."},
    ]
    code, found = ask({"messages": turns, "tools": [TOOL]})
    assert code == 0
    assert found.items[0].messages == turns[:-1]
    assert found.items[0].tools == [TOOL]
    assert found.items[0].expected == "Trois."
    assert ask.notes == []


def test_the_expected_answer_of_a_row_that_ends_with_a_call_is_the_call_as_json(ask):
    call = {
        "messages": [
            {"role": "user", "content": "Combien ?"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
        ]
    }
    code, found = ask(row("Un ?", "1"), call)
    assert code == 0
    assert [item.expected for item in found.items] == ["1", '[{"name":"f","arguments":{"x":1}}]']


def test_what_was_not_read_is_said_for_each_set(ask):
    code, _ = ask(
        row("Un ?", "1", id=1, metric="number", example="1"),
        row("Deux ?", "2", id=2, metric=None),
        skills={"faits": [row("Où ?", "ici", source="x", where="y")]},
    )
    assert code == 0
    assert ask.notes == [
        "à moi.jsonl: not read: id (2 rows)",
        "faits.jsonl: not read: source (1 row), where (1 row)",
    ]


def test_a_rows_example_is_kept_to_say_how_long_answers_are(ask):
    skill = row("Trois ?", "3", metric="number", example="1 + 2 = 3")
    code, found = ask(row("Un ?", "1"), row("Deux ?", "2", example=None), skills={"s": [skill]})
    assert code == 0
    assert [item.example for item in found.items] == [None, None, "1 + 2 = 3"]


def test_rows_that_were_held_out_are_read_without_a_word(ask):
    held_out = {
        "where": "d:3",
        "messages": messages("Un ?", "1"),
        "tools": [TOOL],
        "input_ids": [1, 2],
        "completion_mask": [0, 1],
        "prompt_ids": [1],
    }
    code, found = ask(held_out)
    assert code == 0
    assert found.items[0].tools == [TOOL]
    assert ask.notes == []


def test_columns_of_an_evaluation_set_are_renamed_not_mapped(ask):
    code, said = ask({"question": "Un ?", "answer": "1"})
    assert code == 2
    assert "Rename its columns: question to instruction, answer to output." in said
    assert "--set" not in said
