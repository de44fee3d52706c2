"""Ask a model every question once: several at a time, each answer written down as it comes.

Whatever ends the work in the middle, the next time only what has no answer is asked.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO

from contract.conversation import Message, Tool
from contract.digest import digest_of_value
from launcher.serving.chat_model import Answer, ChatModel

Report = Callable[[int, int], None]
_Question = tuple[Sequence[Message], int, Sequence[Tool]]


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

        An error of one question ends it once the others on their way are answered; Ctrl-C ends it
        at once.

        Raises:
            UserError: nobody answers any more; what was answered is in the file.
        """
        missing = {key: asked for key, asked in self._asked.items() if key not in self._known}
        known = len(self._asked) - len(missing)
        with _appending(self._file) as file, _asking(model, missing, parallel) as answered:

            def keep(key: str, answer: Answer) -> None:
                line = json.dumps({"key": key, **asdict(answer)}, ensure_ascii=False)
                file.write(line + "\n")
                file.flush()
                self._known[key] = answer

            try:
                for number, (key, answer) in enumerate(answered, 1):
                    keep(key, answer)
                    on_progress(known + number, len(self._asked))
            except BaseException:
                for key, answer in answered.there_already():
                    keep(key, answer)
                raise


class _Answers:
    """Answers in the order in which they come; ends with the first error, behind all answers."""

    def __init__(self, model: ChatModel, questions: Mapping[str, _Question], parallel: int) -> None:
        self._model = model
        self._open = deque(questions.items())
        self._come: SimpleQueue[tuple[str, Answer | Exception | None]] = SimpleQueue()
        self._threads = min(parallel, len(questions))

    def start(self) -> None:
        """Begin to ask."""
        for _ in range(self._threads):
            # Nobody waits for them at the end: a server may be silent for half an hour.
            Thread(target=self._work, daemon=True).start()

    def stop(self) -> None:
        """Ask nothing more."""
        self._open.clear()

    def __iter__(self) -> Iterator[tuple[str, Answer]]:
        failed: Exception | None = None
        at_work = self._threads
        while at_work:
            key, outcome = self._come.get()
            if outcome is None:
                at_work -= 1
            elif isinstance(outcome, Exception):
                failed = failed or outcome
            else:
                yield key, outcome
        if failed is not None:
            raise failed

    def there_already(self) -> Iterator[tuple[str, Answer]]:
        """What has come and was not looked at yet."""
        with suppress(Empty):
            while True:
                key, outcome = self._come.get_nowait()
                if isinstance(outcome, Answer):
                    yield key, outcome

    def _work(self) -> None:
        try:
            while self._open:
                key, question = self._open.popleft()
                outcome: Answer | Exception
                try:
                    outcome = self._model.ask(*question)
                except Exception as error:
                    self.stop()
                    outcome = error
                self._come.put((key, outcome))
        except IndexError:
            # Another thread took the last one.
            pass
        finally:
            self._come.put(("", None))


@contextmanager
def _asking(
    model: ChatModel, questions: Mapping[str, _Question], parallel: int
) -> Iterator[_Answers]:
    """The answers to the questions; nothing is on its way any more when the block ends."""
    answers = _Answers(model, questions, parallel)
    answers.start()
    try:
        yield answers
    except BaseException:
        answers.stop()
        # The server is told, rather than left to write what nobody reads.
        model.abort()
        raise


def _read(file: Path) -> dict[str, Answer]:
    found = {}
    # At line feeds alone: an answer may hold what str.splitlines takes for one.
    for line in file.read_bytes().split(b"\n") if file.exists() else []:
        try:
            values = json.loads(line)
            key = values.pop("key")
            found[key] = Answer(**values)
        except (ValueError, TypeError, AttributeError, KeyError):
            # Cut off, or damaged: that question is asked again.
            continue
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
