"""A stage that the kernel kills for lack of memory goes on with less, as far as it said so.

The stage is a real process that kills itself; the kernel's count of such kills is a file of the
form that the kernel has. tests/container holds both against a real kernel.
"""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from contract import paths
from contract.errors import UserError
from contract.results.merge import MergeResult
from launcher.display import Display
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.runner import StageContext, StageFolder, StageRunner
from launcher.pipeline.stages import Stage
from launcher.runtime import oom_kills
from launcher.runtime.local_engine import LocalEngine

STAGE = Stage(name="merge", outputs=("adapter",), continues=True)
FALLBACK = paths.memory_fallback(STAGE.name)
# A stage that holds so much at a time, from eight on, and is killed where that is too much.
CODE = """
from contract import paths
from contract.events import MemoryFallback
from contract.results.merge import MergeResult

def killed(*, by_kernel):
    if by_kernel:
        count = int(open({counter!r}).read().split()[-1]) + 1
        open({counter!r}, "w").write(f"low 0\\noom_kill {{count}}\\n")
    os.kill(os.getpid(), signal.SIGKILL)

def would_go_on_with(size):
    changed = {{"size": size}} if size else None
    reporter.memory_fallback(MemoryFallback(changed=changed, text=f"size {{size}}"))

given = run / paths.memory_fallback("merge")
size = MemoryFallback.read(given).changed["size"] if given.exists() else 8
with (run / "sizes").open("a") as file:
    file.write(f"{{size}} ")
starts = len((run / "sizes").read_text().split())
{code}
out = run / paths.WORK / "merge" / "adapter"
out.mkdir()
(out / "weights").write_text(f"of {{size}}")
reporter.result(MergeResult(dtype="float16", merged=2))
"""
FITS = "would_go_on_with(size // 2)\nif size > {}: killed(by_kernel=True)"


class OddEngine(LocalEngine):
    """Runs tests/odd_stage.py in the place of a stage."""

    def run(self, job, on_event, display):
        odd = replace(job, module="tests.odd_stage", code_folder=None)
        return super().run(odd, on_event, display)


