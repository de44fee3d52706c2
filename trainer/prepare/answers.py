"""Every answer of a conversation as a prompt and what follows it: the text that is trained.

The one invariant of the training data: the prompt that a server will receive is the beginning of
what is trained, and behind it stand the answer's own words and the end of the turn, and nothing
else. Where a template writes the conversation so, it is taken as written; where it does not (it
moves the system turn, cuts reasoning out, adds to the past), the answer is put behind its prompt by
hand. What cannot be made right is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from contract.chat_format import ChatFormat
from contract.conversation import Conversation, Message, Tool
from contract.row_forms import BadRow
from trainer.chat import render
from trainer.chat_template import REASONING_MARKERS, opened_marker, without_markers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class AnswerText:
    """An answer as text.

    Attributes:
        index: of its turn in the conversation.
        prompt: all that a server receives before it.
        completion: the answer's words, and the end of the turn at its end.
        without_reasoning: the template wrote an empty reasoning block where the data have none.
    """

    index: int
    prompt: str
    completion: str
    without_reasoning: bool = False


def with_reasoning_apart(conversation: Conversation) -> Conversation:
    """The conversation with a `<think>` block at the beginning of an answer as its reasoning.

    For templates that know reasoning: they are given it as `reasoning_content`, under whatever
    markers they write it. A block that is not closed stays as it is.
    """
    messages: list[Message] = []
    for message in conversation.messages:
        content = message["content"].lstrip()
        for opening, closing in REASONING_MARKERS:
            if (
                message["role"] == "assistant"
                and "reasoning_content" not in message
                and content.startswith(opening)
                and closing in content
            ):
                reasoning, _, rest = content.removeprefix(opening).partition(closing)
                apart: Message = {**message, "content": rest.strip("\n")}
                if reasoning.strip():
                    apart["reasoning_content"] = reasoning.strip("\n")
                message = apart
                break
        messages.append(message)
    return Conversation(messages, conversation.tools, conversation.unlearned, conversation.unread)


def has_reasoning(conversation: Conversation) -> bool:
    """Whether one of its learned answers has reasoning."""
    return any(
        "reasoning_content" in message
        for index, message in enumerate(with_reasoning_apart(conversation).messages)
        if index not in conversation.unlearned
    )


def needs_template_engine(conversations: Sequence[Conversation]) -> str | None:
    """Which of the conversations' turns Ollama's own template language cannot write, if any can't.

    Ollama joins turns of one role before its templates see them, and a form that puts something
    before and after each turn knows neither tools nor calls.
    """
    for conversation in conversations:
        roles = [message["role"] for message in conversation.messages]
        if (
            conversation.tools
            or "tool" in roles
            or any("tool_calls" in message for message in conversation.messages)
        ):
            return "the data have tools"
        if any(one == other for one, other in pairwise(roles)):
            return "the data have consecutive turns of one role"
    return None


def answer_texts(
    tokenizer: PreTrainedTokenizerBase, chat_format: ChatFormat, conversation: Conversation
) -> list[AnswerText]:
    """Each learned answer's prompt and completion, in the order of the conversation.

    Args:
        tokenizer: with the format's template.

    Raises:
        BadRow: the template drops a part of the conversation, or cannot write an answer behind its
            prompt.
        jinja2.TemplateError: the template refuses the conversation.
    """
    if chat_format.thinking is not None:
        conversation = with_reasoning_apart(conversation)
    messages = conversation.messages
    texts = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or index in conversation.unlearned:
            continue
        prompt = render(
            tokenizer, messages[:index], tools=conversation.tools, add_generation_prompt=True
        )
        _check_prompt(prompt, messages[:index], conversation.tools)
        texts.append(
            _answer_text(tokenizer, chat_format, messages[: index + 1], conversation.tools, prompt)
        )
    return texts


def _answer_text(
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    messages: Sequence[Message],
    tools: Sequence[Tool],
    prompt: str,
) -> AnswerText:
    index, message = len(messages) - 1, messages[-1]
    end = chat_format.end
    reasoning = message.get("reasoning_content", "")
    if reasoning and not chat_format.thinking:
        if chat_format.thinking is None:
            raise BadRow(
                "has reasoning, which the base's chat template does not write",
                "Use a base that reasons, or remove the reasoning.",
            )
        raise BadRow(
            "has reasoning, and the model is to be served without it",
            "Use --set thinking=on, or remove the reasoning.",
        )
    for text in (message["content"], reasoning):
        inside = next((stop for stop in chat_format.ends if stop in text), None)
        if inside is not None:
            raise BadRow(
                f"has {inside} inside an answer, which ends answers: the rest would never be said",
                "Remove it, or write it in another way.",
            )
    for written in _as_written(tokenizer, chat_format, messages, tools):
        body = _behind(prompt, written, chat_format)
        if body is None:
            continue
        if any(stop in body.text for stop in chat_format.ends):
            continue
        has_block = body.text != without_markers(body.text)
        if _says(body.text, message) and (chat_format.thinking or not has_block):
            empty = bool(chat_format.thinking) and not reasoning
            return AnswerText(index, prompt, body.text + body.end, without_reasoning=empty)
        said = message["content"].strip()
        if said in body.text and not message.get("tool_calls") and not reasoning:
            raise BadRow(
                "has an answer around which the base's chat template writes words of its own: "
                f"{_short(body.text.replace(said, '…', 1))}",
                "Use a base whose template writes answers right after its prompt.",
            )
    if message.get("tool_calls"):
        raise BadRow(
            "calls tools in a way that the base's chat template does not write behind its prompt",
            "Use a base whose template knows tool calls, or remove these turns.",
        )
    content = message["content"]
    if (opened := opened_marker(prompt)) is not None:
        # An empty block where there is no reasoning, as templates that know it write.
        body_text = f"{reasoning}\n{opened[1]}\n\n{content}"
        return AnswerText(index, prompt, body_text + end, without_reasoning=not reasoning)
    if reasoning:
        raise BadRow(
            "has reasoning, which the base's chat template does not write behind its prompt",
            "Use another base that reasons, or remove the reasoning.",
        )
    return AnswerText(index, prompt, content + end)


@dataclass(frozen=True)
class _Body:
    text: str
    end: str


def _as_written(
    tokenizer: PreTrainedTokenizerBase,
    chat_format: ChatFormat,
    messages: Sequence[Message],
    tools: Sequence[Tool],
) -> Iterator[str]:
    """The conversation as the template writes it, its last answer's reasoning in either place."""
    yield render(tokenizer, messages, tools=tools, add_generation_prompt=False)
    message = messages[-1]
    reasoning = message.get("reasoning_content")
    opening, closing = next(
        (pair for pair in REASONING_MARKERS if pair[0] in chat_format.template), ("", "")
    )
    if reasoning and opening:
        # Templates that name the markers and do not read the key leave them to the content.
        content = f"{opening}\n{reasoning}\n{closing}\n\n{message['content']}"
        inline: Message = {**message, "content": content}
        del inline["reasoning_content"]
        yield render(tokenizer, [*messages[:-1], inline], tools=tools, add_generation_prompt=False)


