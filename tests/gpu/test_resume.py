"""A training on the card that is killed and stopped makes the adapter that it would have made."""

from __future__ import annotations

import json
import shutil
import signal

import pytest

from contract import paths
from contract.events import MemoryFallback
from contract.recipe import Recipe
from launcher.configuration import resolve
from tests import stage_runs
from tests.conftest import start_stage
from tests.gpu import trainings

# Six steps of eight rows.
LENGTHS = [40, 300, 220, 90, 350, 128, 64, 500] * 6
SETTINGS = [
    *("epochs=1", "batch_size=2", "gradient_accumulation_steps=4", "logging_steps=4"),
    *("checkpoint_steps=1", "checkpoint_minutes=null"),
]


def begin(folder, profile, *settings):
    """A run of random rows, to be trained as the profile says."""
    recipe = resolve(profile, settings=[*SETTINGS, *settings])
    run = stage_runs.begin_run(folder, recipe)
    trainings.write_rows(run, LENGTHS)
    return run


def cut_off(run, base, *, after, by):
    """Start the training and send it a signal after that step."""
    flags = ("--run", str(run), "--base", str(base))
    with start_stage("trainer.train", *flags) as process:
        for line in process.stdout:
            event = json.loads(line)
            if event.get("doing") == "training" and event["done"] >= after:
                process.send_signal(by)
                break
        _, log = process.communicate()
    assert process.returncode in (130, -signal.SIGKILL), log


# bf16 with a paged 8-bit optimizer, and fp16 with a gradient scaler.
@pytest.mark.parametrize("profile", ["rtx", "t4"])
def test_it_goes_on_from_its_checkpoint_to_the_byte(profile, four_layers, tmp_path, figure):
    whole = trainings.train(begin(tmp_path / "whole", profile), four_layers)
    assert whole.result.steps == 6
    run = begin(tmp_path / "run", profile)
    cut_off(run, four_layers, after=2, by=signal.SIGKILL)
    cut_off(run, four_layers, after=4, by=signal.SIGTERM)
    ended = trainings.train(run, four_layers)
    figure("resumed after steps", len(ended.result.resumed_after), str(ended.result.resumed_after))
    assert len(ended.result.resumed_after) == 2
    assert ended.result.losses == whole.result.losses
    assert ended.adapter_bytes() == whole.adapter_bytes()
    assert (run / paths.METRICS).exists()


def test_a_kill_in_the_middle_leads_to_the_end_of_the_ladder_and_learns_the_same(
    four_layers, tmp_path, figure
):
    """The moments go on in 8 bits, and activations wait in main memory."""
    run = begin(tmp_path / "run", "rtx", "optim=adamw_torch")
    whole = trainings.train(shutil.copytree(run, tmp_path / "whole"), four_layers)
    cut_off(run, four_layers, after=3, by=signal.SIGKILL)
    last = {
        **{"batch_size": 1, "gradient_accumulation_steps": 8, "gradient_checkpointing": True},
        **{"optim": "paged_adamw_8bit", "activation_offloading": True},
    }
    # What the recipe says already is no change.
    recipe = Recipe.read(run / paths.RECIPE)
    changed = {key: value for key, value in last.items() if getattr(recipe, key) != value}
    MemoryFallback(changed=changed).write(run / paths.memory_fallback("train"))
    ended = trainings.train(run, four_layers)
    assert ended.result.changed == changed
    assert len(ended.result.resumed_after) == 1
    assert ended.result.steps == whole.result.steps == 6
    losses = [[point.loss for point in made.result.losses] for made in (ended, whole)]
    figure("loss at the end of the ladder", losses[0][-1], f"nats, {losses[1][-1]} undisturbed")
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
