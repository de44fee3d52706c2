"""The loss falls on the answers alone, and the prompt is what a server will receive."""

import pytest

from trainer.chat import render
from trainer.prepare.tokenizing import Tokens, tokenize

CHAT = [
    {"role": "system", "content": "Réponds en JSON."},
    {"role": "user", "content": "Un, deux ?"},
    {"role": "assistant", "content": '{"a": 1}'},
    {"role": "user", "content": "Et trois ? 🎯"},
    {"role": "assistant", "content": '{"é": [2, 3]}'},
]


def learned(tokenizer, tokens):
    """The learned stretches as text, one for each run of ones in the mask."""
    stretches, current = [], []
    for token, bears_loss in zip(tokens.input_ids, tokens.completion_mask, strict=True):
        if bears_loss:
            current.append(token)
        elif current:
            stretches.append(tokenizer.decode(current))
            current = []
    return [*stretches, tokenizer.decode(current)]


def test_the_ids_are_those_of_the_rendered_conversation(tokenizer):
    tokens = tokenize(tokenizer, CHAT)
    assert tokenizer.decode(tokens.input_ids) == render(
        tokenizer, CHAT, add_generation_prompt=False
    )


def test_each_answer_and_its_end_are_learned_and_nothing_else(tokenizer):
    tokens = tokenize(tokenizer, CHAT)
    stretches = [text.rstrip("\n") for text in learned(tokenizer, tokens)]
    assert stretches == ['{"a": 1}<|im_end|>', '{"é": [2, 3]}<|im_end|>']


def test_the_prompt_is_all_before_the_last_answer(tokenizer):
    tokens = tokenize(tokenizer, CHAT)
    assert tokenizer.decode(tokens.prompt_ids) == render(
        tokenizer, CHAT[:-1], add_generation_prompt=True
    )
    assert tokens.input_ids[: len(tokens.prompt_ids)] == tokens.prompt_ids


def test_no_bos_is_doubled(tokenizer):
    tokens = tokenize(tokenizer, CHAT)
    assert tokens.input_ids.count(tokenizer.bos_token_id) == 0


def test_an_answer_without_its_earlier_reasoning_is_learned_at_the_end_alone(tokenizer):
    # The way of templates that drop earlier turns' reasoning when the conversation goes on.
    template = tokenizer.chat_template
    try:
        tokenizer.chat_template = (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n"
            "{% if m.role == 'assistant' and not loop.last %}short"
            "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        )
        tokens = tokenize(tokenizer, CHAT)
        stretches = [text.rstrip("\n") for text in learned(tokenizer, tokens)]
    finally:
        tokenizer.chat_template = template
    assert stretches == ['{"é": [2, 3]}<|im_end|>']


@pytest.mark.parametrize(("length", "learned_tokens"), [(3, 1), (2, 0), (9, 2)])
def test_a_cut_takes_the_end(length, learned_tokens):
    tokens = Tokens([1, 2, 3, 4], [0, 0, 1, 1], [1, 2]).cut_to(length)
    assert tokens.learned_tokens == learned_tokens
    assert tokens.input_ids == [1, 2, 3, 4][:length]
