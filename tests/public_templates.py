"""Every public chat template that the locked packages hold, judged by what a run would do with it.

Run as `python -m tests.public_templates` to write docs/templates.md anew.

llama.cpp's source package has templates of the families that it serves, TRL those that it trains;
none of them is copied here. Each is tried with a few conversations under a small tokenizer to which
the template's own markers are added as special tokens. A conversation is right where a server's
prompt is the beginning of what is trained, token for token, where the answer's words and the end of
the turn bear loss and nothing else, and where llama-server writes the same prompt, letter for
letter. Otherwise it is refused, with a reason.
"""

from __future__ import annotations

import importlib.util
import re
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from contract.conversation import Conversation, Message, Tool, ToolCall
from contract.errors import UserError
from contract.row_forms import BadRow
from launcher.display import Display
from launcher.project import ROOT
from launcher.runtime.llama_cpp_sources import download
from launcher.runtime.llama_cpp_tools import tools
from tests.tokenizing import tokenize
from trainer.base.smoke import write_tokenizer
from trainer.chat import render
from trainer.chat_template import chat_format, without_markers
from trainer.llama_server import ServerFailed
from trainer.loading import load_tokenizer
from trainer.rendering.stage import difference_of
from trainer.rendering.template_server import TemplateServer, template_server

DOCUMENT = ROOT / "docs" / "templates.md"
RIGHT = "✓"
TOOL: Tool = {
    "type": "function",
    "function": {
        "name": "read_stock",
        "description": "How much of it is in store.",
        "parameters": {
            "type": "object",
            "properties": {"depot": {"type": "string", "description": "Its town."}},
            "required": ["depot"],
        },
    },
}
# Mistral's templates demand nine letters or digits.
CALL: ToolCall = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "read_stock", "arguments": {"depot": "Lyon"}},
}


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _answer(content: str) -> Message:
    return {"role": "assistant", "content": content}


CONVERSATIONS = {
    "one turn": Conversation([_user("Où est l'été ?"), _answer("Là-bas, {x} !")]),
    "several turns": Conversation(
        [_user("Un ?"), _answer("C'est 1."), _user("Deux ?"), _answer('{"a": 2}')]
    ),
    "system prompt": Conversation(
        [
            {"role": "system", "content": "Réponds en JSON."},
            _user("Un ?"),
            _answer("1"),
            _user("Deux ?"),
            _answer("2 🎯"),
        ]
    ),
    "tools": Conversation(
        [
            _user("Combien à Lyon ?"),
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {
                "role": "tool",
                "tool_call_id": "call00001",
                "name": "read_stock",
                "content": '{"left": 7}',
            },
            _answer("Il en reste 7."),
        ],
        tools=[TOOL],
    ),
    "reasoning": Conversation(
        [
            _user("2 + 5 ?"),
            {"role": "assistant", "reasoning_content": "Deux et cinq.", "content": "7"},
        ]
    ),
}

# What public templates write around turns, as against the marks of reasoning and of tools.
_MARKER = re.compile(
    r"<\|[^|<>\s'\"{}]+\|>|<｜[^｜<>\s'\"{}]+｜>|<SPECIAL_\d+>|<turn\|>|<\|turn>|\[e~\["
    r"|</?(?:s|bos|eos|sep|assistant|start_of_turn|end_of_turn|seed:[be]os|end_of_sentence"
    r"|beginning_of_sentence|[A-Z_]+_TOKEN)>|\[/?(?:INST|SYSTEM_PROMPT)\]"
)
_ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<turn|>",
    "<|end|>",
    "<|END_OF_TURN_TOKEN|>",
    "<｜end▁of▁sentence｜>",
    "<|end_of_text|>",
    "<|return|>",
    "<|user|>",
    "[e~[",
)
_BEGINNINGS = ("<|begin_of_text|>", "<bos>", "<｜begin▁of▁sentence｜>", "<|startoftext|>")