def _behind(prompt: str, written: str, chat_format: ChatFormat) -> _Body | None:
    """What a template wrote behind the prompt, up to the end of the turn; None where it did not.

    A prompt that ends with an empty reasoning block, of which the template writes nothing once the
    answer is there, counts as written.
    """
    if written.startswith(prompt):
        rest = written[len(prompt) :]
    else:
        block = _BLOCK_AT_END.search(prompt)
        if block is None or not written.startswith(prompt[: block.start()]):
            return None
        rest = written[block.start() :]
        rest = rest[block_at_start.end() :] if (block_at_start := _BLOCK.match(rest)) else rest
        if opened := opened_marker(prompt):
            rest = f"\n{opened[1]}\n\n{rest}"
    text, found, after = rest.rpartition(chat_format.end)
    for stop in chat_format.ends:
        # Some write a token more at the end of the last turn.
        after = after.replace(stop, "")
    if found and not after.strip():
        return _Body(text, found)
    rest = rest.rstrip()
    for stop in chat_format.ends:
        if rest.endswith(stop):
            return _Body(rest.removesuffix(stop), stop)
    # Its template does not end the last turn; its tokenizer does.
    return _Body(rest, chat_format.end)


_MARKERS = "|".join(re.escape(marker) for pair in REASONING_MARKERS for marker in pair)
_BLOCK = re.compile(rf"\s*(?:(?:{_MARKERS})\s*)+")
_BLOCK_AT_END = re.compile(rf"(?:(?:{_MARKERS})\s*)+\Z")


