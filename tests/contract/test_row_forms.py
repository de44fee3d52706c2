"""Every form of row becomes the same conversation, and nothing that changes its meaning is lost."""

import json
from datetime import date
from decimal import Decimal

import pytest

from contract.exact_json import Number, loads
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
        (
            {"instruction": "I", "context": "C", "response": "R", "category": "x"},
            {},
            "has no 'output'; its columns: instruction, context, response, category",
            "--set columns.input=context --set columns.output=response.",
        ),
        (
            {"system": "S", "instruction": "I", "input": "D", "réponse": "A"},
            {},
            "its columns: system, instruction, input, réponse",
            '--set "columns.output=réponse".',
        ),
        (
            {"id": 3, "question": "Q", "answer": "A"},
            {},
            "has no known form; its columns: id, question, answer",
            "--set columns.instruction=question --set columns.output=answer.",
        ),
        ({"prompt": "Q", "response": "A"}, {}, "has no", "--set columns.completion=response."),
        ({"dialogue": PLAIN}, {}, "has no known form", "--set columns.messages=dialogue."),
        (
            {"instruction": "Q", "the answer": "A"},
            {"output": "the answers"},
            "has no column 'the answers'",
            "Did you mean the answer?",
        ),
        (
            {"messages": PLAIN, "a": "A"},
            {"output": "a"},
            "has no 'instruction'",
            "",
        ),
        (
            {"q": "Q", "a": "A"},
            {"instruction": "q", "completion": "a"},
            "no form has the columns instruction, completion together",
            "",
        ),
        ({"instruction": "Q"}, {}, "has no 'output'", ""),
        ({"instruction": "Q", "output": float("nan")}, {}, "has no 'output'", ""),
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
            "remove such rows",
        ),
    ],
)
def test_a_row_that_teaches_nothing_is_explained(row, columns, said, remedy):
    with pytest.raises(BadRow) as caught:
        conversation_of(row, columns, None)
    assert said in caught.value.what
    assert remedy in caught.value.remedy


