"""A stage's code is what its module can reach, and nothing else."""

import pytest

from launcher.pipeline.code_digest import _imports, code_digest


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
