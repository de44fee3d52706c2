"""What the guide to the recipe says of the code's tables is what they hold."""

import re

import pytest

from launcher.cli.documentation import README, with_tables
from launcher.configuration import profile_values, profiles
from launcher.project import ROOT
from launcher.runtime.dependency_locks import pinned
from launcher.runtime.gpu_generations import GENERATIONS

# Those that speak of the project as it is.
DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for folder in ("*.md", "docs/**/*.md", "configs/*.md", "data/*/*.md")
    for path in sorted(ROOT.glob(folder))
    if path.name != "CHANGELOG.md"
]
# What commands make: not there in a fresh clone.
_MADE = (
    "data/models",
    "data/cache",
    "data/packages",
    "data/reproduced",
    "data/tracking",
    "configs/promotions.jsonl",
)


def files_named(text: str) -> list[str]:
    """What stands between backticks and looks like a path in the repository."""
    folders = "contract|launcher|trainer|tests|docker|configs|data|docs|notebooks|benchmarks"
    named = re.findall(rf"`((?:{folders})/[\w./-]*)`", text)
    return [path for path in named if not path.startswith(_MADE)]


def files_linked(text: str) -> list[str]:
    """The targets of links within the repository, without the headings behind them."""
    return re.findall(r"\]\(([^()\s:#]+)(?:#[^()\s]*)?\)", text)


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


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_a_document_names_exists(name):
    named = files_named((ROOT / name).read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_in_a_document_leads_to_a_file(name):
    linked = files_linked((ROOT / name).read_text(encoding="utf-8"))
    assert [path for path in linked if not (ROOT / name).parent.joinpath(path).exists()] == []


def test_files_that_are_named_or_linked_are_found():
    text = "`launcher/gone.py`, `configs/` or [a page](gone.md#part); `data/models/`, `a/b`"
    assert files_named(text) == ["launcher/gone.py", "configs/"]
    assert files_linked(text) == ["gone.md"]
    for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "configs/README.md", "docs/promotion.md"):
        assert name in DOCUMENTS
        assert files_named((ROOT / name).read_text(encoding="utf-8"))