TOOL: dict = {
    "type": "function",
    "function": {
        "name": "lire_stock",
        "description": "Stock d'un dépôt",
        "parameters": {"type": "object", "properties": {"depot": {"type": "string"}}},
    },
}
BARE_TOOL: dict = TOOL["function"]
ARGUMENTS = {"depot": "Lyon", "rayon": 0}
CALL = {"type": "function", "function": {"name": "lire_stock", "arguments": ARGUMENTS}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
ASKED = [PLAIN[0], CALLING, {"role": "tool", "content": '{"reste": 0}'}, PLAIN[1]]


@pytest.mark.parametrize("column", ["tools", "functions"])
@pytest.mark.parametrize(
    "tools",
    [
        [TOOL],
        [BARE_TOOL],
        BARE_TOOL,
        json.dumps([BARE_TOOL]),
        json.dumps(TOOL, indent=1),
        [json.dumps(BARE_TOOL)],
        [{"function": BARE_TOOL}],
        [{"type": "function", **BARE_TOOL}],
        [
            {
                **{k: v for k, v in BARE_TOOL.items() if k != "parameters"},
                "input_schema": BARE_TOOL["parameters"],
            }
        ],
    ],
)
def test_every_form_of_tools(tools, column):
    for row in (
        {"messages": PLAIN},
        {"conversations": PLAIN},
        {"instruction": "Q", "output": "A"},
        {"prompt": "Q", "completion": "A"},
    ):
        read = conversation_of({**row, column: tools}, {}, None)
        assert read.tools == [TOOL]
        assert read.messages == PLAIN
        assert read.unread == frozenset()


@pytest.mark.parametrize("tools", [None, [], "", "[]", float("nan")])
def test_a_row_may_have_no_tools(tools):
    read = conversation_of({"messages": PLAIN, "tools": tools}, {}, None)
    assert (read.tools, read.unread) == ([], frozenset())


@pytest.mark.parametrize(
    ("given", "content"),
    [
        ({"content": "Je regarde.", "tool_calls": [CALL]}, "Je regarde."),
        ({"content": None, "tool_calls": [CALL]}, ""),
        ({"tool_calls": [CALL]}, ""),
        ({"content": "", "tool_calls": json.dumps([CALL])}, ""),
        ({"tool_calls": [CALL["function"]], "function_call": None}, ""),
        (
            {
                "tool_calls": [
                    {"function": {"name": "lire_stock", "arguments": json.dumps(ARGUMENTS)}}
                ]
            },
            "",
        ),
        ({"tool_calls": [{"name": "lire_stock", "parameters": ARGUMENTS}]}, ""),
        (
            {
                "content": None,
                "function_call": {"name": "lire_stock", "arguments": json.dumps(ARGUMENTS)},
            },
            "",
        ),
    ],
)
def test_every_form_of_a_call(given, content):
    row = {"messages": [PLAIN[0], {"role": "assistant", **given}]}
    expected = {"role": "assistant", "content": content, "tool_calls": [CALL]}
    read = conversation_of(row, {}, None)
    assert read.messages == [PLAIN[0], expected]
    assert read.unread == frozenset()


def test_ids_and_names_join_a_call_and_its_outcome():
    call = {**CALL, "id": "c0"}
    outcome = {"role": "tool", "tool_call_id": "c0", "name": "lire_stock", "content": "12"}
    messages = [PLAIN[0], {**CALLING, "tool_calls": [call]}, outcome, PLAIN[1]]
    assert conversation_of({"messages": messages}, {}, None).messages == messages


@pytest.mark.parametrize("arguments", ["", None, {}, "{}"])
def test_a_call_may_have_no_arguments(arguments):
    call = {"name": "maintenant", "arguments": arguments}
    row = {"messages": [PLAIN[0], {"role": "assistant", "tool_calls": [call]}]}
    called = conversation_of(row, {}, None).messages[1]["tool_calls"][0]["function"]
    assert called == {"name": "maintenant", "arguments": {}}


@pytest.mark.parametrize(
    "turns",
    [
        [PLAIN[0], CALLING, {"role": "tool", "content": {"reste": 0}}, PLAIN[1]],
        [PLAIN[0], CALLING, {"role": "tool_response", "content": '{"reste": 0}'}, PLAIN[1]],
        [
            PLAIN[0],
            {"role": "tool_call", "content": json.dumps(CALL["function"])},
            ASKED[2],
            PLAIN[1],
        ],
    ],
)
def test_every_form_of_a_call_between_turns(turns):
    assert conversation_of({"messages": turns}, {}, None).messages == ASKED


def test_sharegpts_calls_and_observations():
    row = {
        "conversations": [
            {"from": "human", "value": "Q"},
            {"from": "function_call", "value": json.dumps(CALL["function"])},
            {"from": "observation", "value": '{"reste": 0}'},
            {"from": "gpt", "value": "A"},
        ],
        "system": "S",
        "tools": json.dumps([BARE_TOOL]),
    }
    read = conversation_of(row, {}, None)
    assert read.messages == [SYSTEM, *ASKED]
    assert read.tools == [TOOL]


def test_text_before_calls_and_calls_in_a_row_are_one_turn():
    call = json.dumps(CALL["function"])
    turns = [("human", "Q"), ("gpt", "Voyons."), ("function_call", call), ("function_call", call)]
    row = {"conversations": [{"from": role, "value": text} for role, text in turns]}
    assert conversation_of(row, {}, None).messages[1:] == [
        {"role": "assistant", "content": "Voyons.", "tool_calls": [CALL, CALL]}
    ]


def test_the_role_function_is_a_tools_outcome():
    turns = [
        PLAIN[0],
        {"role": "assistant", "content": None, "function_call": CALL["function"]},
        {"role": "function", "name": "lire_stock", "content": '{"reste": 0}'},
        PLAIN[1],
    ]
    named = {**ASKED[2], "name": "lire_stock"}
    assert conversation_of({"messages": turns}, {}, None).messages == [
        *ASKED[:2],
        named,
        PLAIN[1],
    ]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_is_kept_apart_from_the_answer(key):
    row = {"messages": [PLAIN[0], {**PLAIN[1], key: "Deux et deux."}]}
    read = conversation_of(row, {}, None)
    assert read.messages[1] == {**PLAIN[1], "reasoning_content": "Deux et deux."}
    assert read.unread == frozenset()


def test_reasoning_in_the_text_stays_there():
    answer = "<think>\nDeux et deux.\n</think>\n\n4"
    read = conversation_of({"instruction": "Q", "output": answer}, {}, None)
    assert read.messages[1] == {"role": "assistant", "content": answer}


FOUR = [*PLAIN, {"role": "user", "content": "Q2"}, {"role": "assistant", "content": "A2"}]


@pytest.mark.parametrize("mark", [{"weight": 0}, {"weight": 0.0}, {"weight": Number("0.00")}])
def test_an_answer_of_weight_0_is_context(mark):
    turns = [FOUR[0], {**FOUR[1], **mark}, FOUR[2], {**FOUR[3], "weight": 1}]
    read = conversation_of({"messages": turns}, {}, "S")
    assert read.messages == [SYSTEM, *FOUR]
    assert read.unlearned == {2}
    assert read.unread == frozenset()


@pytest.mark.parametrize("key", ["train", "training", "loss"])
def test_other_names_for_weight(key):
    turns = [{"from": "human", "value": "Q", key: False}, {"from": "gpt", "value": "A", key: False}]
    turns += [{"from": "human", "value": "Q2"}, {"from": "gpt", "value": "A2", key: True}]
    read = conversation_of({"conversations": turns}, {}, None)
    assert (read.messages, read.unlearned) == (FOUR, {1})


def test_answers_after_the_last_learned_one_are_cut_off():
    turns = [FOUR[0], FOUR[1], FOUR[2], {**FOUR[3], "weight": 0}]
    read = conversation_of({"messages": turns}, {}, None)
    assert (read.messages, read.unlearned) == (PLAIN, frozenset())


HISTORY = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    "history",
    [
        [["q", "a"]],
        [("q", "a")],
        '[["q", "a"]]',
        [{"instruction": "q", "output": "a"}],
        [{"prompt": "q", "completion": "a"}],
        HISTORY,
    ],
)
def test_every_form_of_earlier_turns(history):
    for row in ({"instruction": "Q", "output": "A"}, {"prompt": "Q", "completion": "A"}):
        read = conversation_of({**row, "system": "S", "history": history}, {}, None)
        assert read.messages == [SYSTEM, *HISTORY, *PLAIN]
        assert (read.unlearned, read.unread) == (frozenset(), frozenset())


