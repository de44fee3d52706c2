"""Ask a model every question once: several at a time, each answer written down as it comes.

Whatever ends the work in the middle, the next time only what has no answer is asked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO

from contract.conversation import Message, Tool
from contract.digest import digest_of_value
from launcher.serving.chat_model import Answer, ChatModel

Report = Callable[[int, int], None]


class ResponseCache:
    """One model's answers to a list of conversations, in a file that only grows."""

    def __init__(
        self,
        file: Path,
        conversations: Sequence[Sequence[Message]],
        max_new_tokens: Sequence[int],
        tools: Sequence[Sequence[Tool]] | None = None,
    ) -> None:
        """Read what was answered before.

        Args:
            file: of this model alone; other questions' answers may stand in it, too.
            conversations: what is asked.
            max_new_tokens: the most that the answer to each may have.
            tools: what may be called in each conversation; None for nothing anywhere.
        """
        self._file = file
        able = tools or [()] * len(conversations)
        asked = list(zip(conversations, max_new_tokens, able, strict=True))
        self._keys = [_key(*question) for question in asked]
        self._asked = dict(zip(self._keys, asked, strict=True))
        self._known = _read(file)

    @property
    def missing(self) -> int:
        """How many questions have no answer yet; one that stands in two sets is asked once."""
        return len(self._asked.keys() - self._known.keys())

    @property
    def answers(self) -> list[Answer]:
        """The answers in the order of the conversations, once none is missing."""
        return [self._known[key] for key in self._keys]

    def ask(self, model: ChatModel, parallel: int, on_progress: Report) -> None:
        """Ask what is missing, at most so many questions at once.

        Raises:
            UserError: nobody answers any more; what was answered is in the file.
        """
        total = len(self._asked)
        with _appending(self._file) as file, ThreadPoolExecutor(parallel) as pool:
            waiting = {
                pool.submit(model.ask, *question): key
                for key, question in self._asked.items()
                if key not in self._known
            }

            def keep(future: Future[Answer]) -> None:
                key, answer = waiting.pop(future), future.result()
                line = json.dumps({"key": key, **asdict(answer)}, ensure_ascii=False)
                file.write(line + "\n")
                file.flush()
                self._known[key] = answer

            try:
                for future in as_completed(list(waiting)):
                    keep(future)
                    on_progress(total - len(waiting), total)
            except BaseException:
                # Those on their way are waited for, and kept where they come to something.
                pool.shutdown(cancel_futures=True)
                for future in [*waiting]:
                    if not future.cancelled() and future.exception() is None:
                        keep(future)
                raise


def _read(file: Path) -> dict[str, Answer]:
    found = {}
    # At line feeds alone: an answer may hold what str.splitlines takes for one.
    for line in file.read_text(encoding="utf-8").split("\n") if file.exists() else []:
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            # The last one was cut off.
            continue
        key = values.pop("key")
        found[key] = Answer(**values)
    return found


def _key(messages: Sequence[Message], max_new_tokens: int, tools: Sequence[Tool]) -> str:
    asked = {"messages": list(messages), "tools": list(tools), "bound": max_new_tokens}
    # What is taken for the answer, of what a server says: see `contract.answer_text`.
    return digest_of_value({**asked, "answers": "without reasoning"})[:32]


@contextmanager
def _appending(file: Path) -> Iterator[IO[str]]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as existing:
        if existing.tell() and _last_byte(existing) != b"\n":
            existing.write(b"\n")
    with file.open("a", encoding="utf-8") as opened:
        yield opened


def _last_byte(file: IO[bytes]) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)
