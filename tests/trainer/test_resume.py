"""A training that is cut off goes on from its last checkpoint, and makes the same adapter."""

import errno
import json
import os
import shutil
import signal

import pytest
import torch

from contract.digest import digest_of_file
from contract.paths import checkpoint_step
from contract.results.train import TrainResult
from tests.conftest import stage, start_stage
from trainer.train.checkpoints import CheckpointStore, TrainingState

# Dropout draws random numbers; an odd number of steps between two lines of metrics; accumulation.
KEYS = {
    "epochs": 2,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-3,
    "lora_dropout": 0.2,
    "logging_steps": 5,
    "eval_steps": 4,
    "held_out_answers": 0,
    "cpu_threads": 1,
    "checkpoint_steps": 3,
    "checkpoint_minutes": None,
    "checkpoints_kept": 2,
}
# 32 rows, four to a step, twice.
STEPS = 16


def prepared_run(smoke_run, path, **changed):
    """What `train` reads, for a training of some steps."""
    for name in ("prepared", "recipe.json", "base.json"):
        source = smoke_run.folder / name
        path.mkdir(exist_ok=True)
        shutil.copytree(source, path / name) if source.is_dir() else shutil.copy(source, path)
    for name, rows in (("train", 32), ("held_out", 4)):
        file = path / "prepared" / f"{name}.jsonl"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:rows]))
    recipe = json.loads((path / "recipe.json").read_text())
    (path / "recipe.json").write_text(json.dumps({**recipe, **KEYS, **changed}))
    return path


def flags(run, smoke_run):
    return ["--run", str(run), "--base", str(smoke_run.base)]


def cut_off(run, smoke_run, *, after, by):
    """Start the training and end it by a signal after that step; its exit code and its notes."""
    with start_stage("trainer.train", *flags(run, smoke_run)) as process:
        notes = []
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "note":
                notes.append(event["text"])
            if event.get("doing") == "training" and event["done"] >= after:
                process.send_signal(by)
                break
        rest, _ = process.communicate()
        notes += [e["text"] for e in map(json.loads, rest.splitlines()) if e["event"] == "note"]
        return process.returncode, notes


def finish(run, smoke_run):
    code, events, log = stage("trainer.train", *flags(run, smoke_run))
    assert code == 0, (events, log)
    notes = [event["text"] for event in events if event["event"] == "note"]
    result = TrainResult.model_validate(events[-1]["values"])
    # What it took of the memory differs from run to run, as its seconds do.
    assert result.memory is not None
    return result.model_copy(update={"memory": None}), notes


