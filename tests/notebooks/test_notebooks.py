"""The notebooks are valid, hold nothing that was made by running them, and name what exists."""

import ast
import re

import nbformat
import pytest

from launcher.project import ROOT
from tests.launcher.test_documented_commands import check_command, commands_in_blocks

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Of an index, or of whoever wrote it; the project's own address is given by who runs it.
_ADDRESS = r"https?://|--index-url|PIP_INDEX_URL"
# Colab's own is the same on all of its machines.
_ABSOLUTE_PATH = r"(?<![\w.~/])/(?!content/drive/)\w+/"


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_of(notebook):
    return [ast.parse(cell.source) for cell in notebook.cells if cell.cell_type == "code"]


def commands_of(notebook):
    """The words of each call of `invoke`, with `x` for what is known when it runs."""
    nodes = [node for cell in code_of(notebook) for node in ast.walk(cell)]
    lists = {}
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.List(elts=words)):
                lists[name] = list(words)
            case ast.AugAssign(target=ast.Name(id=name), value=ast.List(elts=words)):
                lists[name] += words
    found = []
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id != "invoke":
                continue
            words = []
            for word in node.args:
                starred = isinstance(word, ast.Starred) and isinstance(word.value, ast.Name)
                words += lists[word.value.id] if starred else [word]
            found.append([w.value if isinstance(w, ast.Constant) else "x" for w in words])
    return found


def test_there_are_notebooks():
    assert ROOT / "notebooks" / "colab_t4.ipynb" in NOTEBOOKS


def test_it_is_valid_and_holds_no_output(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


def test_its_commands_are_ones_that_invoke_reads(notebook):
    found = commands_of(notebook)
    for cell in notebook.cells:
        found += commands_in_blocks(cell.source) if cell.cell_type == "markdown" else []
    assert {words[0] for words in found} >= {"doctor", "data", "train", "package"}
    for words in found:
        check_command(words)


def test_every_line_of_shell_code_ends_the_notebook_where_it_fails(notebook):
    # `!command` and %%bash would go on, or not show what is said meanwhile.
    assert not [
        line for cell in notebook.cells for line in re.findall(r"^[!%].*", cell.source, re.M)
    ]


def test_it_names_no_index_and_no_place_on_one_machine(notebook):
    for cell in notebook.cells:
        assert not re.findall(f"{_ADDRESS}|{_ABSOLUTE_PATH}", cell.source)


def test_one_cell_holds_what_a_person_may_change(notebook):
    (parameters,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert parameters.cell_type == "code"
    for statement in ast.parse(parameters.source).body:
        assert isinstance(statement, ast.Assign), ast.unparse(statement)


def test_an_unknown_flag_is_found_where_it_comes_out_of_a_list():
    cells = ["recipe = ['--profile', P]\nrecipe += ['--sett', S]", "invoke('train', *recipe)"]
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    assert commands_of(made) == [["train", "--profile", "x", "--sett", "x"]]
