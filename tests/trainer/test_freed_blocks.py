"""What a training frees on a CPU is free: the next update needs no more than the first."""

import os
import subprocess
import sys
from pathlib import Path

# Blocks of 8 MB, aligned as torch aligns them, of which every second one is freed: below glibc's
# largest threshold, above ours.
PROGRAM = """
import torch
from trainer.memory import give_back_freed_blocks
if {called}:
    give_back_freed_blocks()
# A block that was mapped and freed raises glibc's own threshold, as the loading of a base does.
for size in (1 << 20, 4 << 20, 7 << 20, 7 << 20):
    torch.ones(size)
kept = [torch.ones(2 << 20) for _ in range(40)][::2]
lines = open("/proc/self/status").read().splitlines()
print(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024)
"""


def resident_bytes(*, called):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(called=called)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "PYTHONPATH": "."},
    )
    return int(done.stdout)


def test_large_blocks_that_are_freed_go_back_to_the_system():
    freed_bytes = 20 * (8 << 20)
    saved = resident_bytes(called=False) - resident_bytes(called=True)
    assert saved > 0.8 * freed_bytes
