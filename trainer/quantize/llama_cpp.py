"""Call llama.cpp's compiled tools. The only module that knows their flags and what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from contract.child_environment import Purpose, child_environment
from contract.errors import UserError

OnProgress = Callable[[int, int], None]
# llama-imatrix: `computing over 24 chunks, ...`, then `[1]12.3,[2]11.9,...` on one line.
_CHUNKS = re.compile(r"computing over (\d+) chunks")
_CHUNK = re.compile(r"\[(\d+)\]\d")
# llama-quantize: `[  12/ 147] blk.3.ffn_up.weight - [...]`, and at its end how many tensors have a
# width that the type does not take.
_TENSOR = re.compile(r"\[ *(\d+)/ *(\d+)\]")
_FALLBACKS = re.compile(r"(\d+) of \d+ tensor\(s\) required fallback")


def write_imatrix(
    tools: Path,
    gguf: Path,
    *,
    text: Path,
    imatrix: Path,
    context: int,
    chunks: int,
    on_progress: OnProgress,
) -> None:
    """Run the model over a text and write the importance of each column of each weight.

    Args:
        text: with special tokens written out; they are read as such.
        imatrix: where to write it, beside the text.
        context: tokens per chunk, a power of two; the text has at least twice as many.
        chunks: at most this many are read.
        on_progress: called with the chunks done, and how many there are.

    Raises:
        UserError: the tool failed.
    """
    total = chunks

    def on_text(output: str) -> None:
        nonlocal total
        if found := _CHUNKS.search(output):
            total = int(found[1])
        if done := _CHUNK.findall(output):
            on_progress(int(done[-1]), total)

    # By name and from their folder: the file records the text that it was made from.
    arguments = ["--model", str(gguf.absolute()), "--file", text.name]
    arguments += ["--output-file", imatrix.name]
    arguments += ["--ctx-size", str(context), "--batch-size", str(context), "--chunks", str(chunks)]
    arguments += ["--threads", str(_threads()), "--parse-special"]
    _run(tools / "llama-imatrix", arguments, folder=imatrix.parent, on_text=on_text)


def quantize_gguf(
    tools: Path,
    source: Path,
    target: Path,
    *,
    kind: str,
    imatrix: Path | None,
    on_progress: OnProgress,
) -> int:
    """Quantize a GGUF file into another one.

    Args:
        kind: `q4_k_m` and the like.
        imatrix: a file beside the target, which records its name.
        on_progress: called with the tensors done, and how many there are.

    Returns:
        How many tensors were given a larger type, because their rows have a length that this one
        does not take.

    Raises:
        UserError: the tool failed.
    """

    def on_text(output: str) -> None:
        if found := _TENSOR.findall(output):
            on_progress(*(int(number) for number in found[-1]))

    arguments = ["--imatrix", imatrix.name] if imatrix is not None else []
    arguments += [str(source.absolute()), target.name, kind.upper(), str(_threads())]
    output = _run(tools / "llama-quantize", arguments, folder=target.parent, on_text=on_text)
    found = _FALLBACKS.search(output)
    return int(found[1]) if found else 0


def _threads() -> int:
    # Each number is computed by one thread: how many there are changes none of them.
    return os.cpu_count() or 1


def _run(
    program: Path, arguments: Sequence[str], *, folder: Path, on_text: Callable[[str], None]
) -> str:
    """Run a tool in a folder; its output goes to the stage's log, and is returned.

    Raises:
        UserError: it failed.
    """
    output = ""
    with subprocess.Popen(
        [str(program), *arguments],
        cwd=folder,
        env=child_environment(Purpose.LLAMA_CPP),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            assert process.stdout is not None
            # Not line by line: progress comes without line ends.
            while piece := os.read(process.stdout.fileno(), 65536):
                text = piece.decode(errors="replace")
                sys.stderr.write(text)
                output += text
                on_text(output[-1000:])
            code = process.wait()
        except BaseException:
            process.kill()
            raise
    if code:
        raise UserError.one(
            program.name,
            f"exited with code {code}: {_error_line(output)}",
            "Its whole output is in the stage's log.",
        )
    return output


def _error_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"error|fail|need at least", line, re.IGNORECASE)]
    return (errors or lines or ["it printed nothing"])[-1]
