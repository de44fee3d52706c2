"""The same seed twice is the same adapter, to the byte, with each optimizer.

All trainings run at once, each in a process of its own: others on the card change nothing either.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import get_args

import pytest

from contract.recipe import TrainSection
from launcher.configuration import resolve
from tests import stage_runs
from tests.gpu import trainings

OPTIMIZERS = get_args(TrainSection.model_fields["optim"].annotation)
# Of two rows each, as many micro-batches as make three steps.
LENGTHS = [40, 600, 220, 90, 350, 128, 64, 1000] * 6


@pytest.fixture(scope="module")
def trained(four_layers, tmp_path_factory) -> dict[str, list[Future[trainings.Training]]]:
    """Two trainings for each optimizer, begun together."""
    folder = tmp_path_factory.mktemp("determinism")

    def train(optimizer: str, number: int) -> trainings.Training:
        run = folder / f"{optimizer}-{number}"
        recipe = resolve("rtx", settings=["epochs=1", "logging_steps=1", f"optim={optimizer}"])
        trainings.write_rows(stage_runs.begin_run(run, recipe), LENGTHS)
        return trainings.train(run, four_layers)

    with ThreadPoolExecutor(2 * len(OPTIMIZERS)) as pool:
        return {
            optimizer: [pool.submit(train, optimizer, number) for number in range(2)]
            for optimizer in OPTIMIZERS
        }


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_same_seed_twice_is_the_same_adapter(trained, optimizer, figure):
    one, other = (training.result() for training in trained[optimizer])
    weights, others = one.adapter(), other.adapter()
    distances = {
        name: (weight - others[name]).abs().max().item() for name, weight in weights.items()
    }
    differing = [name for name, distance in distances.items() if distance]
    figure("tensors that differ", len(differing), f"of {len(weights)}")
    figure("most that an element differs", max(distances.values()), "")
    assert one.result.steps == 3
    assert all(weight.any() for name, weight in weights.items() if "lora_B" in name)
    assert one.result.losses == other.result.losses
    assert not differing, f"{len(differing)} of {len(weights)} tensors differ"
    assert one.adapter_bytes() == other.adapter_bytes()