def what_it_made(run):
    """All that the stage wrote, but for how long it took."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"], line["tokens_per_s"]
    files = ["adapter/adapter_model.safetensors", "adapter/adapter_config.json"]
    files += ["held_out.json", "trained_tokens.json"]
    return lines, {name: digest_of_file(run / name) for name in files}


@pytest.fixture(scope="module")
def undisturbed(smoke_run, tmp_path_factory):
    run = prepared_run(smoke_run, tmp_path_factory.mktemp("undisturbed") / "run")
    result, _ = finish(run, smoke_run)
    assert result.steps == STEPS
    assert result.resumed_after == []
    return run, result


def steps_kept(run):
    """Of the checkpoints that are whole: what was being written when it was killed is none."""
    return sorted(step for path in checkpoints(run) if (step := checkpoint_step(path.name)))


def checkpoints(run):
    return list((run / "checkpoints").glob("step-*"))


def test_killed_and_stopped_it_makes_what_it_would_have_made(smoke_run, undisturbed, tmp_path):
    whole, expected = undisturbed
    run = prepared_run(smoke_run, tmp_path / "run")
    code, _ = cut_off(run, smoke_run, after=8, by=signal.SIGKILL)
    assert code == -signal.SIGKILL
    first = steps_kept(run)[-1]
    assert first >= 6
    code, notes = cut_off(run, smoke_run, after=first + 2, by=signal.SIGTERM)
    assert code == 130
    second = steps_kept(run)[-1]
    assert first + 2 <= second < STEPS
    assert f"resuming after step {first}, from its checkpoint" in notes
    assert f"stopped after step {second}, with a checkpoint" in notes
    result, notes = finish(run, smoke_run)
    assert f"resuming after step {second}, from its checkpoint" in notes
    assert result.resumed_after == [first, second]
    assert what_it_made(run) == what_it_made(whole)
    assert result.model_copy(update={"resumed_after": []}) == expected


def test_checkpoints_change_nothing_and_only_the_last_ones_stay(smoke_run, undisturbed, tmp_path):
    whole, _ = undisturbed
    assert steps_kept(whole) == [12, 15]
    run = prepared_run(smoke_run, tmp_path / "run", checkpoint_steps=None)
    finish(run, smoke_run)
    assert checkpoints(run) == []
    assert what_it_made(run) == what_it_made(whole)


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_taken(
    smoke_run, undisturbed, tmp_path
):
    whole, _ = undisturbed
    run = prepared_run(smoke_run, tmp_path / "run")
    shutil.copytree(whole / "checkpoints", run / "checkpoints")
    adapter = run / "checkpoints" / "step-15" / "adapter.safetensors"
    content = bytearray(adapter.read_bytes())
    content[-1] ^= 1
    adapter.write_bytes(content)
    result, notes = finish(run, smoke_run)
    damaged = "the checkpoint step-15 is damaged (adapter.safetensors is not what was written), "
    assert notes[:2] == [
        damaged + "and is not used",
        "resuming after step 12, from its checkpoint",
    ]
    assert result.resumed_after == [12]
    assert what_it_made(run) == what_it_made(whole)


def some_state(step):
    return TrainingState(
        step=step,
        summed_loss=0.1,
        last_logged_step=step,
        tokens=1,
        seconds=1.0,
        metrics=[],
        held_out_losses={},
        best_step=None,
        best_loss=float("inf"),
        evaluations_since=0,
        resumed_after=[],
    )


@pytest.fixture
def store(tmp_path):
    """Three checkpoints, of which two are kept."""
    store = CheckpointStore(tmp_path / "checkpoints", kept=2)
    for step in (9, 10, 11):
        store.save(
            some_state(step),
            adapter={"w": torch.full((2,), float(step))},
            best={},
            save_trainer=lambda folder: (folder / "optimizer.pt").write_text("state"),
        )
    return store


def newest(store):
    notes = []
    found = store.newest(notes.append)
    return found, notes


def test_the_newest_is_by_step_and_not_by_name_or_date(store):
    found, notes = newest(store)
    assert found.state == some_state(11)
    assert torch.equal(found.adapter()["w"], torch.tensor([11.0, 11.0]))
    assert found.best() == {}
    assert notes == []


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-3])


def emptied(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_short, emptied, lambda path: path.unlink()])
@pytest.mark.parametrize(
    "name", ["adapter.safetensors", "optimizer.pt", "training.json", "complete.json"]
)
def test_every_kind_of_damage_is_seen(store, tmp_path, name, damage):
    damage(tmp_path / "checkpoints" / "step-11" / name)
    found, [note] = newest(store)
    assert found.state.step == 10
    assert note.startswith("the checkpoint step-11 is damaged (")
    assert not (tmp_path / "checkpoints" / "step-11").exists()


def test_a_file_that_was_not_written_with_it_is_damage(store, tmp_path):
    (tmp_path / "checkpoints" / "step-11" / "scaler.pt").write_text("another")
    found, [note] = newest(store)
    assert found.state.step == 10
    assert "scaler.pt is missing or was not written with it" in note


def test_what_was_cut_off_while_it_was_written_counts_for_nothing(store, tmp_path):
    folder = tmp_path / "checkpoints" / "step-11"
    folder.rename(folder.with_name("step-12.unfinished"))
    found, notes = newest(store)
    assert (found.state.step, notes) == (10, [])
    assert not list((tmp_path / "checkpoints").glob("*.unfinished"))


def test_a_checkpoint_that_has_no_room_leaves_the_others(store, tmp_path):
    def no_room(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        store.save(some_state(12), adapter={}, best={}, save_trainer=no_room)
    left = sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir())
    assert left == ["step-10", "step-11"]


def test_without_a_whole_one_the_training_begins_anew(store, tmp_path):
    for folder in (tmp_path / "checkpoints").iterdir():
        (folder / "complete.json").unlink()
    found, notes = newest(store)
    assert found is None
    assert len(notes) == 2
