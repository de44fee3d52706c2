"""Questions from a bounded pool against one at a time: 500 rows on the smoke run's model.

`./invoke bench evaluate`, after `./invoke train --profile smoke`. It asks llama-server and, where
AFFINEUR_OLLAMA names programs (or `ollama` is on the PATH), Ollama servers that answer four at once
(OLLAMA_NUM_PARALLEL=4), each started for this. The two ways take turns on the same questions; what
counts are the ratios within this run.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.conversation import Message
from launcher.display import Display
from launcher.evaluate.evaluated_models import from_file
from launcher.evaluate.response_cache import ResponseCache
from launcher.pipeline.finished_run import Run
from launcher.serving.chat_model import ChatModel, OllamaModel
from launcher.serving.model_import import import_run
from launcher.serving.ollama_server import OllamaServer, server_version
from trainer.base.smoke_corpus import CLASSIFY, PRIORITIES, TYPES, draw_requirement

_MODEL = "affineur-smoke"
_ROWS, _ROUNDS, _PARALLEL, _BOUND_TOKENS = 500, 3, 4, 128
_QUIET = Display(quiet=True)


def questions() -> list[list[Message]]:
    """500 requirements of the smoke task's kind, from a seed, no two alike."""
    rng = random.Random(500)
    texts: dict[str, None] = {}
    while len(texts) < _ROWS:
        drawn = draw_requirement(rng, rng.choice(list(PRIORITIES)), rng.choice(list(TYPES)))
        texts[drawn.sentence] = None
    return [[{"role": "user", "content": f"{CLASSIFY}\n\n{text}"}] for text in texts]


def measure(model: ChatModel) -> None:
    """Ask everything both ways in turn, and print medians and their ratio."""
    asked = questions()
    seconds: dict[int, list[float]] = {1: [], _PARALLEL: []}
    answers: dict[int, list[str]] = {}
    # The model is loaded, and its memory is warm.
    model.ask(asked[0], _BOUND_TOKENS)
    for _ in range(_ROUNDS):
        for parallel, taken in seconds.items():
            with tempfile.TemporaryDirectory() as scratch:
                sheet = ResponseCache(
                    Path(scratch) / "answers", asked, [_BOUND_TOKENS] * len(asked)
                )
                started_s = time.monotonic()
                sheet.ask(model, parallel, lambda done, total: None)
                taken.append(time.monotonic() - started_s)
                answers[parallel] = [answer.text for answer in sheet.answers]
    one, several = (statistics.median(seconds[parallel]) for parallel in (1, _PARALLEL))
    same = sum(a == b for a, b in zip(answers[1], answers[_PARALLEL], strict=True))
    print(
        f"{model.by:<16} {_ROWS} rows: one at a time {one:6.1f} s, {_PARALLEL} at once "
        f"{several:6.1f} s (medians of {_ROUNDS}): {one / several:.2f} times as fast; "
        f"{same} of {_ROWS} answers the same"
    )


@contextmanager
def ollama(program: str) -> Iterator[OllamaServer]:
    """A server with a store of its own, four requests at once, on a port that is free."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["OLLAMA_HOST"] = "127.0.0.1:11599"
        environment = {**os.environ, "HOME": home, "OLLAMA_NUM_PARALLEL": str(_PARALLEL)}
        with (Path(home) / "log").open("w") as log:
            process = subprocess.Popen(
                [program, "serve"],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + 60
            while server_version() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            yield OllamaServer.found()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main() -> None:
    """Measure each server that is there."""
    run = Run.find(_MODEL)
    with from_file(run.files, _PARALLEL, _QUIET).start() as model:
        measure(model)
    given = os.environ.get("AFFINEUR_OLLAMA", "") or shutil.which("ollama") or ""
    for program in filter(None, given.split(":")):
        with ollama(program) as server:
            imported = import_run(run, _MODEL, server, display=_QUIET)
            measure(OllamaModel(server, imported.name, imported.name, imported.digest))


if __name__ == "__main__":
    main()
