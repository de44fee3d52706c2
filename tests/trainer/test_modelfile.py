"""The Go template writes what the Jinja template writes, or is not written at all.

The templates below are short stand-ins of our own for the forms that models in the field use.
"""

import pytest

from contract.errors import UserError
from launcher.configuration import resolve
from trainer.chat import render
from trainer.modelfile.modelfile_text import can_be_said, losses, modelfile_text
from trainer.modelfile.stage import serving_of
from trainer.modelfile.template import PROBES, chat_form

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    + CHATML
)
HEADERS = (
    "<|begin|>{% for m in messages %}<|header|>{{ m.role }}<|/header|>\n\n{{ m.content }}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|header|>assistant<|/header|>\n\n{% endif %}"
)
THINKING = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n\n</think>\n\n{% endif %}")
# The system turn is folded into the first question: more than "before and behind each turn".
FOLDED = (
    "{% set s = namespace(t='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set s.t = m.content + '\n\n' %}"
    "{% elif m.role == 'user' %}[INST] {{ s.t if loop.index0 == 1 else '' }}{{ m.content }} [/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML


@pytest.mark.parametrize("template", [CHATML, DEFAULT_SYSTEM, HEADERS, THINKING])
def test_a_form_is_found_that_writes_the_same(with_template, template):
    tokenizer = with_template(template)
    form = chat_form(tokenizer)
    assert form is not None
    for messages in PROBES:
        assert form.write(messages) == render(tokenizer, messages, add_generation_prompt=True)


def test_the_parts_of_chatml_are_its_markers(with_template):
    form = chat_form(with_template(DEFAULT_SYSTEM))
    assert form.opening == "<|im_start|>system\nYou help.<|im_end|>\n"
    assert form.user_prefix == "<|im_start|>user\n"
    assert form.assistant_suffix == "<|im_end|>\n"
    assert form.generation_prompt == "<|im_start|>assistant\n"


@pytest.mark.parametrize("template", [FOLDED, NO_SYSTEM])
def test_a_template_that_does_more_is_not_guessed_at(with_template, template):
    assert chat_form(with_template(template)) is None


def test_literals_stand_in_strings_that_trimming_cannot_reach(tokenizer):
    text = chat_form(tokenizer).go_template()
    outside = "".join(piece.rpartition("}}")[2] for piece in text.split("{{"))
    assert outside.strip() == ""
    assert '"<|im_start|>user\\n"' in text


def test_the_modelfile_of_the_smoke_run(smoke_run):
    lines = (smoke_run.folder / "Modelfile").read_text().splitlines()
    assert "FROM ./gguf/model-f16.gguf" in lines
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert "PARAMETER num_ctx 1024" in lines
    assert "PARAMETER temperature 0" in lines
    assert "PARAMETER repeat_penalty 1" in lines
    assert any(line.startswith('TEMPLATE """') for line in lines)


def test_without_a_form_the_modelfile_names_no_template():
    text = modelfile_text("x", serving_of(resolve("smoke"), None, ["</s>"]))
    assert "TEMPLATE" not in text
    assert 'PARAMETER stop "</s>"' in text


def test_a_system_prompt_is_said_in_the_modelfile():
    recipe = resolve("smoke", settings=["system_prompt=Réponds en JSON."])
    serving = serving_of(recipe, None, [])
    assert serving.system == "Réponds en JSON."
    assert 'SYSTEM """Réponds en JSON."""' in modelfile_text("x", serving)


def test_a_stop_is_written_in_its_own_letters():
    text = modelfile_text(
        "x", serving_of(resolve("smoke"), None, ["<｜end▁of▁sentence｜>", 'a"\n'])
    )
    assert 'PARAMETER stop "<｜end▁of▁sentence｜>"\n' in text
    assert 'PARAMETER stop """a"\n"""\n' in text


@pytest.mark.parametrize(
    ("text", "writable"),
    [
        ('say "hi"', True),
        ('a """ b', True),
        ('"""', True),
        ('a\nb"""', True),
        ('""\na', True),
        ('a"""\nb', False),
        ('a"""  \r\nb', False),
        ('"""\nb', False),
        ('a\n"""\nb', False),
    ],
)
def test_what_a_modelfile_cannot_say_is_refused(text, writable):
    # tests/serving holds this against Ollama's own parser.
    serving = serving_of(resolve("smoke"), None, []).model_copy(update={"system": text})
    assert can_be_said(text) == writable
    if writable:
        assert f'SYSTEM """{text}"""\n' in modelfile_text("x", serving)
    else:
        with pytest.raises(UserError, match="Modelfile: SYSTEM: a line of it ends with"):
            modelfile_text("x", serving)


def test_what_ollama_drops_is_said_in_the_modelfile():
    recipe = resolve("smoke", settings=["system_prompt=Oui\u00a0!"])
    serving = serving_of(recipe, None, ["a\u200db"])
    of_system, of_stop = losses(serving)
    assert "drops U+00A0 from SYSTEM" in of_system
    assert "drops U+200D from PARAMETER stop" in of_stop
    assert f"# {of_system}\n# {of_stop}\nFROM" in modelfile_text("x", serving)
    assert losses(serving_of(resolve("smoke"), None, ["<｜end▁of▁sentence｜>"])) == []


def test_what_a_modelfiles_parser_drops_is_escaped_in_a_literal(with_template):
    template = CHATML.replace("assistant\n{% endif %}", "assistant\u00a0:\n{% endif %}")
    form = chat_form(with_template(template))
    assert form.generation_prompt == "<|im_start|>assistant\u00a0:\n"
    assert '"<|im_start|>assistant\\u00a0:\\n"' in form.go_template()
