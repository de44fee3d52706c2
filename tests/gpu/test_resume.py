"""A training on the card that is killed and stopped makes the adapter that it would have made."""

from __future__ import annotations

import json
import signal

import pytest

from contract import paths
from launcher.configuration import resolve
from tests.conftest import start_stage
from tests.gpu import trainings

# Six steps of eight rows.
LENGTHS = [40, 300, 220, 90, 350, 128, 64, 500] * 6
SETTINGS = [
    *("epochs=1", "batch_size=2", "gradient_accumulation_steps=4", "logging_steps=4"),
    *("checkpoint_steps=1", "checkpoint_minutes=null"),
]


def begin(folder, profile):
    """A run of random rows, to be trained as the profile says."""
    recipe = resolve(profile, settings=SETTINGS)
    run = trainings.begin_run(folder, recipe)
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
