"""The benchmark of trainers: what it makes of figures, of arguments, and of a process."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import train
from benchmarks.peers import environments, figures, process, workspace
from benchmarks.peers.figures import Figures, Line, Training
from benchmarks.peers.tools import REFERENCE, TOOLS, Task, Tool
from benchmarks.peers.workspace import Workspace
from contract.errors import UserError
from contract.recipe import TrainSection
from launcher.configuration import resolve
from launcher.project import ROOT


def training(number, wall_s, **more):
    values = {
        "round": number,
        "wall_s": wall_s,
        "cpu_s": 2 * wall_s,
        "training_s": wall_s - 5,
        "peak_bytes": 10**9,
        "trained_tokens": 1000,
        "tokens": 2000,
        "padded_tokens": 3000,
        "held_out_loss": 1.25,
        "adapter_parameters": 7,
        "adapter_sha256": "0" * 64,
    }
    return Training(**{**values, **more})


def line(name, *seconds, failure=None, **more):
    trainings = [training(number, wall_s, **more) for number, wall_s in enumerate(seconds, 1)]
    return Line(name=name, version="1.0", trainings=trainings, failure=failure)


def row(lines, name):
    cells = next(cells for cells in figures.cells(lines) if cells[0].startswith(name))
    return dict(zip(figures.COLUMNS, cells, strict=False))


def figures_of(lines):
    return Figures(
        base="smoke",
        settings=["precision=bf16"],
        rows=512,
        rounds=3,
        device="cpu",
        threads=2,
        machine="2 x processor",
        torch="2.13.0",
        base_loss=6.5,
        prepare_wall_s=4,
        prepare_cpu_s=5,
        lines=lines,
    )


LINES = [
    line("affineur", 10, 30, 20, peak_bytes=5 * 10**8),
    line(REFERENCE, 20, 90, 50),
    line("LLaMA-Factory", 40, failure="took more than 3 h"),
    line("Unsloth", failure="trains on a GPU alone"),
]


def test_figures_are_medians_and_ratios_are_of_one_round():
    ours = row(LINES, "affineur")
    assert (ours["wall s"], ours["CPU s"], ours["loop s"]) == ("20.0", "40.0", "15.0")
    assert ours["completion tokens/s"] == "50"
    # 20/10, 90/30 and 50/20: the medians' own ratio would be 50/20 as well, but not its range.
    assert ours["speed ratio"] == "2.50 (2.00–3.00)"
    assert ours["CPU ratio"] == "0.40 (0.33–0.50)"
    assert ours["memory ratio"] == "0.50 (0.50–0.50)"
    assert row(LINES, REFERENCE)["speed ratio"] == "1.00 (1.00–1.00)"


def test_a_ratio_counts_the_rounds_that_both_were_in():
    late = Line(name="late", version="", trainings=[training(2, 45), training(4, 1)])
    assert figures.ratios(late, LINES[1], lambda one: one.wall_s) == [0.5]


def test_without_the_reference_there_are_figures_and_no_ratios():
    ours = row([LINES[0]], "affineur")
    assert (ours["wall s"], ours["speed ratio"], ours["memory ratio"]) == ("20.0", "–", "–")


def test_a_failure_is_a_line_of_the_table_with_its_reason():
    text = figures.markdown(figures_of(LINES))
    rows = [part for part in text.splitlines() if part.startswith("|")]
    assert len({part.count("|") for part in rows}) == 1
    assert any(part.startswith("| Unsloth 1.0 | trains on a GPU alone |") for part in rows)
    assert "LLaMA-Factory failed after 1 rounds: took more than 3 h." in text
    assert "precision=bf16" in text
    assert "6.5000" in text


def test_the_table_fits_a_terminal_and_names_no_tool_that_was_not_measured():
    console = Console(width=80, file=io.StringIO())
    console.print(figures.terminal_table(LINES))
    shown = console.file.getvalue()
    assert "…" not in shown
    assert "Unsloth" not in shown
    assert shown.splitlines()[1].split()[:4] == ["affineur", "20.0", "40.0", "0.50"]
    assert figures.failures(LINES) == [
        "Unsloth 1.0: trains on a GPU alone",
        "LLaMA-Factory failed after 1 rounds: took more than 3 h",
    ]


def test_a_tool_that_trained_other_tokens_is_named():
    said = figures.differences([line("one", 5), line("other", 5, trained_tokens=1064)], 1000)
    assert said == ["other trained 1,064 completion tokens, 64 more than this project's 1,000"]


def test_adapters_of_several_sizes_are_named():
    alike = [line("one", 5), line("two", 5), line("none", failure="fell over")]
    assert figures.differences(alike, 1000) == []
    said = figures.differences([*alike, line("other", 5, adapter_parameters=9)], 1000)
    assert said == [
        f"{name} trained an adapter of {size} parameters"
        for name, size in (("one", 7), ("two", 7), ("other", 9))
    ]


def test_figures_are_written_and_read_again(tmp_path):
    whole = figures_of(LINES)
    whole.write(tmp_path / "figures.json")
    assert Figures.read(tmp_path / "figures.json") == whole


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is not there"),
        ('{"question": "a", "answer": "b"}\n', "has 1 rows, and 512 to train on"),
        ('{"question": "a"}\n', ":1: is no row with `question` and `answer`"),
        ("[1]\n", ":1: is no row with `question` and `answer`"),
        ('{"question": 1, "answer": "b"}\n', ":1: has a question or an answer that is no text"),
    ],
)
def test_rows_that_cannot_be_used_are_one_sentence_with_a_remedy(tmp_path, content, said):
    file = tmp_path / "rows.jsonl"
    if content is not None:
        file.write_text(content)
    done = benchmark("--data", str(file))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "openai/gsm8k" in done.stderr or "--rows" in done.stderr


def test_an_unknown_trainer_is_named_with_the_known_ones():
    done = benchmark("--only", "affineur,trl stf")
    assert done.returncode == 2
    assert "trl stf" in done.stderr
    assert "trl sft" in done.stderr
    assert "Traceback" not in done.stderr


def test_rounds_below_one_are_refused():
    done = benchmark("--rounds", "0")
    assert done.returncode == 2
    assert "must be at least 1" in done.stderr


def benchmark(*flags):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.train", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_trainers_are_chosen_by_name():
    assert [tool.name for tool in train.chosen("Oumi, AFFINEUR")] == ["affineur", "Oumi"]
    assert train.chosen("") == list(TOOLS)


def test_rows_are_those_asked_for_and_the_next_are_held_out(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [{"question": f"q{number}", "answer": f"a{number}"} for number in range(100)]
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    trained, held_out = workspace.read_rows(file, 30)
    assert trained == rows[:30]
    assert held_out == rows[30 : 30 + workspace.HELD_OUT_ROWS]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("base", workspace.BASES.values(), ids=lambda base: base.name)
def test_every_trainer_is_told_the_same_task(tmp_path, base, device):
    files = [tmp_path / "train.jsonl", tmp_path / "held_out.jsonl"]
    own = ["learning_rate=7.5e-4", "lora_rank=24", "seed=1234567", "weight_decay=0.0125"]
    settings = workspace.settings(*files, device=device, threads=2, own=own)
    recipe = resolve(base.profile, settings=settings)
    run = tmp_path / "run"
    run.mkdir()
    recipe.write(run / "recipe.json")
    task = Task(
        base=tmp_path / "base",
        system=base.system,
        rows=[{"question": "one?", "answer": "two!"}],
        run=run,
        recipe=recipe.section(TrainSection),
        max_length=recipe.max_length,
    )
    assert task.on_gpu == (device == "cuda")
    tools = [tool for tool in TOOLS if not tool.impossible(device)]
    assert len(tools) == (len(TOOLS) if task.on_gpu else len(TOOLS) - 1)
    for number, tool in enumerate(tools):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = tool.begin(task, folder)
        written = [path.read_text() for path in folder.rglob("*") if path.is_file()]
        told = " ".join([*command, *written])
        for value in ("0.00075", "24", "1234567", "0.0125", "1024", "cosine", str(task.base)):
            assert value in told, (tool.name, value)
        if tool.package or tool.name == REFERENCE:
            assert "one?" in told
            assert "two!" in told


def test_every_trainer_of_its_own_environment_has_a_lock_that_names_it():
    versions = {tool.name: tool.version for tool in TOOLS}
    assert all(versions.values())
    locks = {path.stem for path in environments.LOCKS.glob("*.lock")}
    assert locks == {tool.package for tool in TOOLS if tool.package}


def test_the_adapter_is_the_last_one_and_no_checkpoint(tmp_path):
    for name in ("out/v0/checkpoint-4", "out/checkpoint-2", "out"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "adapter_model.safetensors").touch()
    assert train.find_adapter(tmp_path).parent == tmp_path / "out"
    with pytest.raises(UserError, match="wrote no adapter"):
        train.find_adapter(tmp_path / "out" / "v0" / "none")


def measured(tmp_path, code, timeout_s=60.0):
    return process.measure(
        [sys.executable, "-c", code],
        folder=tmp_path,
        environment={"PATH": os.environ["PATH"]},
        log=tmp_path / "log",
        timeout_s=timeout_s,
    )


def test_a_process_is_measured_with_what_it_started(tmp_path):
    # A child takes memory and the processor; the process itself does neither.
    work = "x = b'x' * 200_000_000; t = __import__('time')\\nwhile t.process_time() < 1.0: pass"
    usage = measured(
        tmp_path, f"import subprocess, sys; subprocess.run([sys.executable, '-c', '''{work}'''])"
    )
    assert usage.code == 0, (tmp_path / "log").read_text()
    assert usage.cpu_s >= 1.0
    assert usage.wall_s > 0
    assert 200_000_000 < usage.peak_bytes < 2_000_000_000
    assert not usage.timed_out


def test_what_takes_too_long_is_ended_with_what_it_started(tmp_path):
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()"
    )
    usage = measured(tmp_path, code, timeout_s=3.0)
    assert usage.timed_out
    assert usage.code < 0
    child = int((tmp_path / "log").read_text())
    deadline_s = time.monotonic() + 30
    while is_running(child) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not is_running(child)


def is_running(number):
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("said", "last"),
    [
        ("one\nValueError: no such base\n\n\rtidying up\n", "ValueError: no such base"),
        ("one\ntwo\n", "two"),
        ("", "it said nothing"),
    ],
)
def test_the_last_words_of_a_log_are_its_last_error(tmp_path, said, last):
    (tmp_path / "log").write_text(said)
    assert process.last_words(tmp_path / "log") == last


_STAND_IN = """
import torch