class Machine:
    """A run's folder, and a kernel that counts."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.counter = folder / "run", folder / "cgroup" / "memory.events"
        self.folder.mkdir()

    def run(self, code, key="k"):
        """Run the stage; what was said meanwhile."""
        whole = CODE.format(counter=str(self.counter), code=code)
        (self.folder / "code.py").write_text(whole)
        said = io.StringIO()
        display = Display(console=Console(file=said, width=200))
        stages = StageFolder(self.folder, FileDigests(self.folder.parent / "digests.json"))
        runner = StageRunner(stages, StageContext(lock="rtx"), engine=OddEngine(), display=display)
        try:
            self.result = runner.run(STAGE, key).typed_result(MergeResult)
        finally:
            self.notes = [line[4:] for line in said.getvalue().splitlines() if " · " in line]

    @property
    def sizes(self):
        """With how much at a time it was started, every time."""
        return [int(size) for size in (self.folder / "sizes").read_text().split()]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    made = Machine(tmp_path)
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/\n")
    made.counter.parent.mkdir()
    made.counter.write_text("low 0\noom_kill 3\n")
    monkeypatch.setattr(oom_kills, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(oom_kills, "_CONTROL_GROUPS", made.counter.parent)
    return made


def test_what_the_kernel_kills_goes_on_with_less_until_it_fits(machine):
    machine.run(FITS.format(2))
    assert machine.sizes == [8, 4, 2]
    out = "out of memory (merge was killed because this machine had none left); going on with "
    assert machine.notes == [f"{out}size 4", f"{out}size 2"]
    assert (machine.folder / "adapter" / "weights").read_text() == "of 2"
    assert not (machine.folder / paths.WORK).exists()


def test_what_a_person_kills_is_not_started_again(machine):
    with pytest.raises(UserError, match=r"by signal 9 .*by hand or by the kernel"):
        machine.run("would_go_on_with(4)\nkilled(by_kernel=False)")
    assert machine.sizes == [8]
    assert not (machine.folder / FALLBACK).exists()


def test_another_end_is_no_lack_of_memory_whatever_the_kernel_killed_meanwhile(machine):
    """The control group may have other processes."""
    bump = f"open({str(machine.counter)!r}, 'w').write('oom_kill 4\\n')\n"
    with pytest.raises(UserError, match=r"by signal 15"):
        machine.run(
            f"would_go_on_with(4)\n{bump}"
            "signal.signal(signal.SIGTERM, signal.SIG_DFL)\nos.kill(os.getpid(), signal.SIGTERM)"
        )
    assert machine.sizes == [8]


def test_where_nothing_is_left_to_give_up_it_ends_in_a_sentence(machine):
    with pytest.raises(UserError) as ended:
        machine.run(FITS.format(0))
    assert machine.sizes == [8, 4, 2, 1]
    assert str(ended.value) == (
        "merge: ran out of memory and was killed because this machine had none left. Close other "
        "programs, add swap, or take a smaller base. Finished stages are kept; run the same "
        "command to resume."
    )
    # With more memory, the recipe holds again.
    machine.run("")
    assert machine.sizes[-1] == 8


@pytest.mark.parametrize("said", ["", "would_go_on_with(4)\nwould_go_on_with(0)\n"])
def test_a_stage_that_less_would_not_help_is_not_started_again(machine, said):
    with pytest.raises(UserError, match="ran out of memory and was killed"):
        machine.run(f"{said}killed(by_kernel=True)")
    assert machine.sizes == [8]


def test_a_start_that_dies_before_it_says_anything_ends_the_run(machine):
    """Otherwise it would be started for ever."""
    with pytest.raises(UserError, match="ran out of memory and was killed"):
        machine.run("if starts == 1: would_go_on_with(4)\nkilled(by_kernel=True)")
    assert machine.sizes == [8, 4]


def test_after_a_power_cut_it_is_neither_undone_nor_done_twice(machine):
    cut = "would_go_on_with(size // 2)\nkilled(by_kernel=starts == 1)"
    with pytest.raises(UserError, match="by signal 9"):
        machine.run(cut)
    assert machine.sizes == [8, 4]
    for _ in range(2):
        with pytest.raises(UserError, match="by signal 9"):
            machine.run(cut)
    assert machine.sizes == [8, 4, 4, 4]
    machine.run(FITS.format(2))
    assert machine.sizes == [8, 4, 4, 4, 4, 2]


def test_another_recipe_begins_with_what_it_says(machine):
    with pytest.raises(UserError):
        machine.run("would_go_on_with(size // 2)\nkilled(by_kernel=starts == 1)")
    machine.run("", key="another")
    assert machine.sizes == [8, 4, 8]


@pytest.mark.parametrize(
    ("group", "files", "counted"),
    [
        # Version 2, on a machine and in a container, which has its own group at the top.
        ("0::/user.slice/a", {"cgroup/user.slice/a/memory.events": "max 7\noom_kill 2"}, 2),
        ("0::/docker/b", {"cgroup/memory.events": "oom 1\noom_kill 4\noom_group_kill 0"}, 4),
        # Version 1, alone or beside the other.
        (
            "4:cpu,memory:/c\n1:name=systemd:/c\n0::/",
            {
                "cgroup/memory/c/memory.oom_control": "under_oom 0\noom_kill 5",
                "cgroup/memory/memory.oom_control": "oom_kill 1",
                "cgroup/memory.events": "oom_kill 9",
            },
            5,
        ),
        # A group that counts nothing, and a system that has none of it.
        ("0::/", {"proc/vmstat": "nr_free_pages 12\noom_kill 6"}, 6),
        ("0::/", {}, 0),
        (None, {}, 0),
    ],
)
def test_the_kernels_count_is_found(tmp_path, monkeypatch, group, files, counted):
    if group is not None:
        files = {**files, "proc/self/cgroup": group}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(oom_kills, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(oom_kills, "_CONTROL_GROUPS", tmp_path / "cgroup")
    assert oom_kills.oom_kills() == counted
