"""Whatever a row says, in whatever template: it holds the invariant, or is refused."""

from collections import Counter

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.row_forms import BadRow, conversation_of
from tests.contract.test_row_forms_fuzz import ROWS, mappings, rows
from tests.tokenizing import tokenize
from tests.trainer.test_tokenizing import CHATML, OPENS, SHORTENED, SYSTEM_LAST
from trainer.chat_template import chat_format, without_markers
from trainer.prepare.answers import has_reasoning, with_reasoning_apart

pytestmark = pytest.mark.slow

TRIMS = CHATML.replace("{{ m.content }}", "{{ m.content | trim }}")
TOOLS = (
    "{% if tools %}{{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def check(tokenizer, settled, conversation, row):
    """The prompt is a prefix; the rest is an answer's own words and an end that servers stop at."""
    assert row.input_ids[: len(row.prompt_ids)] == row.prompt_ids
    # Not the prompt's last token, unless an earlier answer ends there: this one follows it at once,
    # where a template writes nothing before answers.
    last = len(row.prompt_ids) - 1
    assert row.completion_mask[last] == 0 or row.input_ids[last] in settled.end_ids
    assert row.input_ids[-1] in settled.end_ids
    message = with_reasoning_apart(conversation).messages[row.answer]
    learned = row.input_ids[len(row.prompt_ids) :]
    assert row.completion_mask[len(row.prompt_ids) :] == [1] * len(learned)
    # An end inside an answer would be the answer's end.
    assert not set(learned[:-1]) & set(settled.end_ids)
    if "tool_calls" in message:
        return
    if settled.thinking is None:
        message = conversation.messages[row.answer]
    words = tokenizer.decode(learned[:-1])
    if reasoning := message.get("reasoning_content", "").strip():
        assert plain(tokenizer, reasoning) in words
        words = words.replace(plain(tokenizer, reasoning), "", 1)
    if settled.thinking:
        words = without_markers(words)
    assert words.strip() == plain(tokenizer, message["content"].strip())


def plain(tokenizer, text):
    """The text as this tokenizer gives it back."""
    return tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]).strip()


def test_every_accepted_row_holds_the_invariant(tokenizer):
    outcomes = Counter()
    own = tokenizer.chat_template
    templates = [CHATML, SHORTENED, SYSTEM_LAST, OPENS, TRIMS, TOOLS]

    @ROWS
    @given(rows, mappings, st.sampled_from(templates), st.sampled_from([None, "Sois bref."]))
    def fuzz(row, columns, template, system_prompt):
        try:
            conversation = conversation_of(row, columns, system_prompt)
        except BadRow:
            outcomes["refused as a row"] += 1
            return
        tokenizer.chat_template = template
        settled = chat_format(
            tokenizer, [], thinking="auto", reasoning_in_data=has_reasoning(conversation)
        )
        tokenizer.chat_template = settled.template
        try:
            found = tokenize(tokenizer, settled, conversation)
        except (BadRow, jinja2.TemplateError):
            outcomes["refused with the template"] += 1
            return
        outcomes["right"] += 1
        outcomes["several rows"] += len(found) > 1
        for tokens in found:
            check(tokenizer, settled, conversation, tokens)

    try:
        fuzz()
    finally:
        tokenizer.chat_template = own
    assert outcomes["right"] > 500, outcomes
    assert outcomes["several rows"] > 5, outcomes
    assert outcomes["refused with the template"] > 20, outcomes