@pytest.mark.parametrize("history", [None, [], "", float("nan")])
def test_a_row_may_have_no_earlier_turns(history):
    row = {"instruction": "Q", "output": "A", "history": history}
    assert conversation_of(row, {}, None).messages == PLAIN


@pytest.mark.parametrize("completion", ["A", PLAIN[1], PLAIN[1:]])
@pytest.mark.parametrize("prompt", ["Q", PLAIN[0], PLAIN[:1]])
def test_a_side_may_be_text_or_turns(prompt, completion):
    assert conversation_of({"prompt": prompt, "completion": completion}, {}, None).messages == PLAIN
    assert conversation_of({"instruction": prompt, "output": completion}, {}, None).messages == (
        PLAIN
    )


def test_a_prompt_of_turns_and_an_answer_as_text():
    row = {"prompt": [SYSTEM, *HISTORY, PLAIN[0]], "completion": "A"}
    read = conversation_of(row, {}, "not this")
    assert read.messages == [SYSTEM, *HISTORY, *PLAIN]
    # What is given is not learned.
    assert read.unlearned == {2}


def test_turns_as_json_text_are_turns():
    assert conversation_of({"messages": json.dumps(PLAIN)}, {}, None).messages == PLAIN


def test_common_synonyms_of_roles():
    turns = [
        {"role": "developer", "content": "S"},
        PLAIN[0],
        {"role": "model", "content": "A"},
    ]
    assert conversation_of({"messages": turns}, {}, None).messages == [SYSTEM, *PLAIN]


def test_a_system_column_beside_messages_is_the_system_turn():
    assert conversation_of({"system": "S", "messages": PLAIN}, {}, "no").messages == [
        SYSTEM,
        *PLAIN,
    ]
    same = {"system": "S", "messages": [SYSTEM, *PLAIN]}
    assert conversation_of(same, {}, None).messages == [SYSTEM, *PLAIN]


