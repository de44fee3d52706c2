"""What an Ollama server makes of a conversation before the model reads it, by what each tells.

Newer servers say the text itself (`_debug_render_only`, measured with 0.34.1), whether they write
it by their own Go template or by the GGUF's Jinja. Older ones (0.6.5) are asked by
`/api/generate`, whose `context` is the tokens of the prompt and its answer: the turns before the
last are put into a model of the same file whose conversations begin with them. What neither says,
prompts with tools on an older server, is compared by the number of its tokens.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from contract.conversation import Message
from contract.digest import digest_of_value
from contract.errors import UserError
from contract.reference import Question, first_difference
from launcher.serving.ollama_server import GREEDY, OllamaServer
from launcher.serving.temporary_models import temporary_name

_ONE_TOKEN = {**GREEDY, "num_predict": 1}
_FIRST, _SECOND = "Zuser1Z", "Zuser2Z"
_NO_TOOLS = "does not support tools"


class PromptReader:
    """Compares the prompts of one model on one server, and says by what."""

    def __init__(self, server: OllamaServer, model: str) -> None:
        self._server, self._model = server, model
        self._compared: Counter[str] = Counter()
        self._tells = self._rendered([_user(_FIRST), _user(_SECOND)])

    def difference(self, question: Question) -> str:
        """In what its prompt differs from the one that was trained on; empty where in nothing.

        Raises:
            UserError: the server went away.
        """
        request: dict[str, Any] = {"model": self._model, "messages": question.messages}
        if question.tools:
            request["tools"] = question.tools
        try:
            if self._tells is not None:
                text = self._text(request)
                if text is not None and text != question.prompt:
                    where, found, expected = first_difference(text, question.prompt)
                    return f"{found} instead of {expected} after {where} letters"
            counted = self._server.chat(**request, options=_ONE_TOKEN).get("prompt_eval_count")
        except UserError as error:
            if question.tools and _NO_TOOLS in str(error):
                return "it takes no tools with this template"
            raise
        if counted != question.prompt_tokens:
            return f"{counted} tokens instead of {question.prompt_tokens}"
        if self._tells is not None:
            self._compared["letter for letter"] += 1
            return ""
        ids = self._ids(question)
        if ids is None:
            self._compared["by their number of tokens"] += 1
            return ""
        self._compared["token for token"] += 1
        # The last one may be joined with the answer's first.
        asked = question.prompt_ids[:-1]
        if ids[: len(asked)] != asked:
            pairs = enumerate(zip(ids, asked, strict=False))
            where = next((at for at, (one, other) in pairs if one != other), len(ids))
            return f"another token at {where + 1} of {question.prompt_tokens}"
        return ""

    def how(self) -> str:
        """By what prompts were compared, and which template wrote them."""
        ways = [
            way if len(self._compared) == 1 else f"{number} {way}"
            for way, number in self._compared.most_common()
        ]
        return f"{', '.join(ways) or 'none'} ({self._template()})"

    def _template(self) -> str:
        # Ollama joins turns of one role before its own template sees them.
        joins = self._tells is None or f"{_FIRST}\n\n{_SECOND}" in self._tells
        return "the server's Go template" if joins else "the GGUF's own template"

    def _rendered(self, messages: list[Message]) -> str | None:
        """The text of a conversation that the template may refuse; None where it is not told."""
        try:
            return self._text({"model": self._model, "messages": messages})
        except UserError as error:
            # Its words: the GGUF's own template does not take two turns of one role.
            if "template" in str(error).lower() or "alternate" in str(error).lower():
                return ""
            raise

    def _text(self, request: dict[str, Any]) -> str | None:
        # A server that does not know the key answers, shortly.
        said = self._server.chat(**request, options=_ONE_TOKEN, _debug_render_only=True)
        told = said.get("_debug_info")
        return None if told is None else str(told["rendered_template"])

    def _ids(self, question: Question) -> list[int] | None:
        """The tokens of the prompt and of an answer; None where the server cannot be asked."""
        turns = list(question.messages)
        system = turns.pop(0)["content"] if turns[0]["role"] == "system" else None
        last = turns.pop()
        plain = all(turn["role"] in ("user", "assistant") and not _more(turn) for turn in turns)
        if question.tools or last["role"] != "user" or not last["content"] or not plain:
            return None
        request: dict[str, Any] = {"prompt": last["content"], "options": _ONE_TOKEN}
        if system is not None:
            request["system"] = system
        if not turns:
            return self._context(self._model, request)
        with temporary_name(self._server, "turns", digest_of_value(self._model)) as model:
            self._server.create_with_history(model, self._model, turns)
            return self._context(model, request)

    def _context(self, model: str, request: dict[str, Any]) -> list[int] | None:
        found = self._server.generate(model=model, **request).get("context")
        return None if found is None else [int(token) for token in found]


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _more(turn: Message) -> bool:
    return bool(turn.get("tool_calls") or turn.get("reasoning_content"))
