"""Whatever a row holds, it becomes a sound conversation or is refused with a sentence."""

import json
from collections import Counter
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract import exact_json
from contract.errors import UserError
from contract.evaluation import Item
from contract.exact_json import Number
from contract.row_forms import COLUMN_NAMES, BadRow, conversation_of
from tests.fuzz.documents import EXAMPLES, FUZZED
from trainer.prepare.reading import read_rows
from trainer.prepare.splitting import DatasetRow

pytestmark = pytest.mark.slow

# A row has more forms than anything else that people write.
ROWS = settings(FUZZED, max_examples=max(5000, EXAMPLES))


def written(value):
    """JSON with whatever a program may have put into it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(k)}: {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, date | bytes | Decimal):
        return json.dumps(str(value))
    if isinstance(value, Number):
        return value.text
    return json.dumps(value)


# Surrogates, NUL and all planes; and what means something to a reader.
texts = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=12),
    st.sampled_from(
        [
            *(
                "",
                " ",
                "A",
                "é🚀",
                "e\u0301",
                "\ud83d",
                "\0",
                "\ufeffx",
                "\u2028",
                "null",
                "[]",
                "{",
            ),
            *(
                "<s>[INST] Q [/INST] A </s>",
                "[INST] Q [/INST] <s>a</s> [INST]",
                "<think>r</think>A",
            ),
            '{"name": "f", "arguments": {"a": 2.50}}',
            '[{"name": "f", "arguments": "{\\"a\\": 1e400}"}]',
            '[{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]',
        ]
    ),
    # Not as a constant: hypothesis writes those into its messages.
    st.just("[").map(lambda bracket: bracket * 5000),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.decimals(),
    st.dates(),
    st.binary(max_size=3),
    texts,
    st.sampled_from([Number("2.50"), Number("-0"), 0, 1, 0.0]),
    st.just("9").map(lambda digit: Number(digit * 5000)),
)
keys = st.sampled_from(
    [
        *(*COLUMN_NAMES, "role", "content", "from", "value", "tool_calls", "function_call", "name"),
        *("function", "type", "arguments", "id", "text", "weight", "train", "loss", "thinking"),
        *("reasoning_content", "tool_call_id", "label", "chosen", "rejected", "images", "answer"),
        *("parameters", "functions", "question", "context", "train_detail", "kto_tag"),
    ]
)
names = st.one_of(keys, texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(names, inner, max_size=5),
    ),
    max_leaves=12,
)
# Mostly what stands there in earnest, so that rows are accepted, too.
words = st.sampled_from([*(["Q", "A", "Une réponse.", "🚀", " x\n"] * 5), "cut \ud83d", "a\0b"])


def mostly(usual):
    # one_of would take equal strategies for one.
    return st.sampled_from(range(12)).flatmap(lambda chance: usual if chance else values)


arguments = mostly(
    st.one_of(
        st.dictionaries(words, st.one_of(st.integers(), words, st.floats()), max_size=3),
        st.sampled_from(["{}", '{"a": [1, 2.50]}', "", None]),
    )
)
functions = st.fixed_dictionaries({"name": mostly(words), "arguments": arguments})
calls = mostly(
    st.lists(
        st.one_of(
            functions,
            st.fixed_dictionaries(
                {"function": functions}, optional={"type": st.just("function"), "id": mostly(words)}
            ),
        ),
        max_size=2,
    )
)
roles = mostly(
    st.sampled_from(
        ["user", "assistant", "assistant", "tool", "system", "human", "gpt", "function"]
    )
)
extras = {
    "tool_calls": calls,
    "function_call": mostly(st.one_of(st.none(), functions)),
    "weight": mostly(st.sampled_from([0, 1, 1.0, None])),
    "train": mostly(st.booleans()),
    "thinking": mostly(words),
    "tool_call_id": mostly(words),
    "name": mostly(words),
    "date": values,
}


def with_some_extras(turn):
    def extended(chosen):
        return st.fixed_dictionaries({**turn, **{name: extras[name] for name in chosen}})

    return st.sets(st.sampled_from(sorted(extras)), max_size=2).flatmap(extended)


turns = st.one_of(
    with_some_extras({"role": roles, "content": mostly(words)}),
    with_some_extras({"role": st.just("user"), "content": words}),
    with_some_extras({"role": st.just("assistant"), "content": words}),
    with_some_extras({"from": st.sampled_from(["human", "gpt"]), "value": words}),
    values,
)
user = st.fixed_dictionaries({"role": st.just("user"), "content": words})
assistant = with_some_extras({"role": st.just("assistant"), "content": words})
calling = st.fixed_dictionaries(
    {"role": st.just("assistant"), "tool_calls": st.lists(functions, min_size=1, max_size=2)},
    optional={"content": mostly(words)},
)
outcome = st.fixed_dictionaries({"role": st.just("tool"), "content": values})
conversations = mostly(
    st.one_of(
        st.lists(turns, max_size=5),
        st.tuples(user, turns, assistant).map(list),
        st.tuples(user, assistant).map(list),
        st.tuples(user, calling).map(list),
        st.tuples(user, calling, outcome, assistant).map(list),
        st.tuples(user, assistant).map(written),
    )
)
tools = mostly(
    st.one_of(
        st.none(),
        st.lists(
            st.fixed_dictionaries({"name": words, "parameters": mostly(arguments)}),
            min_size=1,
            max_size=2,
        ),
        st.just('[{"name": "f", "parameters": {"type": "object"}}]'),
    )
)
histories = mostly(st.lists(st.one_of(st.tuples(words, words), st.lists(words, max_size=3))))
sides = mostly(st.one_of(words, conversations))
more = st.one_of(st.just({}), st.dictionaries(names, values, max_size=3))
forms = st.one_of(
    st.fixed_dictionaries({"messages": conversations}, optional={"tools": tools, "system": words}),
    st.fixed_dictionaries({"conversations": conversations}, optional={"tools": tools}),
    st.fixed_dictionaries(
        {"instruction": sides, "output": sides},
        optional={"input": values, "history": histories, "system": mostly(words), "tools": tools},
    ),
    st.fixed_dictionaries({"prompt": sides, "completion": sides}, optional={"tools": tools}),
    st.fixed_dictionaries({"text": texts}),
    st.fixed_dictionaries({"instruction": words, "answer": sides}),
    st.fixed_dictionaries({"messages": conversations, "tools": tools}),
    st.fixed_dictionaries({"instruction": words, "output": words, "history": histories}),
    st.dictionaries(names, values, max_size=5),
)
rows = st.builds(
    lambda form, added, over: added | form if over else form | added, forms, more, st.booleans()
)
mappings: st.SearchStrategy[Any] = st.one_of(
    st.just({}),
    st.sampled_from(
        [{}, {}, {"output": "answer"}, {"messages": "conversations"}, {"output": "reponse"}]
    ),
    st.dictionaries(st.sampled_from(COLUMN_NAMES), names, max_size=2),
)


def check(conversation):
    messages = conversation.messages
    roles = [message["role"] for message in messages]
    assert set(roles) <= {"system", "user", "assistant", "tool"}
    assert roles[-1] == "assistant"
    assert "user" in roles
    assert "system" not in roles[1:]
    for message in messages:
        assert type(message["content"]) is str
        assert (
            message["content"].strip()
            or message["role"] in ("system", "tool")
            or message["tool_calls"]
        )
        assert message["role"] == "assistant" or not message.keys() & {
            "tool_calls",
            "reasoning_content",
        }
        for call in message.get("tool_calls", []):
            assert call["type"] == "function"
            assert call["function"]["name"]
            assert type(call["function"]["arguments"]) is dict
    for tool in conversation.tools:
        assert tool["type"] == "function"
        assert tool["function"]["name"]
    # An answer to learn comes last, and what is not learned is an answer.
    assert len(messages) - 1 not in conversation.unlearned
    assert all(roles[index] == "assistant" for index in conversation.unlearned)
    # All of it can be written, as JSON and as UTF-8, and is read again as the same.
    item = Item(
        **{"set": "s", "kind": "task", "where": "w", "expected": "e", "metric": "exact"},
        messages=messages,
        tools=conversation.tools,
    )
    assert Item.model_validate_json(item.model_dump_json()) == item
    text = json.dumps([messages, conversation.tools], ensure_ascii=False, allow_nan=False)
    assert json.loads(text.encode()) == [messages, conversation.tools]
    "".join(conversation.unread).encode()
    assert DatasetRow("w", conversation).question_digest


def test_every_row_is_a_sound_conversation_or_refused():
    outcomes = Counter()

    @ROWS
    @given(rows, mappings, st.sampled_from([None, "Sois bref."]))
    def fuzz(row, columns, system_prompt):
        try:
            conversation = conversation_of(row, columns, system_prompt)
        except BadRow as bad:
            f"{bad.what} {bad.remedy} {bad.remedy_without_flags}".encode()
            outcomes["refused"] += 1
        else:
            check(conversation)
            outcomes["read"] += 1
            outcomes["with calls"] += any("tool_calls" in m for m in conversation.messages)
            outcomes["with tools"] += bool(conversation.tools)
            outcomes["with context"] += bool(conversation.unlearned)
            outcomes["with unread keys"] += bool(conversation.unread)

    fuzz()
    # A fuzz that refuses nearly everything, or nothing, would prove little. How many there are of a
    # kind follows from all our code: hypothesis takes constants from it.
    assert outcomes["read"] > 1000, outcomes
    assert outcomes["refused"] > 1000, outcomes
    for kind in ("with calls", "with tools", "with context", "with unread keys"):
        assert outcomes[kind] > 5, outcomes


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=20,
)


@FUZZED
@given(json_values)
def test_json_is_written_as_it_was_read(value):
    text = json.dumps(value, ensure_ascii=False)
    assert exact_json.flaw(exact_json.loads(text)) is None
    assert exact_json.dumps(exact_json.loads(text)) == text
    assert exact_json.native(exact_json.loads(text)) == value


spoiled = st.sampled_from(
    [
        *("", "\0", "\ufeff", ",", '"', "}", "[" * 3000, "NaN", "Infinity", '{"a": 1, "a": 2}'),
        *("\\ud83d", "\\u0000", "\u2028", "\r", "\t", "-0", "1e999", "9" * 5000),
    ]
)


@st.composite
def lines(draw):
    line = written(draw(st.one_of(rows, rows, values)))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(line)))
        line = line[:at] + draw(spoiled) + line[at + draw(st.integers(0, 3)) :]
    return line.replace("\n", "")


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_every_line_is_a_row_or_a_named_problem(tmp_path, suffix):
    path = tmp_path / f"d.{suffix}"
    outcomes = Counter()

    @FUZZED
    @given(st.lists(lines(), min_size=1, max_size=4), st.binary(max_size=4), st.booleans())
    def fuzz(content, tail, with_tail):
        joined = ",\n".join(content) if suffix == "json" else "\n".join(content)
        joined = f"[{joined}]" if suffix == "json" else joined
        data = joined.encode() + (tail if with_tail else b"")
        path.write_bytes(data)
        problems = []
        try:
            found = list(read_rows(path, problems))
        except UserError as error:
            found, problems = [], error.problems
            outcomes["files"] += 1
        for problem in problems:
            assert problem.where.startswith(path.name)
            problem.model_dump_json().encode()
        if suffix == "jsonl" and (found or len(problems) > 1):
            text = data.decode("utf-8-sig")
            assert len(found) + len(problems) == sum(map(bool, map(str.strip, text.split("\n"))))
        for row in found:
            try:
                check(conversation_of(row.values, {}, None))
            except BadRow:
                outcomes["refused"] += 1
            else:
                outcomes["read"] += 1
        outcomes["problems"] += len(problems)

    fuzz()
    if suffix != "csv":
        assert outcomes["read"] > 20, outcomes
    if suffix == "jsonl":
        assert outcomes["problems"] > 500, outcomes
