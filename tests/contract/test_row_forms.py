"""Every form of row becomes the same conversation."""

import pytest

from contract.row_forms import BadRow, conversation_of

PLAIN = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
SYSTEM = {"role": "system", "content": "S"}


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Q", "output": "A"},
        {"instruction": "Q", "input": "", "output": "A"},
        {"instruction": "Q", "input": None, "output": "A"},
        {"instruction": "", "input": "Q", "output": "A"},
        {"prompt": "Q", "completion": "A"},
        {"prompt": PLAIN[:1], "completion": PLAIN[1:]},
        {"messages": PLAIN},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, PLAIN[1]]},
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
        {"conversations": PLAIN},
        {"text": "<s>[INST] Q [/INST] A </s>"},
        {"text": "[INST]Q[/INST]A"},
    ],
)
def test_every_form_of_a_question_and_an_answer(row):
    assert conversation_of(row, {}, None).messages == PLAIN


@pytest.mark.parametrize(
    "row",
    [
        {"system": "S", "instruction": "Q", "output": "A"},
        {"system": "S", "prompt": "Q", "completion": "A"},
        {"messages": [SYSTEM, *PLAIN]},
        {
            "system": "S",
            "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}],
        },
        {"text": "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nQ [/INST] A </s>"},
    ],
)
def test_every_form_of_a_system_turn(row):
    assert conversation_of(row, {}, None).messages == [SYSTEM, *PLAIN]
    assert conversation_of(row, {}, "ours").messages[0] == SYSTEM


def test_the_recipes_system_prompt_comes_first_where_a_row_has_none():
    assert conversation_of({"prompt": "Q", "completion": "A"}, {}, "S").messages == [SYSTEM, *PLAIN]


def test_input_stands_below_the_instruction():
    row = {"instruction": "Résume.", "input": "Un texte.", "output": "A"}
    assert conversation_of(row, {}, None).messages[0]["content"] == "Résume.\n\nUn texte."


def test_a_document_as_input_becomes_json():
    row = {"instruction": "I", "input": {"clé": [1, "é"]}, "output": {"ok": True}}
    question, answer = conversation_of(row, {}, None).messages
    assert question["content"] == 'I\n\n{"clé": [1, "é"]}'
    assert answer["content"] == '{"ok": true}'


def test_any_two_columns_through_a_mapping():
    row = {"question": "Q", "answer": "A", "text": "not this"}
    columns = {"instruction": "question", "output": "answer"}
    assert conversation_of(row, columns, None).messages == PLAIN


def test_legacy_text_of_several_turns():
    row = {"text": "<s>[INST] Q1 [/INST] A1 </s><s>[INST] Q2 [/INST] A2 </s>"}
    contents = [message["content"] for message in conversation_of(row, {}, None).messages]
    assert contents == ["Q1", "A1", "Q2", "A2"]


@pytest.mark.parametrize(
    ("row", "columns", "said", "remedy"),
    [
        ({"a": 1, "b": 2}, {}, "has no known form; its columns: a, b", "--set columns."),
        ({}, {}, "its columns: none", ""),
        ({"instruction": "Q"}, {}, "has no 'output'", ""),
        ({"instruction": "Q", "output": None}, {}, "has no 'output'", ""),
        ({"prompt": "Q"}, {}, "has no 'completion'", ""),
        ({"instruction": "Q", "output": "  "}, {}, "has an empty answer", ""),
        ({"instruction": "", "output": "A"}, {}, "has an empty question", ""),
        (
            {"qestion": "Q"},
            {"instruction": "question"},
            "no column 'question'",
            "Did you mean qestion?",
        ),
        ({"text": "just prose"}, {}, "has no [INST]", "instruction and output"),
        ({"text": "<s>[INST] Q [/INST] </s>"}, {}, "has an empty answer", ""),
        ({"messages": []}, {}, "messages is not a list of turns", ""),
        ({"messages": "Q"}, {}, "messages is not a list of turns", ""),
        ({"messages": [{"role": "user"}]}, {}, "turn 1 has no 'content'", ""),
        ({"messages": PLAIN[:1]}, {}, "ends with a user turn", ""),
        ({"messages": PLAIN[1:]}, {}, "has no user turn", ""),
        ({"messages": [*PLAIN, SYSTEM, *PLAIN]}, {}, "system turn after the first", ""),
        (
            {"messages": [{"role": "bot", "content": "x"}]},
            {},
            "has the unknown role 'bot'",
            "assistant",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}, PLAIN[1]]},
            {},
            "turn 1 contains something other than text",
            "",
        ),
    ],
)
def test_a_row_that_teaches_nothing_is_explained(row, columns, said, remedy):
    with pytest.raises(BadRow) as caught:
        conversation_of(row, columns, None)
    assert said in caught.value.what
    assert remedy in caught.value.remedy
