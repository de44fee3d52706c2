"""What the stage `preflight` costs, beside starting the libraries that every training starts.

`./invoke bench preflight`. The base is Qwen2.5-1.5B's configuration and tokenizer without its
weights. Each runs in a process of its own, in turn; the time is the processor's, so that other work
on the machine counts less. What is printed last is a ratio within this run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from contract import paths
from launcher.configuration import resolve
from launcher.display import Display
from launcher.runtime.llama_cpp_sources import llama_cpp

_ROUNDS = 3


def main() -> None:
    """Make the base, run both in turn, print figures and the ratio."""
    from tests import bases

    with tempfile.TemporaryDirectory() as scratch:
        base = bases.qwen_without_weights(Path(scratch) / "base", Path(scratch))
        run = Path(scratch) / "run"
        run.mkdir()
        resolve("rtx").write(run / paths.RECIPE)
        stage = ["-m", "trainer.preflight", "--run", str(run), "--base", str(base)]
        commands = {
            "preflight": [*stage, "--llama-cpp", str(llama_cpp(Display()))],
            "imports": ["-c", "import torch, transformers, peft, trl"],
        }
        used_s: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(_ROUNDS):
            for name, command in commands.items():
                used_s[name].append(_processor_s(command))
    for name, seconds in used_s.items():
        print(f"{name:<9} {statistics.median(seconds):5.1f} s (median of {_ROUNDS})")
    ratio = statistics.median(used_s["preflight"]) / statistics.median(used_s["imports"])
    print(f"preflight / imports: {ratio:.2f}")


def _processor_s(command: list[str]) -> float:
    before = os.times()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


if __name__ == "__main__":
    main()
