"""Where memory runs out, a training goes on with smaller pieces of the same updates."""

import io
import json

import pytest
import torch

from contract import paths
from contract.events import MemoryFallback, parse_event
from contract.paths import StagePaths
from contract.recipe import Recipe
from launcher.configuration import resolve
from trainer.entrypoint import Reporter
from trainer.train import completion_loss, memory_ladder, training
from trainer.train.memory_ladder import further, is_out_of_memory, next_rung, said
from trainer.train.training import train_adapter

SETTINGS = [
    *("epochs=2", "batch_size=8", "gradient_accumulation_steps=1", "learning_rate=1e-3"),
    *("lora_dropout=0", "quantize_base=none", "logging_steps=1", "eval_steps=null"),
    *("early_stopping_patience=0", "full_determinism=false", "checkpoint_steps=2", "packing=false"),
]
# Two epochs of 20 rows, eight to an update: the last of an epoch has four.
ROWS, STEPS = 20, 6
FALLBACK = paths.memory_fallback("train")
OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB."


def recipe(**changed):
    return resolve("smoke").model_copy(update={"packing": False, **changed})


def rungs(**keys):
    """Every rung from this recipe down."""
    found, here = [], recipe(**keys)
    while (changed := next_rung(here)) is not None:
        found.append(changed)
        here = here.model_copy(update=changed)
    return found


def test_the_rungs_keep_the_rows_of_an_update():
    found = rungs(batch_size=8, gradient_accumulation_steps=2, gradient_checkpointing=False)
    assert found == [
        {"batch_size": 4, "gradient_accumulation_steps": 4},
        {"batch_size": 2, "gradient_accumulation_steps": 8},
        {"batch_size": 1, "gradient_accumulation_steps": 16},
        {"gradient_checkpointing": True},
    ]


@pytest.mark.parametrize("batch_size", range(1, 65))
def test_whatever_the_batch_is_the_update_is_the_same(batch_size):
    for rung in rungs(batch_size=batch_size, gradient_accumulation_steps=3):
        if "batch_size" in rung:
            product = rung["batch_size"] * rung["gradient_accumulation_steps"]
            assert product == batch_size * 3


def test_the_last_rung_is_one_row_with_its_activations_computed_twice():
    assert rungs(batch_size=1, gradient_checkpointing=True) == []


def test_on_a_card_the_optimizer_and_the_activations_are_rungs_as_well():
    card = {"device": "cuda", "batch_size": 1, "gradient_checkpointing": True}
    paged = {"optim": "paged_adamw_8bit"}
    offloaded = {"activation_offloading": True}
    for optim in ("adamw_torch", "adamw_torch_fused"):
        assert rungs(**card, optim=optim) == [paged, offloaded]
    # Its own form of a checkpoint's moments is no other's.
    for optim in ("paged_adamw_8bit", "paged_adamw_32bit"):
        assert rungs(**card, optim=optim) == [offloaded]
    assert rungs(**card, **paged, **offloaded) == []


def test_no_rung_makes_a_recipe_that_is_refused():
    keys = resolve("rtx").model_dump()
    found = rungs(**keys)
    assert found[-1] == {"activation_offloading": True}
    for changed in found:
        keys |= changed
        Recipe.model_validate(keys)


def test_of_two_places_on_the_ladder_the_further_one_is_known():
    whole = recipe(batch_size=8, gradient_accumulation_steps=2, gradient_checkpointing=False)
    four = {"batch_size": 4, "gradient_accumulation_steps": 4}
    two = {"batch_size": 2, "gradient_accumulation_steps": 8}
    last = {"batch_size": 1, "gradient_accumulation_steps": 16, "gradient_checkpointing": True}
    for nearer, there in [({}, {}), ({}, four), (four, two), (two, last), (last, last)]:
        assert further(whole, nearer, there) == further(whole, there, nearer) == there


def test_what_is_packed_is_packed_shorter_down_to_the_longest_row():
    found = rungs(packing=True, packing_length=2048, max_length=700, batch_size=8)
    assert found == [
        {"packing_length": 1024},
        {"packing_length": 700},
        {"gradient_checkpointing": True},
    ]
    # A row that is longer stands alone, and no pack is as long.
    assert rungs(packing=True, packing_length=512, max_length=700) == [
        {"gradient_checkpointing": True}
    ]


