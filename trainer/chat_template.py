"""Settle a base's chat template: one text that trains, is converted and is served.

A public template may write today's date, let its caller switch reasoning on and off, or open a
reasoning block that the data do not have. Each of these would make what is served another text than
what was trained. So they are settled once, in the template itself, and every later reader (the
trainer, the GGUF, llama-server, Ollama) is given that text.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from contract.chat_format import ChatFormat
from contract.conversation import Message, Tool
from contract.errors import UserError
from trainer.chat import render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Thinking = Literal["auto", "on", "off"]

# What a template takes for today. Llama 3's own templates fall back on this day.
_TODAY = datetime.date(2024, 7, 26)
_DATE_CALL = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")
# Variables that servers fill in with today's date (llama.cpp's common/chat.cpp does).
_DATE_VARIABLES = {"date_string": "%d %b %Y", "datetime": "%b %d %Y %H:%M:%S GMT"}
# What callers say of earlier reasoning. llama-server says "keep it", transformers says nothing.
_HISTORY_VARIABLES = {
    "preserve_thinking": "false",
    "clear_thinking": "true",
    "truncate_history_thinking": "true",
    "drop_thinking": "true",
}
# Variables by which callers switch reasoning, with their values for on and off.
_SWITCHES: dict[str, tuple[str, str]] = {
    "enable_thinking": ("true", "false"),
    "thinking": ("true", "false"),
    "thinking_mode": ("'enabled'", "'disabled'"),
    "thinking_option": ("'on'", "'off'"),
    "reasoning": ("true", "false"),
    "skip_thinking": ("false", "true"),
}
_REMARK = (
    "{# Settled before training: dates and switches are frozen in this template, so that training, "
    "GGUF and servers write the same text. No server has a better one of its own. #}"
)
# Around reasoning, as templates write it.
REASONING_MARKERS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
# Marks of trainers for what is learned; servers do not know them.
_TRAINING_MARK = re.compile(r"\{%(-?)\s*(end)?generation\s*(-?)%\}")
_QUESTION, _ANSWER, _REASONING = "Zquestion1Z", "Zanswer2Z", "Zreasoning3Z"
_TOOL_NAME = "ztool4z"
_ASKED: list[Message] = [{"role": "user", "content": _QUESTION}]
_ANSWERED: list[Message] = [*_ASKED, {"role": "assistant", "content": _ANSWER}]
_REASONED: list[Message] = [
    *_ASKED,
    {"role": "assistant", "reasoning_content": _REASONING, "content": _ANSWER},
]

_CONTINUED: list[Message] = [*_ANSWERED, {"role": "user", "content": "Zquestion5Z"}]
_TOOL: Tool = {
    "type": "function",
    "function": {
        "name": _TOOL_NAME,
        "description": "A tool.",
        "parameters": {"type": "object", "properties": {"of": {"type": "string"}}},
    },
}
_CALLED: list[Message] = [
    *_ASKED,
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                # Mistral's templates demand nine letters or digits.
                "id": "zcall6zzz",
                "type": "function",
                "function": {"name": _TOOL_NAME, "arguments": {"of": "Zvalue7Z"}},
            }
        ],
    },
]


@dataclass(frozen=True)
class ReasoningSupport:
    """What a template knows of reasoning.

    Attributes:
        switches: its variables that switch reasoning.
        writes: it writes an answer's `reasoning_content`.
        writes_none: it writes an empty block where an answer has no reasoning.
        opens: its prompt opens a reasoning block, unless that is switched off.
    """

    switches: tuple[str, ...]
    writes: bool
    writes_none: bool
    opens: bool

    @property
    def any(self) -> bool:
        """Whether the template knows reasoning at all."""
        return bool(self.switches) or self.writes or self.writes_none or self.opens


def chat_format(
    tokenizer: PreTrainedTokenizerBase,
    declared_ends: Sequence[int],
    *,
    thinking: Thinking,
    reasoning_in_data: bool,
) -> ChatFormat:
    """Settle the template of a base's tokenizer, and where its answers end.

    Args:
        declared_ends: the ids of `eos_token_id` in the base's generation_config.json.
        thinking: the recipe's key. `auto` is on where the data have reasoning.
        reasoning_in_data: whether any answer of the training data has reasoning.

    Raises:
        UserError: the base has no chat template, a moving part of it cannot be frozen, reasoning
            is asked of a base without it, or nothing ends its answers.
    """
    template = _without_training_marks(base_template(tokenizer))
    template = _with_frozen_variables(template)
    support = _reasoning_support(tokenizer, template)
    if thinking == "on" and not support.any:
        raise UserError.one(
            "thinking",
            "is on, and the base's chat template knows nothing of reasoning",
            "Use --set thinking=auto, or a base that reasons.",
        )
    thinks = None
    if support.any:
        thinks = thinking == "on" or (thinking == "auto" and reasoning_in_data)
        template = _switched(template, support.switches, on=thinks)
        if not thinks:
            template = _with_reasoning_closed(tokenizer, template)
    template = _with_remark(tokenizer, template)
    end, ends = _ends(tokenizer, template, declared_ends)
    return ChatFormat(
        template=template,
        end=end,
        ends=[str(tokenizer.convert_ids_to_tokens(end)) for end in ends],
        end_ids=ends,
        thinking=thinks,
        needs_template_engine=None,
    )


def _with_remark(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """The template with a comment before it, which is not written.

    Ollama takes a template of its own in place of one that is less than a hundred letters away from
    those that it knows (`template.Named`), and its own leave out the BOS. With this, none is.
    """
    remarked = _REMARK + template
    for messages in (_ASKED, _CONTINUED):
        for prompt in (True, False):
            if _try(tokenizer, remarked, messages, prompt) != _try(
                tokenizer, template, messages, prompt
            ):
                return template
    return remarked


def base_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template that conversations are written with: the `default` one where there are several.

    Raises:
        UserError: it has none.
    """
    found = tokenizer.chat_template
    if isinstance(found, dict):
        if "default" not in found:
            raise UserError.one(
                "model_to_fine_tune",
                f"this base has the chat templates {', '.join(found)} and no default one",
                'Name one of them "default" in a copy of the base\'s folder.',
            )
        found = found["default"]
    if not found:
        raise UserError.one(
            "model_to_fine_tune",
            "this base has no chat template",
            "Use its instruction-tuned version (often named -Instruct, -Chat or -it).",
        )
    return str(found)


