"""What a training frees on a CPU is free: the next update needs no more than the first."""

import os
import subprocess
import sys
from pathlib import Path

# Blocks of 8 MB, aligned as torch aligns them, of which every second one is freed: below glibc's
# largest threshold, above ours.
BLOCKS = """
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
HOLES = """
import torch
from trainer.memory import give_back_free_pages, give_back_freed_blocks
# Below the threshold: blocks are not mapped one by one.
give_back_freed_blocks()
# Blocks of 1 MB, of which every second one is freed: nothing larger fits between them.
kept = [torch.ones(1 << 18) for _ in range(200)][::2]
if {called}:
    give_back_free_pages()
lines = open("/proc/self/status").read().splitlines()
print(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024)
"""


def resident_bytes(program, *, called):
    done = subprocess.run(
        [sys.executable, "-c", program.format(called=called)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "PYTHONPATH": "."},
    )
    return int(done.stdout)


def test_large_blocks_that_are_freed_go_back_to_the_system():
    freed_bytes = 20 * (8 << 20)
    saved = resident_bytes(BLOCKS, called=False) - resident_bytes(BLOCKS, called=True)
    assert saved > 0.8 * freed_bytes


def test_pages_that_lie_free_between_smaller_blocks_go_back_too():
    freed_bytes = 100 * (1 << 20)
    saved = resident_bytes(HOLES, called=False) - resident_bytes(HOLES, called=True)
    assert saved > 0.8 * freed_bytes