@pytest.mark.parametrize(
    ("row", "unread"),
    [
        ({"id": 7, "instruction": "Q", "output": "A"}, {"id"}),
        ({"id": None, "tags": [], "note": "", "x": float("nan"), "messages": PLAIN}, set()),
        ({"instruction": "Q", "output": "A", "messages": PLAIN}, {"instruction", "output"}),
        ({"messages": PLAIN, "tool_choice": "auto", "label": True}, {"tool_choice"}),
        (
            {"messages": [{**PLAIN[0], "date": "x"}, {**PLAIN[1], "name": "Bob", "refusal": None}]},
            {"messages[].date", "messages[].name"},
        ),
        (
            {
                "messages": [
                    PLAIN[0],
                    {"role": "assistant", "tool_calls": [{**CALL, "index": 1}]},
                ]
            },
            {"messages[].tool_calls[].index"},
        ),
        (
            {
                "prompt": [{"role": "user", "content": [{"type": "text", "text": "Q", "k": 1}]}],
                "completion": "A",
            },
            {"prompt[].content[].k"},
        ),
        (
            {
                "instruction": "Q",
                "output": "A",
                "history": [{"prompt": "q", "response": "a", "z": 1}],
            },
            {"history[].z"},
        ),
        ({"instruction": "Q", "output": "A", "label": False}, {"label"}),
        ({"text": "[INST]Q[/INST]A", "system": "S"}, {"system"}),
    ],
)
def test_what_was_not_read_is_listed(row, unread):
    assert conversation_of(row, {}, None).unread == unread


def test_a_named_column_leaves_the_others_as_they_are_called():
    row = {"system": "S", "instruction": "I", "input": "D", "reponse": "A", "id": 1}
    read = conversation_of(row, {"output": "reponse"}, None)
    assert read.messages == [
        SYSTEM,
        {"role": "user", "content": "I\n\nD"},
        {"role": "assistant", "content": "A"},
    ]
    assert read.unread == {"id"}


def test_a_named_column_wins_over_one_of_that_name_which_is_listed():
    row = {"instruction": "not this", "question": "Q", "output": "A"}
    read = conversation_of(row, {"instruction": "question"}, None)
    assert (read.messages, read.unread) == (PLAIN, {"instruction"})
    swapped = {"instruction": "A", "output": "Q"}
    read = conversation_of(swapped, {"instruction": "output", "output": "instruction"}, None)
    assert (read.messages, read.unread) == (PLAIN, frozenset())


def test_a_named_column_decides_the_form():
    row = {"prompt": "Q", "chosen": "A", "rejected": "B", "messages": FOUR}
    read = conversation_of(row, {"completion": "chosen"}, None)
    assert (read.messages, read.unread) == (PLAIN, {"rejected", "messages"})


def test_keys_of_turns_are_listed_under_the_columns_own_name():
    row = {"dialogue": [{**PLAIN[0], "date": 1}, PLAIN[1]]}
    assert conversation_of(row, {"messages": "dialogue"}, None).unread == {"dialogue[].date"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((loads(number), number) for number in ("2.50", "1e-05", "-0", "1.0", "10", "true")),
        (
            loads('{"prix": 2.50, "n": [1e-05, true, null]}'),
            '{"prix": 2.50, "n": [1e-05, true, null]}',
        ),
        (True, "true"),
        (2.5, "2.5"),
        (Decimal("2.50"), "2.50"),
        (date(2026, 2, 3), "2026-02-03"),
        ({"le": date(2026, 2, 3)}, '{"le": "2026-02-03"}'),
    ],
)
def test_values_stand_as_in_the_file(value, text):
    question, answer = conversation_of({"instruction": value, "output": value}, {}, None).messages
    assert question["content"] == answer["content"] == text


def test_5000_digits_are_read_as_digits():
    digits = "1" + "0" * 4999
    row = {"instruction": "Écris.", "output": loads(digits)}
    assert conversation_of(row, {}, None).messages[1]["content"] == digits


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("<s>[INST] Q [/INST] De <s>120</s> à 99 </s>", ["De <s>120</s> à 99"]),
        ("[INST] Q [/INST] <s>120</s> 99</s><s>[INST] Q [/INST] B", ["<s>120</s> 99", "B"]),
        ("<s>[INST] Q [/INST] A</s>[INST] Q [/INST] B</s>", ["A", "B"]),
        ("<s>[INST] Q [/INST] A </s>\n<s> [INST] Q [/INST] B </s>\n", ["A", "B"]),
    ],
)
def test_markers_inside_an_answer_do_not_cut_it(text, answers):
    messages = conversation_of({"text": text}, {}, None).messages
    assert [turn["content"] for turn in messages if turn["role"] == "assistant"] == answers


def turns(*answers, **more):
    return {
        "messages": [PLAIN[0], *({"role": "assistant", **answer} for answer in answers)],
        **more,
    }


