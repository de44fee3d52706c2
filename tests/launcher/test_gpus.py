"""Whether a card can run a lock, by what its driver says.

No card can be had where these tests run: a script named nvidia-smi stands in for the driver's
tool, in the tool's own words. tests/gpu runs on real ones.
"""

import os
import re

import pytest

from contract.errors import UserError
from launcher.runtime import gpus
from launcher.runtime.gpu_generations import GENERATIONS, GpuGeneration
from tests.conftest import invoke

RTX = "NVIDIA GeForce RTX 4060, 580.65.06, 8188, 8.9"
T4 = "Tesla T4, 580.65.06, 15360, 7.5"
T4_OLDER_DRIVER = "Tesla T4, 535.183.01, 15360, 7.5"
RTX_OLDER_DRIVER = "NVIDIA GeForce RTX 3070, 550.54.14, 8192, 8.6"
# Older than any kernels that PyTorch still builds.
KEPLER = "Tesla K40c, 580.65.06, 11441, 3.5"
P100 = "Tesla P100-PCIE-16GB, 580.65.06, 16384, 6.0"


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Puts a driver's answer on PATH."""

    def answering(*lines, script=None):
        tool = tmp_path / "nvidia-smi"
        printed = "\n".join(f"echo '{line}'" for line in lines)
        tool.write_text(f"#!/bin/sh\n{script or printed}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return answering


@pytest.mark.parametrize(
    ("line", "lock", "precision"),
    [
        (RTX, "rtx", "bf16"),
        (RTX, "t4", "fp16"),
        (T4, "t4", "fp16"),
        (T4, "rtx", "fp16"),
        (T4_OLDER_DRIVER, "t4", "fp16"),
    ],
)
def test_a_card_that_fits_is_let_through(driver, line, lock, precision):
    driver(line)
    gpus.check_gpu(lock, precision)


@pytest.mark.parametrize(
    ("line", "lock", "precision", "said"),
    [
        (T4, "rtx", "bf16", "Tesla T4 .* does not support bf16.*Use --profile t4"),
        (KEPLER, "rtx", "bf16", "too old for the rtx image.*Use --profile cpu"),
        (KEPLER, "t4", "fp16", "too old for the t4 image.*Use --profile cpu"),
        (
            RTX_OLDER_DRIVER,
            "rtx",
            "bf16",
            r"driver too old for the rtx image \(CUDA 13.0, driver 580 and up\).*"
            "Install driver 580 or newer, or use --profile t4",
        ),
        ("Tesla K80, 470.82.01, 11441", "t4", "fp16", "Install driver 525 or newer.$"),
    ],
)
def test_what_keeps_a_card_is_said_with_the_profile_that_fits(driver, line, lock, precision, said):
    driver(line)
    with pytest.raises(UserError, match=said):
        gpus.check_gpu(lock, precision)


def test_a_generation_that_is_added_is_the_remedy_for_its_cards(driver, monkeypatch):
    older = GpuGeneration(
        name="pascal",
        architecture="Pascal",
        cards_from=(6, 0),
        precision="fp32",
        cuda="12.6",
        min_driver=525,
        kernels_from=(6, 0),
    )
    monkeypatch.setitem(GENERATIONS, "pascal", older)
    driver(P100)
    gpus.check_gpu("pascal", "fp32")
    with pytest.raises(UserError, match="Use --profile pascal"):
        gpus.check_gpu("rtx", "bf16")
    with pytest.raises(UserError, match="Use --profile pascal, which trains in fp32"):
        gpus.check_gpu("pascal", "bf16")


def test_one_card_that_fits_is_enough(driver):
    driver(P100, RTX)
    gpus.check_gpu("rtx", "bf16")


def test_a_driver_that_does_not_know_the_capability_is_asked_without(driver):
    driver(
        script='case "$1" in *compute_cap*) echo \'Field "compute_cap" is not a valid field to'
        " query.'; exit 2;; *) echo 'Tesla T4, 470.82.01, 15360';; esac"
    )
    assert gpus.detect_gpus() == [gpus.Gpu("Tesla T4", "470.82.01", 15360, None)]


def test_a_driver_that_does_not_answer_is_said(driver):
    failed = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    driver(script=f'echo "{failed}"; exit 9')
    with pytest.raises(UserError, match="communicate with the NVIDIA driver"):
        gpus.check_gpu("rtx", "bf16")


@pytest.mark.parametrize(
    ("lines", "profile", "why"),
    [
        ([RTX], "rtx", "RTX 4060"),
        ([T4], "t4", "Tesla T4"),
        ([T4, RTX], "rtx", "RTX 4060"),
        ([RTX_OLDER_DRIVER], "t4", "profile rtx needs driver 580 and up"),
        ([KEPLER], "cpu", "Tesla K40c .* is too old to train"),
    ],
)
def test_the_profile_is_chosen_by_the_cards(driver, lines, profile, why):
    driver(*lines)
    choice = gpus.choose_profile()
    assert choice.profile == profile
    assert re.search(why, choice.why)


def test_a_card_that_waits_for_its_driver_is_said_and_not_passed_over(driver):
    driver("NVIDIA GeForce RTX 3070, 470.82.01, 8192, 8.6")
    with pytest.raises(UserError, match=r"driver too old .*Install driver 580.*--profile cpu"):
        gpus.choose_profile()


def test_a_run_is_refused_before_anything_is_fetched(driver, plain_project):
    driver(T4)
    done = invoke(plain_project, "train", "--profile", "rtx")
    assert done.returncode == 2
    assert "Use --profile t4" in done.stderr
    assert "Traceback" not in done.stderr
