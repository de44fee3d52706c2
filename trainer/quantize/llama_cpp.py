"""Call llama.cpp's compiled tools. The only module that knows their flags and what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from contract.errors import UserError

OnProgress = Callable[[int, int], None]
# llama-imatrix: `computing over 24 chunks, ...`, then `[1]12.3,[2]11.9,...` on one line.
_CHUNKS = re.compile(r"computing over (\d+) chunks")
_CHUNK = re.compile(r"\[(\d+)\]\d")
# llama-quantize: `[  12/ 147] blk.3.ffn_up.weight - [...]`, and at its end how many columns were
# of a width that the type does not take.
_TENSOR = re.compile(r"\[ *(\d+)/ *(\d+)\]")
_FALLBACKS = re.compile(r"(\d+) of \d+ tensor\(s\) required fallback")


def write_imatrix(
    tools: Path,
    gguf: Path,
    text: Path,
    imatrix: Path,
    *,
    context: int,
    chunks: int,
    on_progress: OnProgress,
) -> None:
    """Run the model over a text and write how much each column of each weight matters.

    Args:
        text: with special tokens written out; they are read as such.
        context: tokens of a chunk, a power of two; the text has at least twice as many.
        chunks: at most so many are read.
        on_progress: chunks done, of how many.

    Raises:
        UserError: the tool failed.
    """
    total = chunks

    def on_text(said: str) -> None:
        nonlocal total
        if found := _CHUNKS.search(said):
            total = int(found[1])
        if done := _CHUNK.findall(said):
            on_progress(int(done[-1]), total)

    # By name and from their folder: the file records what it was made of.
    words = ["--model", gguf.name, "--file", text.name, "--output-file", imatrix.name]
    words += ["--ctx-size", str(context), "--batch-size", str(context), "--chunks", str(chunks)]
    words += ["--threads", str(_threads()), "--parse-special"]
    _run(tools / "llama-imatrix", words, gguf.parent, on_text)


def quantize_gguf(
    tools: Path,
    gguf: Path,
    rounded: Path,
    kind: str,
    imatrix: Path | None,
    on_progress: OnProgress,
) -> int:
    """Round a GGUF file into another one.

    Args:
        kind: `q4_k_m` and the like.
        on_progress: tensors done, of how many.

    Returns:
        How many tensors have rows of a length that the type does not take: they were given a
        larger type.

    Raises:
        UserError: the tool failed.
    """

    def on_text(said: str) -> None:
        if found := _TENSOR.findall(said):
            on_progress(*(int(number) for number in found[-1]))

    words = ["--imatrix", imatrix.name] if imatrix is not None else []
    words += [gguf.name, rounded.name, kind.upper(), str(_threads())]
    said = _run(tools / "llama-quantize", words, gguf.parent, on_text)
    found = _FALLBACKS.search(said)
    return int(found[1]) if found else 0


def _threads() -> int:
    # Each number is one thread's: how many there are changes none of them.
    return os.cpu_count() or 1


def _run(program: Path, words: Sequence[str], folder: Path, on_text: Callable[[str], None]) -> str:
    """Run a tool in a folder, with all that it says in the stage's log, and return that.

    Raises:
        UserError: it ended otherwise than well.
    """
    said = ""
    with subprocess.Popen(
        [str(program), *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            assert process.stdout is not None
            # Not by lines: progress comes without any.
            while piece := os.read(process.stdout.fileno(), 65536):
                text = piece.decode(errors="replace")
                sys.stderr.write(text)
                said += text
                on_text(said[-1000:])
            code = process.wait()
        except BaseException:
            process.kill()
            raise
    if code:
        raise UserError.one(
            program.name,
            f"ended with code {code}: {_complaint(said)}",
            "The stage's log has all that it said.",
        )
    return said


def _complaint(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"error|fail|need at least", line, re.IGNORECASE)]
    return (errors or lines or ["it said nothing"])[-1]
