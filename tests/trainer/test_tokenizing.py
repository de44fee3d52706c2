"""The loss falls on the answers alone, and the prompt is what a server will receive."""

import pytest

from contract.conversation import Conversation
from contract.row_forms import BadRow
from tests.tokenizing import tokenize as tokenized
from trainer.chat import render
from trainer.chat_template import chat_format
from trainer.prepare.answers import needs_template_engine
from trainer.prepare.tokenizing import Tokens

CHAT = [
    {"role": "system", "content": "Réponds en JSON."},
    {"role": "user", "content": "Un, deux ?"},
    {"role": "assistant", "content": '{"a": 1}'},
    {"role": "user", "content": "Et trois ? 🎯"},
    {"role": "assistant", "content": '{"é": [2, 3]}'},
]


def settled(tokenizer, *, thinking="auto", reasoning=False):
    """The settled format; the tokenizer has its template from here on."""
    found = chat_format(tokenizer, [], thinking=thinking, reasoning_in_data=reasoning)
    tokenizer.chat_template = found.template
    return found


def tokenize(tokenizer, messages, **settings):
    return tokenized(tokenizer, settled(tokenizer, **settings), Conversation(messages))


def learned(tokenizer, tokens):
    """The learned stretches as text, one for each run of ones in the mask."""
    stretches, current = [], []
    for token, bears_loss in zip(tokens.input_ids, tokens.completion_mask, strict=True):
        if bears_loss:
            current.append(token)
        elif current:
            stretches.append(tokenizer.decode(current))
            current = []
    return [*stretches, *([tokenizer.decode(current)] if current else [])]


def test_the_ids_are_those_of_the_conversation_up_to_its_last_end(tokenizer):
    (tokens,) = tokenize(tokenizer, CHAT)
    whole = render(tokenizer, CHAT, add_generation_prompt=False)
    assert tokenizer.decode(tokens.input_ids) == whole.removesuffix("\n")


def test_each_answer_and_its_end_are_learned_and_nothing_else(tokenizer):
    (tokens,) = tokenize(tokenizer, CHAT)
    assert learned(tokenizer, tokens) == ['{"a": 1}<|im_end|>', '{"é": [2, 3]}<|im_end|>']


def test_the_prompt_is_all_before_the_last_answer(tokenizer):
    (tokens,) = tokenize(tokenizer, CHAT)
    assert tokenizer.decode(tokens.prompt_ids) == render(
        tokenizer, CHAT[:-1], add_generation_prompt=True
    )
    assert tokens.input_ids[: len(tokens.prompt_ids)] == tokens.prompt_ids


def test_no_bos_is_doubled(tokenizer):
    (tokens,) = tokenize(tokenizer, CHAT)
    assert tokens.input_ids.count(tokenizer.bos_token_id) == 0


def test_a_turn_of_weight_0_is_context(tokenizer):
    conversation = Conversation(CHAT, unlearned=frozenset([2]))
    (tokens,) = tokenized(tokenizer, settled(tokenizer), conversation)
    assert learned(tokenizer, tokens) == ['{"é": [2, 3]}<|im_end|>']


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The way of templates that rewrite earlier turns when the conversation goes on.
SHORTENED = CHATML.replace(
    "{{ m.content }}",
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content[:-1] }}{{ m.content[-1:] }} "
    "{% else %}{{ m.content }}{% endif %}",
)
# Mistral Nemo's way: the system turn stands before the last question, where a prompt follows.
SYSTEM_LAST = (
    "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>"
    "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}"
    "{{ m.content }}{% elif m.role == 'assistant' %}{{ m.content }}<|im_end|>{% endif %}"
    "{% endfor %}"
)


@pytest.mark.parametrize("template", [SHORTENED, SYSTEM_LAST])
def test_where_the_past_is_rewritten_each_answer_is_a_row_behind_its_own_prompt(
    with_template, template
):
    tokenizer = with_template(template)
    rows = tokenize(tokenizer, CHAT)
    assert [learned(tokenizer, row) for row in rows] == [
        ['{"a": 1}<|im_end|>'],
        ['{"é": [2, 3]}<|im_end|>'],
    ]
    for row, end in zip(rows, (2, 4), strict=True):
        prompt = render(tokenizer, CHAT[:end], add_generation_prompt=True)
        assert tokenizer.decode(row.prompt_ids) == prompt
        assert "Réponds en JSON." in prompt
        assert row.input_ids[: len(row.prompt_ids)] == row.prompt_ids


ASKED = {"role": "user", "content": "2 + 5 ?"}
# R1's way: reasoning is cut out of what was said, and every prompt opens a block.
OPENS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "{{ m.content.split('</think>')[-1] }}<|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def test_reasoning_is_learned_where_the_prompt_opens_it(with_template):
    tokenizer = with_template(OPENS)
    said = {"role": "assistant", "content": "<think>\nDeux et cinq.\n</think>\n\n7"}
    (row,) = tokenize(tokenizer, [ASKED, said], reasoning=True)
    assert tokenizer.decode(row.prompt_ids).endswith("assistant\n<think>\n")
    assert learned(tokenizer, row) == ["Deux et cinq.\n</think>\n\n7<|im_end|>"]