def test_a_base_whose_rows_are_padded_has_the_ladder_of_those():
    whole = recipe(packing=True, packing_length=2048, max_length=700, batch_size=2)
    one = {"packing": False, "batch_size": 1, "gradient_accumulation_steps": 2}
    assert further(whole, {"packing": False}, one) == further(whole, one, {}) == one
    assert further(whole, {"packing": False}, {}) == {"packing": False}


def test_a_rung_is_said_in_the_recipes_words():
    assert said({"gradient_checkpointing": True}) == "gradient_checkpointing true"
    assert said({"batch_size": 2, "gradient_accumulation_steps": 4}) == (
        "batch_size 2, gradient_accumulation_steps 4"
    )


def test_what_torch_says_of_memory_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("the loss is no number"))


def prepared(number):
    drawn = torch.Generator().manual_seed(number)
    length = int(torch.randint(12, 40, (1,), generator=drawn))
    ids = torch.randint(5, 2000, (length,), generator=drawn).tolist()
    mask = [0] * (length // 2) + [1] * (length - length // 2)
    return {
        "where": f"row {number}",
        "messages": [],
        "tools": [],
        "input_ids": ids,
        "completion_mask": mask,
        "prompt_ids": ids[: length // 2],
    }


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the training's runs, and nothing is saved."""


class Machine:
    """Trains the untrained smoke base, with memory for so many rows at a time from some step on.

    Where it runs out, that is an error, or the kernel's kill.
    """

    def __init__(self, base, tokenizer, folder, monkeypatch):
        self.base, self.tokenizer, self.folder = base, tokenizer, folder
        self.rows_that_fit, self.from_step, self.checkpointing_fits = 10**6, 0, True
        self.tokens_that_fit = 10**6
        self.kills, self.cut_at = False, None
        self.largest = 0
        real = completion_loss.CompletionTrainer.compute_loss

        def compute_loss(trainer, model, inputs, *arguments, **more):
            ids = inputs["input_ids"]
            rows = ids.shape[0]
            # The activations of a row take no memory where they are not kept.
            kept = not (self.checkpointing_fits and trainer.args.gradient_checkpointing)
            late = trainer.state.global_step >= self.from_step
            if trainer.state.global_step == self.cut_at:
                raise Killed
            too_many = rows > self.rows_that_fit or ids.numel() > self.tokens_that_fit
            if late and kept and too_many:
                if self.kills:
                    raise Killed
                raise torch.OutOfMemoryError(
                    "CUDA out of memory. Tried to allocate 2.00 GiB.\nMore"
                )
            self.largest = max(self.largest, rows)
            return real(trainer, model, inputs, *arguments, **more)

        monkeypatch.setattr(completion_loss.CompletionTrainer, "compute_loss", compute_loss)

    def train(self, name, *settings):
        run = self.folder / name
        run.mkdir(exist_ok=True)
        events = io.StringIO()
        try:
            trained = train_adapter(
                StagePaths(run=run, base=self.base),
                self.tokenizer,
                [prepared(number) for number in range(ROWS)],
                [],
                recipe=resolve("smoke", settings=[*SETTINGS, *settings]),
                reporter=Reporter(events),
            )
        finally:
            said_events = [parse_event(line) for line in events.getvalue().splitlines()]
            self.notes = [event.text for event in said_events if event.event == "note"]
            self.fallbacks = [event for event in said_events if isinstance(event, MemoryFallback)]
        self.metrics = [json.loads(line) for line in (run / paths.METRICS).read_text().splitlines()]
        return trained

    def train_as_a_launcher_does(self, name, *settings):
        """Start it again for as long as it is killed, and said that it could do with less."""
        self.starts = 0
        while True:
            self.starts += 1
            try:
                return self.train(name, *settings)
            except Killed:
                if not self.fallbacks or self.fallbacks[-1].changed is None:
                    raise
                self.fallbacks[-1].write(self.folder / name / FALLBACK)


@pytest.fixture
def machine(untrained, tokenizer, tmp_path, monkeypatch):
    return Machine(untrained, tokenizer, tmp_path, monkeypatch)


@pytest.fixture
def unlimited(machine):
    """The losses of the training that has memory enough, and its steps."""
    trained = machine.train("unlimited")
    assert (trained.steps, trained.changed, machine.largest) == (STEPS, {}, 8)
    return [line["loss"] for line in machine.metrics]


@pytest.mark.slow
@pytest.mark.parametrize("step", range(STEPS))
def test_at_whichever_step_it_runs_out_the_same_is_learned(machine, unlimited, step):
    machine.rows_that_fit, machine.from_step = 2, step
    trained = machine.train("limited")
    assert trained.steps == trained.planned_steps == STEPS
    assert trained.changed == {"batch_size": 2, "gradient_accumulation_steps": 4}
    out = f"out of memory ({OUT_OF_MEMORY}); going on with "
    assert [note.removeprefix(out) for note in machine.notes if note.startswith(out)] == [
        "batch_size 4, gradient_accumulation_steps 2",
        "batch_size 2, gradient_accumulation_steps 4",
    ]
    assert [line["step"] for line in machine.metrics] == list(range(1, STEPS + 1))
    assert [line["loss"] for line in machine.metrics] == pytest.approx(unlimited, rel=0.01)
    # From the last checkpoint, where there was one: after every second step, and not the last.
    assert trained.resumed_after == ([] if step < 2 else [step // 2 * 2])


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 3])
def test_packed_rows_are_cut_into_shorter_packs(machine, unlimited, step):
    # The longest has 39 tokens.
    machine.tokens_that_fit, machine.from_step = 70, step
    trained = machine.train("limited", "packing=true", "packing_length=256")
    assert trained.steps == STEPS
    assert trained.changed == {"packing_length": 64}
    assert [line["loss"] for line in machine.metrics] == pytest.approx(unlimited, rel=1e-4)


@pytest.mark.slow
def test_what_cannot_be_packed_is_padded_and_said(machine, unlimited, monkeypatch):
    monkeypatch.setattr(training, "keeps_rows_apart", lambda model: False)
    machine.rows_that_fit, machine.from_step = 4, 3
    trained = machine.train("padded", "packing=true")
    assert trained.changed == {
        "packing": False,
        "batch_size": 4,
        "gradient_accumulation_steps": 2,
    }
    assert any(note.startswith("packing false: this base's layers") for note in machine.notes)
    assert [line["loss"] for line in machine.metrics] == pytest.approx(unlimited, rel=1e-4)


@pytest.mark.slow
def test_one_row_at_a_time_keeps_no_activations_at_last(machine, unlimited):
    machine.rows_that_fit = 0
    trained = machine.train("limited")
    assert trained.changed == {
        "batch_size": 1,
        "gradient_accumulation_steps": 8,
        "gradient_checkpointing": True,
    }
    assert [line["loss"] for line in machine.metrics] == pytest.approx(unlimited, rel=0.01)


@pytest.mark.slow
def test_at_the_end_of_the_ladder_the_error_stands(machine):
    machine.rows_that_fit, machine.checkpointing_fits = 0, False
    with pytest.raises(torch.OutOfMemoryError):
        machine.train("limited")


@pytest.mark.slow
def test_another_error_is_no_reason_for_smaller_pieces(machine, monkeypatch):
    def fail(*_arguments, **_more):
        raise RuntimeError("a bug")

    monkeypatch.setattr(completion_loss.CompletionTrainer, "compute_loss", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        machine.train("failing")


@pytest.mark.slow
def test_what_goes_on_from_a_checkpoint_goes_on_with_what_fitted(machine, monkeypatch):
    machine.rows_that_fit, machine.from_step = 4, 3
    saved = []
    real = completion_loss.CompletionTrainer.save_to

    def save_and_die(trainer, folder):
        real(trainer, folder)
        saved.append(trainer.state.global_step)

    monkeypatch.setattr(completion_loss.CompletionTrainer, "save_to", save_and_die)
    trained = machine.train("run")
    assert trained.changed == {"batch_size": 4, "gradient_accumulation_steps": 2}
    # The same command once more: the last checkpoint knows of it.
    machine.largest = 0
    again = machine.train("run")
    assert again.changed == trained.changed
    assert machine.largest == 4
    assert not [note for note in machine.notes if note.startswith("out of memory")]
    assert saved


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 3, STEPS - 1])
def test_at_whichever_step_it_is_killed_the_same_is_learned(machine, unlimited, step):
    machine.rows_that_fit, machine.from_step, machine.kills = 2, step, True
    trained = machine.train_as_a_launcher_does("limited")
    assert machine.starts == 3
    assert trained.steps == trained.planned_steps == STEPS
    assert trained.changed == {"batch_size": 2, "gradient_accumulation_steps": 4}
    assert [line["step"] for line in machine.metrics] == list(range(1, STEPS + 1))
    assert [line["loss"] for line in machine.metrics] == pytest.approx(unlimited, rel=0.01)
    # It went on from each checkpoint once or twice, and never from none where there was one.
    assert set(trained.resumed_after) == (set() if step < 2 else {step // 2 * 2})


@pytest.mark.slow
def test_a_training_says_what_it_goes_on_with_while_it_takes_steps_and_not_after(machine):
    machine.train("run", "batch_size=2")
    assert [(event.changed, event.text) for event in machine.fallbacks] == [
        (
            {"batch_size": 1, "gradient_accumulation_steps": 2},
            "batch_size 1, gradient_accumulation_steps 2",
        ),
        (None, ""),
    ]
    machine.train("last", "batch_size=1", "gradient_checkpointing=true")
    assert [event.changed for event in machine.fallbacks] == [None, None]


@pytest.mark.slow
def test_an_error_a_kill_and_a_power_cut_make_one_way_down(machine, unlimited):
    """Nothing that was given up comes back, and no rung is taken twice."""

    def train_until(step):
        machine.cut_at, machine.largest = step, 0
        return machine.train("run", "checkpoint_steps=1")

    # By an error from eight rows to four, and saved so; then a power cut.
    machine.rows_that_fit, machine.from_step = 4, 1
    with pytest.raises(Killed):
        train_until(3)
    assert not (machine.folder / "run" / FALLBACK).exists()
    # By a kill from four rows to two, and saved so; then a power cut.
    machine.rows_that_fit, machine.kills = 2, True
    with pytest.raises(Killed):
        train_until(4)
    assert machine.fallbacks[-1].changed == {"batch_size": 2, "gradient_accumulation_steps": 4}
    machine.fallbacks[-1].write(machine.folder / "run" / FALLBACK)
    with pytest.raises(Killed):
        train_until(4)
    assert machine.largest == 2
    # By an error from two rows to one, which the launcher's file knows nothing of; a power cut.
    machine.rows_that_fit, machine.kills = 1, False
    with pytest.raises(Killed):
        train_until(5)

    trained = train_until(None)
    assert machine.largest == 1
    assert not [note for note in machine.notes if note.startswith("out of memory")]
    assert trained.changed == {"batch_size": 1, "gradient_accumulation_steps": 8}
    assert trained.resumed_after == [1, 3, 4, 5]
    assert trained.steps == STEPS
    assert [line["loss"] for line in machine.metrics] == pytest.approx(unlimited, rel=0.01)


@pytest.mark.slow
def test_an_optimizer_of_8_bits_takes_over_in_the_middle(machine, monkeypatch):
    """As on a card, with the kind that a CPU has as well."""

    def quantized(recipe):
        smaller = {"batch_size": 4, "gradient_accumulation_steps": 2}
        return {"optim": "adamw_bnb_8bit", **smaller} if recipe.optim == "adamw_torch" else None

    # As many weights to a matrix as are kept in 8 bits.
    settings = ("lora_rank=64", "optim=adamw_torch", "learning_rate=5e-3")
    machine.train("unlimited", *settings)
    expected = [line["loss"] for line in machine.metrics]
    monkeypatch.setattr(memory_ladder, "_RUNGS", (quantized,))
    machine.rows_that_fit, machine.from_step = 4, 3
    trained = machine.train("limited", *settings)
    assert trained.changed["optim"] == "adamw_bnb_8bit"
    assert trained.steps == STEPS
    assert trained.resumed_after == [2]
    assert [line["loss"] for line in machine.metrics] == pytest.approx(expected, rel=0.01)