@pytest.mark.parametrize(
    ("row", "said", "remedy"),
    [
        # Tools and calls.
        ({"messages": PLAIN, "tools": "def f(): ..."}, "tools is not valid JSON", ""),
        ({"messages": PLAIN, "tools": 3}, "tools is not a list of functions", "JSON schema"),
        ({"messages": PLAIN, "tools": [3]}, "tools: function 1 is not an object", "JSON schema"),
        ({"messages": PLAIN, "tools": [{"type": "retrieval"}]}, "the type 'retrieval'", ""),
        ({"messages": PLAIN, "tools": [{"type": "function"}]}, "function 1 has no name", ""),
        (
            {"messages": PLAIN, "tools": [{"type": "custom", "name": "f"}]},
            "tools: function 1 has the type 'custom'",
            "",
        ),
        ({"messages": PLAIN, "tools": [TOOL], "functions": [TOOL]}, "tools and functions", ""),
        (
            turns({"tool_calls": [{"name": "f", "arguments": "[1]"}]}),
            "are not an object",
            "call is",
        ),
        (turns({"tool_calls": [{"name": "f", "arguments": "{"}]}), "f is not valid JSON", ""),
        (
            turns({"tool_calls": [{"name": "f", "arguments": '{"a": 1, "a": 2}'}]}),
            "the key 'a' twice",
            "",
        ),
        (
            turns({"tool_calls": [{"name": "f", "arguments": '{"a": "\\ud83d"}'}]}),
            "half a character",
            "",
        ),
        (
            turns({"tool_calls": [{"name": "f", "arguments": '{"a": 1e400}'}]}),
            "more digits than are kept",
            "Write it as a text.",
        ),
        (turns({"tool_calls": [{"arguments": {}}]}), "a call without a name", ""),
        (turns({"tool_calls": "f(x)"}), "tool_calls is not valid JSON", ""),
        (turns({"tool_calls": [{"type": "custom", "name": "f"}]}), "the type 'custom'", ""),
        (turns({"tool_calls": [CALL], "function_call": CALL["function"]}), "function_call", ""),
        ({"messages": [{**PLAIN[0], "tool_calls": [CALL]}, PLAIN[1]]}, "is a user turn", ""),
        ({"messages": [{**PLAIN[0], "tools": [TOOL]}, PLAIN[1]]}, "turn 1 has tools", "the row's"),
        (turns({"content": "A", "function_calls": "f()"}), "function_calls", "to tool_calls"),
        (
            {
                "conversations": [
                    {"from": "human", "value": "Q"},
                    {"from": "function_call", "value": "f"},
                ]
            },
            "is not valid JSON",
            "",
        ),
        # Reasoning.
        (turns({**PLAIN[1], "thinking": "a", "reasoning": "b"}), "has reasoning twice", ""),
        (turns({**PLAIN[1], "thinking": ["a"]}), "thinking is not a text", ""),
        (turns({"content": "", "reasoning_content": "r"}), "has an empty answer", ""),
        # Weights.
        (turns({**PLAIN[1], "weight": 0.5}), "has the weight 0.5", "Use 1, or 0"),
        (turns({**PLAIN[1], "weight": "1"}), "has the weight 1", "Use 1, or 0"),
        (turns({**PLAIN[1], "weight": 0}), "no answer to learn", ""),
        (turns({**PLAIN[1], "weight": 1, "train": False}), "contradict each other", ""),
        ({"messages": [{**PLAIN[0], "weight": 1}, PLAIN[1]]}, "is a user turn with weight 1", ""),
        (
            {"messages": [{**PLAIN[0], "train": True}, PLAIN[1]]},
            "is a user turn with train true",
            "",
        ),
        (turns({**PLAIN[1], "train_detail": [{"begin_offset": 0}]}), "marks parts of a turn", ""),
        # What is no text.
        (
            {"instruction": "Q", "output": "A", "images": ["a.png"]},
            "has images",
            "the column images",
        ),
        ({"messages": PLAIN, "image": {"bytes": b"x"}}, "has image", ""),
        ({"messages": [{**PLAIN[0], "images": ["x"]}, PLAIN[1]]}, "turn 1 has images", ""),
        ({"instruction": "Q", "output": b"A"}, "output contains bytes", ""),
        ({"instruction": "Q", "output": float("inf")}, "output contains an infinite number", ""),
        (turns({"content": {"ok": True}}), "contains something other than text", ""),
        # Answers that are not to be learned.
        (
            {"prompt": "Q", "chosen": "A", "rejected": "B"},
            "a preferred and a rejected answer",
            "--set columns.completion=chosen.",
        ),
        (
            {"prompt": PLAIN[:1], "chosen": PLAIN[1:], "rejected": PLAIN[1:]},
            "",
            "completion=chosen.",
        ),
        ({"prompt": "Q", "chosen": PLAIN, "rejected": PLAIN}, "", "--set columns.messages=chosen."),
        ({"chosen": PLAIN, "rejected": PLAIN}, "", "--set columns.messages=chosen."),
        ({"messages": PLAIN, "chosen": PLAIN, "rejected": PLAIN}, "", "columns.messages=chosen."),
        ({"instruction": "Q", "chosen": "A", "rejected": "B"}, "", "--set columns.output=chosen."),
        (
            {"system": "S", "question": "Q", "chosen": "A", "rejected": "B"},
            "",
            "--set columns.instruction=question --set columns.output=chosen.",
        ),
        (
            {"conversations": PLAIN[:1], "chosen": PLAIN[1], "rejected": PLAIN[1]},
            "",
            "keep the preferred answer alone, as the last turn",
        ),
        ({"messages": PLAIN, "rejected_response": "B"}, "", "--set columns.messages=messages."),
        ({"prompt": "Q", "completion": "A", "label": False}, "label false", "remove such rows"),
        ({"messages": PLAIN, "label": False}, "label false", ""),
        ({"instruction": "Q", "output": "A", "kto_tag": False}, "kto_tag false", ""),
        # Sides and earlier turns.
        ({"prompt": PLAIN, "completion": "A"}, "prompt ends with an assistant turn", "completion"),
        (
            {"instruction": [SYSTEM, PLAIN[0]], "input": "D", "output": "A"},
            "has input beside turns",
            "",
        ),
        (
            {"instruction": "Q", "output": "A", "history": [["q"]]},
            "turn 1 is not a question",
            "pairs",
        ),
        ({"instruction": "Q", "output": "A", "history": [["q", None]]}, "turn 1 is not", ""),
        (
            {"instruction": "Q", "output": "A", "history": "earlier"},
            "history is not valid JSON",
            "",
        ),
        ({"instruction": "Q", "output": "A", "history": [["q", " "]]}, "an empty answer", ""),
        ({"system": "T", "messages": [SYSTEM, *PLAIN]}, "and another one in system", ""),
        # Llama 2's text.
        ({"text": "[INST] Q [/INST] de <s>120</s>"}, "turn 1 has markers", "Use messages"),
        ({"text": "[INST] Q [/INST] a </s> b"}, "turn 1 has markers", ""),
        ({"text": "[INST] Q [/INST] a [INST] b [/INST] c"}, "turn 1 has markers", ""),
        ({"text": "[INST] Q [/INST] a </s><s>[INST] b"}, "turn 2 has markers", ""),
        ({"text": "Règle. [INST] Q [/INST] a"}, "before its first [INST]", ""),
        (
            {"text": "[INST] Q [/INST] a</s><s>[INST] <<SYS>>s<</SYS>>b [/INST] c"},
            "system turn",
            "",
        ),
        # Half characters and the like.
        ({"instruction": "Q", "output": "A \ud83d"}, "output: contains half a character", "emoji"),
        ({"instruction": "Q", "output": "A", "id": "\ud83d"}, "id: contains half a character", ""),
        ({"instruction": "Q", "output": "A\0B"}, "output: contains the character NUL", ""),
    ],
)
def test_what_would_change_the_meaning_is_refused_with_its_remedy(row, said, remedy):
    with pytest.raises(BadRow) as caught:
        conversation_of(row, {}, None)
    assert said in caught.value.what
    assert remedy in caught.value.remedy


def test_a_remedy_without_flags_renames_columns():
    with pytest.raises(BadRow) as caught:
        conversation_of({"instruction": "I", "context": "C", "response": "R"}, {}, None)
    assert caught.value.remedy_without_flags == (
        "Rename its columns: context to input, response to output."
    )


def test_a_system_prompt_stands_before_what_is_left():
    row = {"messages": [*PLAIN, {"role": "user", "content": "x"}, {**PLAIN[1], "weight": 0}]}
    assert conversation_of(row, {}, "S").messages == [SYSTEM, *PLAIN]
