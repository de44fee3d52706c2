"""Turn a base's Jinja chat template into Ollama's Go template, by observing its output.

There is no table of model families: the template is rendered for a few conversations of known
words, the text around the words is extracted, and the form that results must render further
conversations exactly as the Jinja template does. A template that is more than "something before
and after each turn" is not guessed at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contract.conversation import Message
from trainer.chat import render
from trainer.modelfile.modelfile_text import is_kept

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Words that no template contains.
_SYSTEM, _FIRST, _ANSWER, _SECOND = "Zsystem0Z", "Zuser1Z", "Zanswer2Z", "Zuser3Z"


@dataclass(frozen=True)
class ChatForm:
    """What a chat template writes around the turns."""

    opening: str
    system_prefix: str
    system_suffix: str
    user_prefix: str
    user_suffix: str
    assistant_prefix: str
    assistant_suffix: str
    generation_prompt: str

    def write(self, messages: Sequence[Message]) -> str:
        """The conversation with a generation prompt, as `go_template` makes Ollama write it."""
        around = {
            "system": (self.system_prefix, self.system_suffix),
            "user": (self.user_prefix, self.user_suffix),
            "assistant": (self.assistant_prefix, self.assistant_suffix),
        }
        text = "" if messages[0]["role"] == "system" else self.opening
        for message in messages:
            before, after = around[message["role"]]
            text += before + message["content"] + after
        return text + self.generation_prompt

    def go_template(self) -> str:
        """The form in Ollama's template language (Go's text/template over `.Messages`).

        Literals are quoted strings inside actions, so that trimming the white space between
        actions does not affect them. An assistant turn at the end is left open, to be continued.
        """
        lines = [
            "{{- range $i, $_ := .Messages }}",
            "{{- $last := eq (len (slice $.Messages $i)) 1 }}",
            '{{- if and (eq $i 0) (ne .Role "system") }}' + _literal(self.opening) + "{{ end }}",
            '{{- if eq .Role "system" }}'
            + _turn(self.system_prefix)
            + _literal(self.system_suffix),
            '{{- else if eq .Role "user" }}' + _turn(self.user_prefix) + _literal(self.user_suffix),
            '{{- else if eq .Role "assistant" }}'
            + _turn(self.assistant_prefix)
            + "{{ if not $last }}"
            + _literal(self.assistant_suffix)
            + "{{ end }}",
            "{{- end }}",
            '{{- if and $last (ne .Role "assistant") }}'
            + _literal(self.generation_prompt)
            + "{{ end }}",
            "{{- end }}",
        ]
        if not self.opening:
            del lines[2]
        return "\n".join(lines)


def chat_form(tokenizer: PreTrainedTokenizerBase) -> ChatForm | None:
    """The form of the tokenizer's chat template; None where no form reproduces it."""
    import jinja2

    try:
        form = _observed(tokenizer)
        if form is not None and all(
            form.write(messages) == render(tokenizer, messages, add_generation_prompt=True)
            for messages in PROBES
        ):
            return form
    except jinja2.TemplateError:
        # It refuses a system turn or a second question, and Ollama sends both.
        pass
    return None


# The form is compared on these; none of them was used to find it.
PROBES: tuple[list[Message], ...] = (
    [{"role": "user", "content": "Bonjour, où est l'été ?"}],
    [
        {"role": "system", "content": "Réponds en JSON."},
        {"role": "user", "content": "Classe : « Le système doit répondre en 2 s. » 🎯"},
    ],
    [
        {"role": "user", "content": "Un\ndeux\n\ntrois {{ x }} {% y %}"},
        {"role": "assistant", "content": '{"a": [1, 2]}'},
        {"role": "user", "content": "<tool_call>encore</tool_call>"},
        {"role": "assistant", "content": "日本語"},
        {"role": "user", "content": "fin"},
    ],
    # Many templates trim what they are given, and Ollama's language cannot.
    [
        {"role": "system", "content": "Deux\nlignes"},
        {"role": "user", "content": " a\n"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c\n\n"},
    ],
)


def _observed(tokenizer: PreTrainedTokenizerBase) -> ChatForm | None:
    system: Message = {"role": "system", "content": _SYSTEM}
    first: Message = {"role": "user", "content": _FIRST}
    answer: Message = {"role": "assistant", "content": _ANSWER}
    second: Message = {"role": "user", "content": _SECOND}
    whole = _around(
        render(tokenizer, [system, first, answer, second], add_generation_prompt=True),
        [_SYSTEM, _FIRST, _ANSWER, _SECOND],
    )
    single = _around(render(tokenizer, [first], add_generation_prompt=True), [_FIRST])
    without_prompt = _around(render(tokenizer, [first], add_generation_prompt=False), [_FIRST])
    answered = _around(
        render(tokenizer, [first, answer], add_generation_prompt=False), [_FIRST, _ANSWER]
    )
    if not (whole and single and without_prompt and answered):
        return None
    user_suffix, assistant_suffix = without_prompt[1], answered[2]
    user_prefix = whole[3].removeprefix(assistant_suffix)
    return ChatForm(
        opening=single[0].removesuffix(user_prefix),
        system_prefix=whole[0],
        system_suffix=whole[1].removesuffix(user_prefix),
        user_prefix=user_prefix,
        user_suffix=user_suffix,
        assistant_prefix=whole[2].removeprefix(user_suffix),
        assistant_suffix=assistant_suffix,
        generation_prompt=whole[4].removeprefix(user_suffix),
    )


def _around(text: str, words: Sequence[str]) -> list[str] | None:
    """The text before, between and after the words; None unless each occurs exactly once."""
    pieces = []
    for word in words:
        before, found, text = text.partition(word)
        if not found or word in text:
            return None
        pieces.append(before)
    return [*pieces, text]


def _literal(text: str) -> str:
    if not text:
        return ""
    # A JSON string is a Go string literal, too. What a Modelfile's parser drops is escaped.
    quoted = json.dumps(text, ensure_ascii=False)
    return "{{ " + "".join(one if is_kept(one) else _escaped(one) for one in quoted) + " }}"


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def _turn(prefix: str) -> str:
    return _literal(prefix) + "{{ .Content }}"