def _says(completion: str, message: Message) -> bool:
    """Whether a template's completion is the message's own words, without a word of its own."""
    rest = completion
    content, reasoning = message["content"].strip(), message.get("reasoning_content", "").strip()
    if not message.get("tool_calls"):
        if not rest.rstrip().endswith(content):
            return False
        rest = rest.rstrip().removesuffix(content)
        if reasoning not in rest:
            return False
        return not without_markers(rest.replace(reasoning, "", 1)).strip()
    # What stands around a call's name and arguments is how this model calls tools.
    calls = [call["function"] for call in message["tool_calls"]]
    return (
        content in rest
        and reasoning in rest
        and all(_contains(rest, leaf) for leaf in _leaves(calls))
    )


def _short(text: str) -> str:
    flat = repr(text.strip())
    return flat if len(flat) <= 60 else flat[:57] + "..."


def _check_prompt(prompt: str, messages: Sequence[Message], tools: Sequence[Tool]) -> None:
    """See that the template dropped nothing of what stands before an answer.

    Earlier reasoning may go: templates that know reasoning drop it, and so will the server.
    """
    for tool in tools:
        name = tool.get("function", tool).get("name")
        if not _contains(prompt, name):
            raise BadRow(
                f"has the tool {name}, which the base's chat template does not write",
                "Use a base whose template knows tools, or remove the tools.",
            )
    for number, message in enumerate(messages, 1):
        what = f"turn {number} ({message['role']})"
        words = message["content"].strip()
        if message["role"] == "tool":
            missing = not _contains_document(prompt, words)
        else:
            missing = bool(words) and words not in prompt and _without_block(words) not in prompt
        if missing:
            raise BadRow(
                f"has the {what}, which the base's chat template does not write as it stands",
                "Use another base, or remove the turn.",
            )
        for call in message.get("tool_calls", ()):
            if not all(_contains(prompt, leaf) for leaf in _leaves(call["function"])):
                raise BadRow(
                    f"has tool calls in {what}, which the base's chat template does not write",
                    "Use a base whose template knows tool calls, or remove these turns.",
                )


def _without_block(text: str) -> str:
    for _, closing in REASONING_MARKERS:
        text = text.rpartition(closing)[2]
    return text.strip()


def _contains_document(text: str, document: str) -> bool:
    """Whether a text has a document, in its own words or as the same JSON values."""
    if document in text or json.dumps(document, ensure_ascii=False)[1:-1] in text:
        return True
    try:
        leaves = list(_leaves(json.loads(document)))
    except (ValueError, RecursionError):
        return False
    return all(_contains(text, leaf) for leaf in leaves)


def _leaves(value: Any) -> Iterator[Any]:
    """The names and values in a JSON value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            # OpenAI's own words for the parts of a call; templates have others for them.
            if name not in ("name", "arguments"):
                yield name
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


def _contains(text: str, leaf: Any) -> bool:
    if isinstance(leaf, str):
        forms = [leaf.strip(), json.dumps(leaf)[1:-1], json.dumps(leaf, ensure_ascii=False)[1:-1]]
    else:
        forms = [json.dumps(leaf), str(leaf)]
    return any(form in text for form in forms)
