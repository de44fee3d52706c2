"""What the guide to the recipe says of the code's tables is what they hold."""

import re

import pytest

from launcher.cli.documentation import README, with_tables
from launcher.configuration import profile_values, profiles
from launcher.project import ROOT
from launcher.runtime.dependency_locks import pinned
from launcher.runtime.gpu_generations import GENERATIONS


def test_the_guides_tables_are_the_codes():
    text = README.read_text(encoding="utf-8")
    assert with_tables(text) == text, "./invoke fix writes them"


def test_a_guide_that_lags_behind_is_written_anew():
    text = README.read_text(encoding="utf-8")
    stale = text.replace("| `chrf` |", "| `bleu` |")
    assert stale != text
    assert with_tables(stale) == text


def test_every_gpu_generation_has_its_lock_and_a_profile_that_names_it():
    for name, generation in GENERATIONS.items():
        assert name in profiles()
        assert "torch" in pinned(name)
        values = profile_values(name)
        assert (values["lock"], values["precision"]) == (name, generation.precision)
        assert generation.kernels_from <= generation.cards_from


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md", "configs/README.md"])
def test_every_file_that_a_document_names_exists(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(
        r"`((?:contract|launcher|trainer|tests|docker|configs|data)/[\w./-]+)`", text
    )
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
