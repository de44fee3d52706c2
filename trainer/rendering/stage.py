"""Stage `rendering`: see, before anything is trained, that llama.cpp writes the data's prompts as
they are trained.

llama-server (and Ollama from 0.30 on, which starts it) has a template engine of its own, and
knows some families by words in their templates. What it writes otherwise would be served otherwise
than it was trained; that is found here, letter for letter, and not after the training.
"""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from itertools import islice

from contract import paths
from contract.chat_format import ChatFormat
from contract.conversation import Message, Tool
from contract.errors import Problem, UserError
from contract.paths import StagePaths
from contract.results.rendering import RenderingResult
from trainer.chat import render
from trainer.entrypoint import Reporter
from trainer.llama_server import ServerFailed
from trainer.loading import load_tokenizer
from trainer.prepared import PreparedRow, read_prepared
from trainer.rendering.template_server import TemplateServer, template_server

# The first rows, and the first of each kind.
_ROWS = 24


def rendering(stage_paths: StagePaths, reporter: Reporter) -> None:
    """Make `rendering.json`, which says how many prompts were compared.

    Raises:
        UserError: llama.cpp writes a row's prompt otherwise, or cannot read the template.
    """
    chat_format = ChatFormat.read(stage_paths.run / paths.CHAT_FORMAT)
    tokenizer = load_tokenizer(stage_paths.require("base"))
    tokenizer.chat_template = chat_format.template
    rows = chosen_rows(read_prepared(stage_paths.run / paths.PREPARED_TRAIN))
    problems = []
    try:
        with template_server(
            stage_paths.require("tools"),
            chat_format.template,
            bos=tokenizer.bos_token,
            eos=chat_format.ends[0],
        ) as server:
            for number, row in enumerate(rows):
                reporter.progress("comparing prompts", done=number, total=len(rows), unit="rows")
                messages, tools = row["messages"][:-1], row["tools"]
                trained = render(tokenizer, messages, tools=tools, add_generation_prompt=True)
                if difference := difference_of(server, trained, messages, tools):
                    problems.append(
                        Problem(
                            where=row["where"],
                            what=f"would be served with another prompt than it is trained with: "
                            f"{difference}",
                            remedy="Use another base, or change chat_template in a copy of its "
                            "folder so that llama.cpp reads it in the same way.",
                        )
                    )
    except ServerFailed as error:
        raise UserError.one(
            "model_to_fine_tune",
            f"llama.cpp cannot read the base's chat template: {error}",
            "Use another base; its output is in the stage's log.",
        ) from error
    if problems:
        raise UserError(problems)
    reporter.progress("comparing prompts", done=len(rows), total=len(rows), unit="rows")
    result = RenderingResult(prompts=len(rows))
    result.write(stage_paths.output / paths.RENDERING)
    reporter.result(result)


def chosen_rows(rows: Sequence[PreparedRow]) -> list[PreparedRow]:
    """The first rows, and the first of every other sequence of roles, tools or none."""
    chosen = list(rows[:_ROWS])
    kinds = {_kind(row) for row in chosen}
    for row in islice(rows, _ROWS, None):
        if _kind(row) not in kinds and len(chosen) < 2 * _ROWS:
            kinds.add(_kind(row))
            chosen.append(row)
    return chosen


def _kind(row: PreparedRow) -> tuple[object, ...]:
    # Of long conversations, what their beginning shows.
    roles = tuple(message["role"] for message in row["messages"][:8])
    calls = any("tool_calls" in message for message in row["messages"])
    return (roles, bool(row["tools"]), calls)


def difference_of(
    server: TemplateServer, trained: str, messages: Sequence[Message], tools: Sequence[Tool]
) -> str | None:
    """Where the server's prompt differs from the trained one, and how; None where it does not."""
    try:
        served = server.prompt(messages, tools)
    except ServerFailed as error:
        return f"llama-server refuses it ({error})"
    if served == trained:
        return None
    start = len(os.path.commonprefix([served, trained]))  # noqa: RUF071 - of texts
    return f"{_from(served, start)} instead of {_from(trained, start)}"


def _from(text: str, start: int) -> str:
    begin = max(0, start - 12)
    return repr(text[begin : start + 28])
