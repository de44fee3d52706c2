"""A training whose container passes its limit of memory goes on with less, and learns the same."""

import io
from dataclasses import dataclass

import pytest
from rich.console import Console

from contract import paths
from contract.errors import UserError
from contract.results.train import TrainResult
from launcher.configuration import resolve
from launcher.display import Display
from launcher.pipeline.file_digests import FileDigests
from launcher.pipeline.runner import StageContext, StageFolder, StageRunner
from launcher.pipeline.stages import TRAIN, Input
from launcher.runtime.docker_engine import DockerEngine
from tests.conftest import needs
from tests.gpu.trainings import write_rows
from tests.stage_runs import begin_run

# By the estimate, about 2 GiB without a limit; a fourth of an update's rows fit 1,000 MiB.
ROWS, LENGTH, STEPS = 64, 512, 4
SETTINGS = [
    *("epochs=2", "batch_size=32", "gradient_accumulation_steps=1", "learning_rate=1e-3"),
    *("lora_dropout=0", "quantize_base=none", "packing=false", "logging_steps=1"),
    *("eval_steps=null", "early_stopping_patience=0", "held_out_answers=0"),
    *("gradient_checkpointing=false", "checkpoint_steps=1", "cpu_threads=2"),
]


@dataclass(frozen=True)
class Trained:
    result: TrainResult
    notes: list[str]


def train(run, base, memory=""):
    """The stage by its runner, as a run has it, in a container with so much memory."""
    said = io.StringIO()
    begin_run(run, resolve("smoke", settings=SETTINGS))
    write_rows(run, [LENGTH] * ROWS, vocabulary=2048)
    context = StageContext(lock="rtx", inputs={"base": Input("0" * 64, lambda: base)})
    display = Display(console=Console(file=said, width=200))
    folder = StageFolder(run, FileDigests(run.parent / "digests.json"))
    runner = StageRunner(folder, context, engine=DockerEngine(memory), display=display)
    record = runner.run(TRAIN, "k")
    notes = [line[4:] for line in said.getvalue().splitlines() if " · " in line]
    return Trained(record.typed_result(TrainResult), notes)


@pytest.fixture(scope="module")
@needs("container")
def unlimited(untrained, tmp_path_factory):
    trained = train(tmp_path_factory.mktemp("unlimited") / "run", untrained)
    assert trained.result.changed == {}
    assert trained.result.steps == STEPS
    return trained


def test_what_passes_the_limit_goes_on_with_fewer_rows_and_learns_the_same(
    unlimited, untrained, tmp_path
):
    limited = train(tmp_path / "run", untrained, "1000m")
    result = limited.result
    killed = [note for note in limited.notes if "was killed at its limit of 1,000 MiB" in note]
    assert killed[0] == (
        "out of memory (train was killed at its limit of 1,000 MiB); going on with "
        "batch_size 16, gradient_accumulation_steps 2"
    )
    assert result.steps == result.planned_steps == STEPS
    # As many rows to an update, and as many kills as there were rungs.
    assert result.changed["batch_size"] * result.changed["gradient_accumulation_steps"] == 32
    assert result.changed["batch_size"] == 32 >> len(killed)
    losses = [[point.loss for point in made.losses] for made in (limited.result, unlimited.result)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.name != "logs") == [
        *("adapter", "base.json", "held_out.json", "metrics.jsonl", "prepared", "recipe.json"),
        *("stages", "trained_tokens.json"),
    ]


def test_a_container_too_small_for_the_libraries_ends_in_a_sentence(untrained, tmp_path):
    with pytest.raises(UserError) as ended:
        train(tmp_path / "run", untrained, "150m")
    assert str(ended.value).startswith(
        "train: ran out of memory and was killed at its limit of 150 MiB. Raise --memory, lower "
        "max_length, or take a smaller base."
    )
    assert not (tmp_path / "run" / paths.memory_fallback("train")).exists()