@dataclass(frozen=True)
class Judgement:
    """What a run does with a conversation in a template: right, or refused for this reason."""

    reason: str | None
    rows: int = 0
    end: str = ""

    @property
    def cell(self) -> str:
        """For the table."""
        if self.reason is None:
            return RIGHT + (f" {self.rows} rows" if self.rows > 1 else "")
        return self.reason


def templates(scratch: Path) -> Iterator[tuple[str, str, str]]:
    """Every template's package, name and text."""
    download(scratch)
    with tarfile.open(next(scratch.glob("llama_cpp_python-*.tar.gz"))) as tar:
        found = {
            Path(member.name).stem: tar.extractfile(member)
            for member in tar
            if member.name.endswith(".jinja") and "/models/templates/" in member.name
        }
        for name in sorted(found):
            file = found[name]
            assert file is not None
            yield "llama.cpp", name, file.read().decode()
    # Not imported: that takes torch and half a minute.
    package = importlib.util.find_spec("trl")
    assert package is not None
    assert package.submodule_search_locations is not None
    (folder,) = package.submodule_search_locations
    for path in sorted((Path(folder) / "chat_templates").glob("*.jinja")):
        yield "TRL", path.stem, path.read_text(encoding="utf-8")


def tokenizer_for(template: str, folder: Path) -> Any:
    """A small tokenizer that knows the template's markers."""
    tokenizer = load_tokenizer(folder)
    # Nothing is run through a model: no length is too long.
    tokenizer.model_max_length = 10**6
    markers = list(dict.fromkeys(_MARKER.findall(template)))
    tokenizer.add_special_tokens({"additional_special_tokens": [*markers, "</s>"]})
    end = next((end for end in _ENDS if end in template), "</s>")
    tokenizer.add_special_tokens(
        {
            "eos_token": "</s>" if "eos_token" in template else end,
            "bos_token": next((word for word in _BEGINNINGS if word in template), "<s>"),
        }
    )
    tokenizer.chat_template = template
    return tokenizer


def judge(template: str, folder: Path, programs: Path) -> dict[str, Judgement]:
    """What a run does with each of the conversations, by its name."""
    found = {}
    settled: dict[bool, Any] = {}
    for name, conversation in CONVERSATIONS.items():
        reasons = name == "reasoning"
        tokenizer = tokenizer_for(template, folder)
        try:
            settled[reasons] = chat_format(
                tokenizer, [], thinking="auto", reasoning_in_data=reasons
            )
        except UserError as error:
            found[name] = Judgement(error.problems[0].what)
            continue
        tokenizer.chat_template = settled[reasons].template
        found[name] = _judged(tokenizer, settled[reasons], conversation, programs)
    return found


def _judged(tokenizer: Any, settled: Any, conversation: Conversation, programs: Path) -> Judgement:
    try:
        rows = tokenize(tokenizer, settled, conversation)
    except BadRow as bad:
        return Judgement(bad.what)
    except jinja2.TemplateError as error:
        return Judgement(f"is refused by the template: {error}")
    answers = [
        (index, message)
        for index, message in enumerate(conversation.messages)
        if message["role"] == "assistant"
    ]
    learned = [stretch for row in rows for stretch in _learned(tokenizer, row)]
    assert len(learned) == len(answers)
    for text, (_, message) in zip(learned, answers, strict=True):
        _check_learned(tokenizer, settled, text, message)
    for row in rows:
        assert row.input_ids[: len(row.prompt_ids)] == row.prompt_ids
    try:
        with template_server(
            programs, settled.template, bos=tokenizer.bos_token, eos=settled.ends[0]
        ) as server:
            for index, _ in answers:
                asked = conversation.messages[:index]
                if what := _difference(server, tokenizer, asked, conversation.tools):
                    return Judgement(f"llama-server writes another prompt: {what}")
    except ServerFailed as error:
        return Judgement(f"llama.cpp cannot read the template: {error}")
    return Judgement(None, rows=len(rows), end=settled.end)


