"""The smoke recipe on a card, with the profile's own precision. Fails without a card.

Run by `./invoke test --gpu`.
"""

import pytest
import torch

from contract.results.train import TrainResult
from tests.conftest import run_smoke


def test_a_card_answers():
    assert torch.cuda.is_available(), (
        "no CUDA GPU is available: these tests are for machines with one"
    )


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_smoke_model_learns_on_the_card(smoke_run, precision):
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        precision = "fp32"
    words = [f"device=cuda,precision={precision}", "optim=paged_adamw_8bit"]
    settings = [part for word in words for part in word.split(",")]
    run = run_smoke(
        smoke_run.project,
        *(word for setting in settings for word in ("--set", setting)),
        *("--set", f"output_model_name=card-{precision}"),
    )
    trained = run.manifest.result(TrainResult)
    assert trained.held_out.exact_match.tuned > 0.70
    assert "cpu" not in trained.device
