"""The notebook, executed cell by cell: a zip comes out, and another session goes on from the copy.

Its training is the smoke run that the tests share, so nothing is trained here.
"""

import zipfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from contract.digest import digest_of_file
from launcher.pipeline.finished_run import Run
from launcher.project import ROOT
from tests.conftest import bare_clone, clean_environment, clone_with_run

_SECONDS_A_CELL = 600
# As the smoke profile says it, so that nothing is to be trained.
_SMOKE = {
    "PROFILE": "smoke",
    "MODEL": "smoke",
    "NAME": "affineur-smoke",
    "SETTINGS": ["evaluation_path=data/evaluation/smoke.jsonl"],
}
# Colab's modules, as far as the notebook knows them; what is asked of them is written down.
_COLAB = {
    "__init__.py": "",
    "files.py": """
import pathlib, shutil, os

def upload():
    shutil.copy(os.environ["COLAB_UPLOAD"], "mes lignes.jsonl")
    return {"mes lignes.jsonl": pathlib.Path("mes lignes.jsonl").read_bytes()}

def download(path):
    print("downloading", pathlib.Path(path).resolve())
""",
    "drive.py": "def mount(path):\n    raise AssertionError('nothing there is to be mounted')\n",
}


def execute(project, folder, home, **values):
    """Run the notebook in a folder with these parameters; what its code cells printed.

    Raises:
        CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(project / "notebooks" / "colab_t4.ipynb", as_version=4)
    places = [n for n, cell in enumerate(notebook.cells) if "tags" in cell.metadata]
    given = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    notebook.cells.insert(places[0] + 1, nbformat.v4.new_code_cell(given))
    own = {name: str(home / name) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    for folder_made in own.values():
        Path(folder_made).mkdir(parents=True)
    own["COLAB_UPLOAD"] = str(ROOT / "data/training/smoke.jsonl")
    if (home / "google").exists():
        own["PYTHONPATH"] = str(home)
    client = NotebookClient(
        notebook,
        timeout=_SECONDS_A_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=clean_environment(**own))
    outputs = [out for cell in notebook.cells if "outputs" in cell for out in cell.outputs]
    return "".join(out.get("text", "") for out in outputs)


@pytest.fixture(scope="module")
def kept_on_drive(smoke_run, tmp_path_factory):
    """What a session left on a drive, what it printed, and its project."""
    folder = tmp_path_factory.mktemp("session")
    project = clone_with_run(smoke_run.project, folder / "clone d'été")
    printed = execute(
        project,
        project / "notebooks",
        folder / "home",
        **_SMOKE,
        DATASET="data/training/smoke.jsonl",
        KEEP=str(folder / "drive"),
    )
    return folder / "drive", printed, project


def test_it_ends_with_one_zip_of_all_that_ollama_and_a_reader_need(kept_on_drive, smoke_run):
    drive, printed, project = kept_on_drive
    (package,) = (project / "data/packages").iterdir()
    assert package.name == f"affineur-smoke-{smoke_run.folder.name}.zip"
    assert f"data/packages/{package.name}\n" in printed
    assert "✓ train      up to date" in printed
    names = {name.split("/", 1)[1] for name in zipfile.ZipFile(package).namelist()}
    assert names >= {"Modelfile", "manifest.json", "gguf/model-f16.gguf"}
    assert "adapter/adapter_model.safetensors" in names
    assert digest_of_file(drive / package.name) == digest_of_file(package)
    # The report on the rows, and the doctor's.
    assert "train 720, held out 118" in printed
    assert "GPU" in printed


def test_a_new_session_takes_the_training_from_the_copy(kept_on_drive, smoke_run, tmp_path):
    drive, _, _ = kept_on_drive
    colab = tmp_path / "home" / "google" / "colab"
    colab.mkdir(parents=True)
    for name, code in _COLAB.items():
        (colab / name).write_text(code)
    # A machine that has neither the run nor the merged model: as a new session's.
    project = bare_clone(smoke_run.project, tmp_path / "content" / "affineur")
    printed = execute(
        project,
        # Beside the clone, where a notebook of Colab's is.
        project.parent,
        tmp_path / "home",
        **_SMOKE,
        KEEP=str(drive),
    )
    assert "✓ train      up to date" in printed
    assert "✓ merge      up to date" not in printed
    (folder,) = project.glob("data/models/affineur-smoke/*/manifest.json")
    made, first = Run(folder.parent), Run(smoke_run.folder)
    assert made.name == first.name
    # The zip that lies in the place as well is not taken for a model.
    assert not list((project / "data/models").glob("**/*.zip"))
    for name in ("adapter/adapter_model.safetensors", "gguf/model-f16.gguf"):
        assert digest_of_file(made.folder / name) == digest_of_file(first.folder / name)
    (package,) = (project / "data/packages").iterdir()
    assert f"downloading {package}" in printed