def _difference(
    server: TemplateServer, tokenizer: Any, messages: list[Message], called: list[Tool]
) -> str | None:
    trained = render(tokenizer, messages, tools=called, add_generation_prompt=True)
    return difference_of(server, trained, messages, called)


def _learned(tokenizer: Any, row: Any) -> list[str]:
    """The learned stretches as text, one for each run of ones in the mask."""
    stretches: list[list[int]] = [[]]
    for token, bears_loss in zip(row.input_ids, row.completion_mask, strict=True):
        if bears_loss:
            stretches[-1].append(token)
        elif stretches[-1]:
            stretches.append([])
    return [tokenizer.decode(stretch) for stretch in stretches if stretch]


def _check_learned(tokenizer: Any, settled: Any, text: str, message: Message) -> None:
    """Assert that a learned stretch is the message's own words and an end of the turn."""
    ends = [tokenizer.decode(tokenizer.convert_tokens_to_ids([end])) for end in settled.ends]
    stop = next((end for end in ends if text.endswith(end)), None)
    assert stop is not None, text
    end = tokenizer.decode(tokenizer(settled.end, add_special_tokens=False)["input_ids"])
    words = text.removesuffix(end) if text.endswith(end) else text.removesuffix(stop)
    if "tool_calls" in message:
        assert "read_stock" in words
        assert "Lyon" in words
        return
    if reasoning := message.get("reasoning_content"):
        assert words.count(reasoning) == 1
        words = without_markers(words.replace(reasoning, ""))
    assert words.strip() == message["content"]


def document(judged: dict[tuple[str, str], dict[str, Judgement]]) -> str:
    """docs/templates.md."""
    right = sum(found["one turn"].reason is None for found in judged.values())
    lines = [
        "# Public chat templates",
        "",
        "What a run does with every chat template in the locked packages of llama.cpp and TRL,",
        "written by `python -m tests.public_templates` and held by a test.",
        "",
        f"Of {len(judged)} templates, {right} are right. *Right* means: the prompt that a server",
        "is sent is the beginning of what is trained, token for token; the answer's own words and",
        "the end of the turn bear loss, and nothing else; and llama-server writes the same prompt,",
        "letter for letter. Everything else is refused before training, for the reason in the",
        "notes. `2 rows`: each answer is a row of its own, since the template does not write",
        "earlier turns as it wrote them when they were answered.",
        "",
        "Data without reasoning are trained and served without it: a base that would reason has",
        "its reasoning block closed in every prompt (`thinking: auto`). Dates are frozen.",
        "",
        "| template | of | " + " | ".join(CONVERSATIONS) + " | end of a turn |",
        "|" + " --- |" * (len(CONVERSATIONS) + 3),
    ]
    notes: dict[str, int] = {}
    for (package, name), found in judged.items():
        cells = []
        for case in CONVERSATIONS:
            reason = found[case].reason
            if reason is None:
                cells.append(found[case].cell)
            else:
                cells.append(f"[{notes.setdefault(_as_note(reason), len(notes) + 1)}]")
        end = next((j.end for j in found.values() if j.reason is None), "")
        # A vertical bar would end the cell, in code as well.
        code = end.replace("\n", "\\n").replace("|", "\\|")
        cells.append(f"`{code}`" if code else "")
        lines.append(f"| {name} | {package} | {' | '.join(cells)} |")
    lines += ["", "Notes:", ""]
    lines += [f"{number}. {note}" for note, number in notes.items()]
    return "\n".join(lines) + "\n"


def _as_note(reason: str) -> str:
    flat = " ".join(reason.split())
    return flat.replace("<", "&lt;").replace("|", "\\|")


def judge_all() -> dict[tuple[str, str], dict[str, Judgement]]:
    """Every template's judgement, by its package and name."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "tokenizer"
        folder.mkdir()
        write_tokenizer(folder)
        programs = tools(Display())
        return {
            (package, name): judge(template, folder, programs)
            for package, name, template in templates(Path(scratch))
        }


if __name__ == "__main__":
    DOCUMENT.write_text(document(judge_all()), encoding="utf-8")
