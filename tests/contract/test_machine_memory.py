"""A container's limit counts, whichever version of control groups has it."""

import pytest

from contract import machine_memory
from contract.machine_memory import free_memory_bytes, memory_bytes

GB = 10**9
SECOND = {
    "memory.max": f"{4 * GB}\n",
    "memory.current": f"{3 * GB}\n",
    "memory.stat": f"anon {GB}\ninactive_file {2 * GB}\n",
}
FIRST = {
    "memory/memory.limit_in_bytes": f"{4 * GB}\n",
    "memory/memory.usage_in_bytes": f"{3 * GB}\n",
    "memory/memory.stat": f"inactive_file 5\ntotal_inactive_file {2 * GB}\n",
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 64 GB, 32 of them free, with these files of control groups."""

    def make(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        (tmp_path / "meminfo").write_text("MemTotal: 1 kB\nMemAvailable: 31250000 kB\n")
        monkeypatch.setattr(machine_memory, "_MEMINFO", tmp_path / "meminfo")
        monkeypatch.setattr(machine_memory, "_CONTROL_GROUPS", tmp_path)
        pages = {"SC_PHYS_PAGES": 64 * GB // 4096, "SC_PAGE_SIZE": 4096}
        monkeypatch.setattr(machine_memory.os, "sysconf", pages.__getitem__)

    return make


@pytest.mark.parametrize("files", [SECOND, FIRST], ids=["version 2", "version 1"])
def test_a_limit_counts_and_cached_files_give_way(machine, files):
    machine(files)
    assert memory_bytes() == 4 * GB
    assert free_memory_bytes() == 3 * GB


@pytest.mark.parametrize(
    "files",
    [{}, {**SECOND, "memory.max": "max\n"}, {**FIRST, "memory/memory.limit_in_bytes": str(2**62)}],
    ids=["none", "version 2", "version 1"],
)
def test_without_a_limit_it_is_the_machines(machine, files):
    machine(files)
    assert memory_bytes() == 64 * GB
    assert free_memory_bytes() == 32 * GB


def test_a_system_that_does_not_say_is_not_guessed(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_memory, "_MEMINFO", tmp_path / "none")
    assert free_memory_bytes() is None


def test_this_machine_has_some():
    assert memory_bytes() > free_memory_bytes() > 0