def _without_training_marks(template: str) -> str:
    def condition(mark: re.Match[str]) -> str:
        word = "endif" if mark[2] else "if true"
        return f"{{%{mark[1]} {word} {mark[3]}%}}"

    return _TRAINING_MARK.sub(condition, template)


def _with_frozen_variables(template: str) -> str:
    def frozen(call: re.Match[str]) -> str:
        return json.dumps(_TODAY.strftime(call[2]))

    template = _DATE_CALL.sub(frozen, template)
    used = _variables(template)
    settings = {
        **{name: json.dumps(_TODAY.strftime(form)) for name, form in _DATE_VARIABLES.items()},
        **_HISTORY_VARIABLES,
    }
    if re.search(r"strftime_now\s*\(", template):
        raise UserError.one(
            "model_to_fine_tune",
            "the base's chat template computes a date in a way that cannot be frozen",
            "Write the date out in chat_template in a copy of the base's folder.",
        )
    return _with_settings(
        template, {name: value for name, value in settings.items() if name in used}
    )


def _with_settings(template: str, settings: Mapping[str, str]) -> str:
    """The template, with variables of its caller's set to these values in its own language."""
    if not settings:
        return template
    # The line break after a block is not written (`trim_blocks`), so that the template itself
    # begins at the beginning of a line, as it did.
    lines = (f"{{% set {name} = {value} %}}" for name, value in settings.items())
    return "".join(lines) + "\n" + template


def _with_prompt_suffix(template: str, suffix: str) -> str:
    # Jinja drops the last line break of a template, and only that.
    template = template.removesuffix("\n")
    # An expression and no block: white space before a block may be dropped (`lstrip_blocks`).
    return f"{template}{{{{ {json.dumps(suffix)} if add_generation_prompt else '' }}}}"


def _variables(template: str) -> set[str]:
    """The names that a template may read from its caller."""
    import jinja2
    from jinja2 import ext, meta

    environment = jinja2.Environment(extensions=[ext.loopcontrols], autoescape=False)
    try:
        names: set[str] = meta.find_undeclared_variables(environment.parse(template))
    except jinja2.TemplateSyntaxError as error:
        raise UserError.one(
            "model_to_fine_tune",
            f"the base's chat template is not valid Jinja: {error}",
            "Correct chat_template in a copy of the base's folder.",
        ) from error
    return names


def _reasoning_support(tokenizer: PreTrainedTokenizerBase, template: str) -> ReasoningSupport:
    used = _variables(template)
    switches = []
    for name in _SWITCHES:
        if name in used:
            on, off = (_switched(template, [name], on=value) for value in (True, False))
            if any(
                _try(tokenizer, on, said, prompt) != _try(tokenizer, off, said, prompt)
                for said, prompt in ((_ASKED, True), (_REASONED, False))
            ):
                switches.append(name)
    template = _switched(template, switches, on=True)
    written = _try(tokenizer, template, _REASONED, add_generation_prompt=False)
    return ReasoningSupport(
        switches=tuple(switches),
        writes=_REASONING in written,
        writes_none=bool(_empty_block(tokenizer, template)),
        opens=opened_marker(_try(tokenizer, template, _ASKED, add_generation_prompt=True))
        is not None,
    )