def test_without_reasoning_in_the_data_the_block_is_closed_in_the_prompt(with_template):
    tokenizer = with_template(OPENS)
    (row,) = tokenize(tokenizer, [ASKED, {"role": "assistant", "content": "7"}])
    assert tokenizer.decode(row.prompt_ids).endswith("assistant\n<think>\n\n</think>\n\n")
    assert learned(tokenizer, row) == ["7<|im_end|>"]


@pytest.mark.parametrize(
    ("template", "message", "settings", "said"),
    [
        (CHATML, {"content": "7", "reasoning_content": "2 et 5"}, {}, "does not write"),
        (
            OPENS,
            {"content": "7", "reasoning_content": "2 et 5"},
            {"thinking": "off"},
            "to be served without it",
        ),
        (CHATML, {"content": "a<|im_end|>b"}, {}, "has <|im_end|> inside an answer"),
        (
            CHATML,
            {
                "content": "",
                "tool_calls": [
                    {"type": "function", "function": {"name": "f", "arguments": {"x": "Lyon"}}}
                ],
            },
            {},
            "calls tools in a way that the base's chat template does not write",
        ),
        (
            CHATML.replace(
                "{{ m.content }}", "{{ 'Bot: ' if m.role == 'assistant' }}{{ m.content }}"
            ),
            {"content": "7"},
            {},
            "writes words of its own: 'Bot:",
        ),
    ],
)
def test_what_a_template_cannot_write_is_refused(with_template, template, message, settings, said):
    tokenizer = with_template(template)
    with pytest.raises(BadRow) as caught:
        tokenize(tokenizer, [ASKED, {"role": "assistant", **message}], **settings)
    assert said in caught.value.what


@pytest.mark.parametrize(
    ("messages", "tools", "said"),
    [
        ([ASKED], [{"type": "function", "function": {"name": "read_stock"}}], "tool read_stock"),
        ([{"role": "system", "content": "Bref."}, ASKED], [], "turn 1 (system)"),
    ],
)
def test_what_a_template_drops_of_the_past_is_refused(with_template, messages, tools, said):
    template = CHATML.replace(
        "{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"
    )
    tokenizer = with_template(template)
    conversation = Conversation([*messages, {"role": "assistant", "content": "7"}], tools=tools)
    with pytest.raises(BadRow) as caught:
        tokenized(tokenizer, settled(tokenizer), conversation)
    assert said in caught.value.what


def test_an_answer_that_begins_as_its_prompt_ends_keeps_the_prompts_tokens(tokenizer):
    said = [ASKED, {"role": "assistant", "content": "\n\nsept"}]
    (row,) = tokenize(tokenizer, said)
    assert row.input_ids[: len(row.prompt_ids)] == row.prompt_ids
    assert learned(tokenizer, row) == ["\n\nsept<|im_end|>"]


def test_dates_and_switches_are_frozen(with_template):
    tokenizer = with_template(
        "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}"
        '{% endif %}{{ date_string }} {{ strftime_now("%Y") }}'
        "{{ ' keeps' if preserve_thinking }}{{ ' thinks' if enable_thinking }}" + CHATML
    )
    settled(tokenizer, thinking="off")
    told = {"date_string": "1 Jan 2030", "enable_thinking": True, "preserve_thinking": True}
    text = tokenizer.apply_chat_template([ASKED], tokenize=False, **told)
    assert text.startswith("26 Jul 2024 2024<|im_start|>")


def test_the_end_of_a_turn_is_the_templates_and_then_the_tokenizers(with_template):
    tokenizer = with_template(CHATML)
    eos = tokenizer.eos_token
    try:
        tokenizer.eos_token = "<|endoftext|>"
        found = settled(tokenizer)
    finally:
        tokenizer.eos_token = eos
    assert found.end == "<|im_end|>"
    assert found.ends == ["<|im_end|>", "<|endoftext|>"]


TOOL_TURN = {"role": "tool", "content": "7"}


@pytest.mark.parametrize(
    ("messages", "tools", "why"),
    [
        (CHAT, [], None),
        (CHAT, [{"name": "f"}], "tools"),
        ([ASKED, TOOL_TURN, CHAT[2]], [], "tools"),
        ([ASKED, ASKED, CHAT[2]], [], "consecutive turns"),
    ],
)
def test_what_ollamas_own_language_cannot_write_is_named(messages, tools, why):
    found = needs_template_engine([Conversation(messages, tools=tools)])
    assert (found is None) if why is None else (why in found)


@pytest.mark.parametrize(("length", "learned_tokens"), [(3, 1), (2, 0), (9, 2)])
def test_a_cut_takes_the_end(length, learned_tokens):
    tokens = Tokens([1, 2, 3, 4], [0, 0, 1, 1], [1, 2]).cut_to(length)
    assert tokens.learned_tokens == learned_tokens
    assert tokens.input_ids == [1, 2, 3, 4][:length]
