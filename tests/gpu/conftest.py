"""The card that these tests need, the bases that they train, and the figures that they measure."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import stage_runs
from tests.gpu import bases


@pytest.fixture(scope="session", autouse=True)
def card() -> str:
    """The GPU's name; without one, nothing here is skipped."""
    if not torch.cuda.is_available():
        pytest.fail("no CUDA GPU is available: these tests are for machines with one")
    return str(torch.cuda.get_device_name())


@pytest.fixture(scope="session", autouse=True)
def stage_environment(card):
    """The environment of a stage, before anything is computed in this process or another."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stage_runs.stage_environment().items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def scratch_bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where bases are made that were not made before."""
    return tmp_path_factory.mktemp("bases")


@pytest.fixture(scope="session")
def smoke_base(card, scratch_bases) -> Path:
    """The smoke base's Hugging Face folder."""
    return bases.smoke(scratch_bases)


@pytest.fixture(scope="session")
def qwen_shaped(card, scratch_bases) -> Path:
    """Random weights in the shape of Qwen2.5-1.5B."""
    return bases.qwen_shaped(scratch_bases)


@pytest.fixture(scope="session")
def four_layers(card, scratch_bases) -> Path:
    """Random weights in the shape of Qwen2.5-1.5B's first layers.

    As wide as the whole: an optimizer pages what has 100,000 elements or more.
    """
    return bases.qwen_shaped(scratch_bases, layers=4)


@pytest.fixture
def figure(record_property):
    """Keeps a measured figure, for the report of the tests and for the end of the output."""

    def keep(name: str, value: float, unit: str) -> None:
        record_property(name, f"{value:.6g} {unit}".strip())

    return keep


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the figures that the tests measured."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    figures = [
        f"{report.nodeid.rpartition('/')[2]}: {name} {value}"
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
    ]
    if figures:
        terminalreporter.section("measured")
        for line in figures:
            terminalreporter.line(line)