def _switched(template: str, switches: Sequence[str], *, on: bool) -> str:
    return _with_settings(template, {name: _SWITCHES[name][0 if on else 1] for name in switches})


def _with_reasoning_closed(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """The template, with a reasoning block that its prompt opens closed again, and empty."""
    # As the template itself writes an answer without reasoning, where it does.
    if empty := _empty_block(tokenizer, template):
        return _with_prompt_suffix(template, empty)
    marker = opened_marker(_try(tokenizer, template, _ASKED, add_generation_prompt=True))
    return template if marker is None else _with_prompt_suffix(template, f"\n{marker[1]}\n\n")


def _empty_block(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """What the template writes between its prompt and an answer without reasoning, if it is an
    empty reasoning block or the rest of one.
    """
    prompt = _try(tokenizer, template, _ASKED, add_generation_prompt=True)
    answered = _try(tokenizer, template, _ANSWERED, add_generation_prompt=False)
    if not answered.startswith(prompt):
        return ""
    between = answered[len(prompt) :].partition(_ANSWER)[0]
    return between if between.strip() and not without_markers(between).strip() else ""


def without_markers(text: str) -> str:
    """The text without the first pair of each kind of reasoning markers."""
    for opening, closing in REASONING_MARKERS:
        text = text.replace(opening, "", 1).replace(closing, "", 1)
    return text


def opened_marker(prompt: str) -> tuple[str, str] | None:
    """The markers of the reasoning block that a prompt opens for the answer, if it does."""
    for opening, closing in REASONING_MARKERS:
        if prompt.rstrip().endswith(opening):
            return opening, closing
    return None


def _ends(
    tokenizer: PreTrainedTokenizerBase, template: str, declared: Sequence[int]
) -> tuple[str, list[int]]:
    """What the template writes at the end of an answer, and the tokens that end answers.

    What it writes at the end of the last turn and of an earlier one alike: some write a token more
    at the end of all.
    """
    special = _special_tokens(tokenizer)
    last = _try(tokenizer, template, _ANSWERED, add_generation_prompt=False)
    earlier = _try(tokenizer, template, _CONTINUED, add_generation_prompt=False)
    after = last.rpartition(_ANSWER)[2]
    if _ANSWER in earlier:
        after = _common_prefix(after, earlier.partition(_ANSWER)[2])
    found = _special_in(after, special)
    known = {tokenizer.eos_token_id, *declared}
    for number, token in enumerate(found):
        # What stands behind it begins the next turn.
        if special[token[0]] in known:
            found = found[: number + 1]
            break
    end = after[: found[-1].end()] if found else str(tokenizer.eos_token or "")
    called = _try(tokenizer, template, _CALLED, add_generation_prompt=False, tools=[_TOOL])
    # A turn that calls tools may end in another way.
    call_ends = [m[0] for m in _special_in(called, special)[-1:] if called.rstrip().endswith(m[0])]
    if _TOOL_NAME not in called.rpartition(_QUESTION)[2]:
        call_ends = []
    names = [*([found[-1][0]] if found else []), *call_ends]
    ids = [
        *(special[name] for name in names if name == names[0]),
        tokenizer.eos_token_id,
        *declared,
        *(special[name] for name in names),
    ]
    ends = list(dict.fromkeys(int(id) for id in ids if id is not None))
    if not ends:
        raise UserError.one(
            "model_to_fine_tune",
            "nothing ends its answers: its chat template writes no special token after an answer, "
            "and its tokenizer has no eos_token",
            "Set eos_token in tokenizer_config.json in a copy of the base's folder.",
        )
    return end, ends


def _common_prefix(one: str, other: str) -> str:
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return one[:length]


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    found = {
        str(token): id for id, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    names = tokenizer.all_special_tokens
    return found | dict(zip(names, tokenizer.convert_tokens_to_ids(names), strict=True))


def _special_in(text: str, special: Mapping[str, int]) -> list[re.Match[str]]:
    longest_first = sorted(special, key=len, reverse=True)
    if not longest_first:
        return []
    return list(re.finditer("|".join(map(re.escape, longest_first)), text))


def _try(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    messages: Sequence[Message],
    add_generation_prompt: bool,
    tools: Sequence[Tool] = (),
) -> str:
    """The conversation in another template than the tokenizer's; empty where it is refused."""
    import jinja2

    own = tokenizer.chat_template
    tokenizer.chat_template = template
    try:
        return render(tokenizer, messages, tools=tools, add_generation_prompt=add_generation_prompt)
    except jinja2.TemplateError:
        return ""
    finally:
        tokenizer.chat_template = own