class Trainer:
    def training_step(self, model, inputs, num_items_in_batch=None):
        return "a loss"

    def train(self, fails=False):
        padded = {
            "input_ids": torch.zeros(2, 5, dtype=torch.long),
            "attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]),
            "labels": torch.tensor([[-100, 4, 4, -100, -100], [-100, -100, -100, 4, 4]]),
        }
        packed = {
            "input_ids": torch.zeros(1, 7, dtype=torch.long),
            "labels": torch.tensor([[-100, 4, 4, -100, 4, 4, 4]]),
        }
        for inputs in (padded, packed, {"pixels": None}):
            assert self.training_step(None, inputs, num_items_in_batch=1) == "a loss"
        if fails:
            raise ValueError("on the way")
        return "trained"
"""


@pytest.mark.parametrize("fails", [False, True])
def test_tokens_are_counted_from_inside_a_process_however_batches_are_made(tmp_path, fails):
    package = tmp_path / "packages" / "transformers"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "trainer.py").write_text(_STAND_IN)
    counts = tmp_path / "counts.json"
    code = (
        "from transformers.trainer import Trainer\n"
        "class Theirs(Trainer):\n"
        "    def training_step(self, *args, **kwargs):\n"
        "        return super().training_step(*args, **kwargs)\n"
        f"print(Theirs().train({fails}))"
    )
    variables = workspace.probe(counts)
    variables["PYTHONPATH"] += f":{package.parent}"
    # As the console scripts of some trainers do, it trains in a process of its own.
    inner = [sys.executable, "-c", code]
    done = subprocess.run(
        [sys.executable, "-c", f"import subprocess; subprocess.run({inner})"],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("on the way" in done.stderr) == fails, done.stderr
    assert ("trained" in done.stdout) != fails
    found = train.Counts.read(counts)
    assert (found.batches, found.trained_tokens) == (2, 9)
    assert (found.tokens, found.padded_tokens) == (15, 17)


def test_ours_and_the_others_run_in_one_environment_without_a_launcher(tmp_path):
    found = workspace.environment(tmp_path, "cpu", 2, **workspace.probe(tmp_path / "counts"))
    assert found["CUDA_VISIBLE_DEVICES"] == ""
    assert found["OMP_NUM_THREADS"] == "2"
    assert found["HOME"] == str(tmp_path)
    assert found["HF_HUB_OFFLINE"] == "1"
    assert found["DO_NOT_TRACK"] == "1"
    assert "AFFINEUR_LAUNCHED" not in found
    assert [name for name in found if name.startswith("AFFINEUR_")] == ["AFFINEUR_BENCHMARK_COUNTS"]


def test_a_tool_that_fails_is_a_line_and_is_not_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "LOGS", tmp_path / "logs")
    begun = []

    def broken(name, code):
        def begin(_task, folder):
            begun.append(name)
            if name == "forgets":
                counted = train.Counts(
                    batches=1,
                    trained_tokens=3,
                    tokens=4,
                    padded_tokens=5,
                    training_s=1,
                    gpu_peak_bytes=0,
                )
                counted.write(folder / "counts.json")
            return ["moved" if name == "moved" else "python", "-c", code]

        return Tool(name, None, begin)

    tools = [
        broken("raises", "raise ValueError('no such base')"),
        broken("idle", "pass"),
        broken("forgets", "pass"),
        broken("moved", "pass"),
    ]
    (tmp_path / "base").mkdir()
    recipe = TrainSection.model_construct(device="cpu")
    task = Task(tmp_path / "base", None, [], tmp_path, recipe, 8)
    usage = process.Usage(0, 1.0, 1.0, 1, timed_out=False)
    comparison = train.Comparison(
        tools,
        Workspace(task, tmp_path / "held_out.jsonl", 3, usage),
        {tool.name: Path(sys.executable) for tool in tools},
        2,
        {tool.name: line(tool.name) for tool in tools},
    )
    said, kept = [], []
    comparison.run(3, said.append, lambda: kept.append(dict(comparison.lines)))
    assert begun == ["raises", "idle", "forgets", "moved"]
    assert [one.failure for one in comparison.lines.values()] == [
        "ValueError: no such base",
        "ended well, and trained nothing",
        "wrote no adapter",
        "moved does not start: its environment was moved",
    ]
    assert said[0] == (
        f"round 1 of 3  raises: ValueError: no such base (see {tmp_path / 'logs' / 'raises.log'})"
    )
    assert len(kept) == 4


def test_every_round_begins_with_another_tool(tmp_path):
    begun = []
    tools = [Tool(name, None, lambda *_: []) for name in ("a", "b", "c")]

    class Turns(train.Comparison):
        def _train(self, tool, number):
            begun.append(f"{tool.name}{number}")
            return ""

    lines = {tool.name: line(tool.name) for tool in tools}
    Turns(tools, None, {}, 2, lines).run(4, lambda text: None, lambda: None)
    assert begun == ["a1", "b1", "c1", "b2", "c2", "a2", "c3", "a3", "b3", "a4", "b4", "c4"]
