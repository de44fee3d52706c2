"""A training that is cut off at any step goes on from its last checkpoint, on both engines."""

import re
import signal
import time

import pytest

from contract.paths import CHECKPOINTS, METRICS, WORK, checkpoint_name, checkpoint_step
from tests.faults.conftest import CHECKPOINT_STEPS, count, drawn, start_over, times
from tests.faults.test_damage import DAMAGES

_PATIENCE_S = 600
# A step takes less than a tenth of a second: enough of them that a signal meets one.
_LONGER = {"epochs": 6, "logging_steps": 1}
_STEPS = 72


def cut_off(run, step, by):
    """Begin the run, and end its training by the signal once it has done the step; what was said.

    SIGKILL meets the stage, as a power cut would; SIGTERM meets the launcher, which passes it on.
    """
    for left in run.project.glob(f"data/models/*/*/{WORK}/train/{METRICS}"):
        left.unlink()
    process = run.begin(**_LONGER)
    deadline = time.monotonic() + _PATIENCE_S
    stage = None
    while steps_done(run) < step:
        if stage is None and steps_done(run):
            # Before it is the moment: to ask the engine takes longer than a step.
            stage = run.stage()
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if by == signal.SIGKILL:
        (stage or run.stage()).kill()
    else:
        process.send_signal(by)
    said = process.communicate(timeout=_PATIENCE_S)[1]
    assert process.returncode == (2 if by == signal.SIGKILL else 130), said
    assert "Traceback" not in said
    return said


def steps_done(run):
    """A line of metrics is written after each step."""
    for metrics in run.project.glob(f"data/models/*/*/{WORK}/train/{METRICS}"):
        lines = metrics.read_text().splitlines()
        return sum(1 for line in lines if '"loss"' in line)
    return 0


def resumed_after(said):
    """The step that a training says it goes on after; 0 where it begins anew."""
    found = re.search(r"resuming after step (\d+)", said)
    return int(found[1]) if found else 0


@pytest.fixture(scope="module")
def longer(small):
    """What the longer run makes where nobody disturbs it."""
    start_over(small)
    done = small.train(**_LONGER)
    assert done.returncode == 0, done.stderr
    return small.outputs()


@pytest.mark.parametrize("engine", ["small", "contained"])
def test_training_resumes_after_any_step(engine, longer, request):
    """Ten random steps, two to a run; each run is killed at one and stopped at the other."""
    run, random = request.getfixturevalue(engine), drawn(f"steps {engine}")
    for number in range(times(5)):
        start_over(run)
        # Not the last ones: the end of the training is so close behind them that a signal is late.
        steps = sorted(random.sample(range(1, _STEPS - 8), 2))
        signals = [signal.SIGKILL, signal.SIGTERM]
        if number % 2:
            signals.reverse()
        cut_off(run, steps[0], signals[0])
        second = cut_off(run, steps[1], signals[1])
        done = run.train(**_LONGER)
        assert done.returncode == 0, done.stderr
        went_on = [resumed_after(second), resumed_after(done.stderr)]
        for step, by, after in zip(steps, signals, went_on, strict=True):
            # What is lost is no more than what a checkpoint was due for; told to stop, nothing.
            lost = CHECKPOINT_STEPS if by == signal.SIGKILL else 0
            assert after >= step - lost, (steps, signals, went_on)
            kind = f"{signal.Signals(by).name} in training, engine {run.engine}"
            count(kind, "resumed, and the same to the byte")
        run.check_whole(longer)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_not_gone_on_from(small, longer, damage):
    """The one before it is, or the training begins anew."""
    random = drawn(f"checkpoint {damage.__name__}")
    for _ in range(times(2)):
        start_over(small)
        cut_off(small, random.randrange(10, _STEPS - 8), signal.SIGKILL)
        folder = small.folder / WORK / "train" / CHECKPOINTS
        # What was being written when it was killed is no checkpoint.
        steps = [found for path in folder.iterdir() if (found := checkpoint_step(path.name))]
        last = folder / checkpoint_name(max(steps))
        damage(random.choice(sorted(path for path in last.rglob("*") if path.is_file())), random)
        done = small.train(**_LONGER)
        assert done.returncode == 0, done.stderr
        assert f"the checkpoint {last.name} is damaged" in done.stderr, done.stderr
        assert resumed_after(done.stderr) < max(steps)
        small.check_whole(longer)
        count(f"a checkpoint: {damage.__name__}", "refused, the one before it taken, same bytes")
