"""A stage's code is what its module can reach, and nothing else."""

import shutil

import pytest

from launcher.pipeline.code_digest import _imports, code_digest
from launcher.project import ROOT


@pytest.fixture
def root(tmp_path):
    files = {
        "trainer/__init__.py": "",
        "trainer/shared.py": "X = 1\n",
        "trainer/one/__init__.py": "",
        "trainer/one/__main__.py": "from trainer.one.stage import run\n",
        "trainer/one/stage.py": "def run():\n    from trainer import shared\n    import json\n",
        "trainer/two/__init__.py": "",
        "trainer/two/__main__.py": "import os\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def both(root):
    _imports.cache_clear()
    return code_digest("trainer.one", root), code_digest("trainer.two", root)


def test_an_edit_reaches_the_stages_that_import_it_even_inside_a_function(root):
    one, two = both(root)
    (root / "trainer" / "shared.py").write_text("X = 2\n")
    one_after, two_after = both(root)
    assert one != one_after
    assert two == two_after


def test_an_unknown_module_is_an_error(root):
    with pytest.raises(FileNotFoundError, match=r"no module trainer\.three"):
        code_digest("trainer.three", root)


def test_every_stage_of_the_pipeline_has_code():
    from launcher.pipeline.stages import ALL_STAGES

    digests = {code_digest(f"trainer.{stage.name}") for stage in ALL_STAGES}
    assert len(digests) == len(ALL_STAGES)


@pytest.mark.parametrize(
    ("table", "stages"),
    [
        ("contract/metrics.py", {"questions"}),
        ("contract/row_forms.py", {"prepare", "questions"}),
        ("trainer/prepare/reading.py", {"prepare", "questions"}),
        ("contract/results/merge.py", {"merge"}),
    ],
)
def test_a_new_entry_of_a_table_is_new_code_only_to_the_stages_that_read_it(
    tmp_path, table, stages
):
    for wing in ("contract", "trainer"):
        shutil.copytree(ROOT / wing, tmp_path / wing)
    names = [path.parent.name for path in sorted(tmp_path.glob("trainer/*/__main__.py"))]

    def digests():
        return {name: code_digest(f"trainer.{name}", tmp_path) for name in names}

    before = digests()
    with (tmp_path / table).open("a") as file:
        file.write("# An entry more.\n")
    after = digests()
    assert {name for name in names if before[name] != after[name]} == stages
