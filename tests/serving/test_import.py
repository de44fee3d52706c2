"""A run's model comes into a real Ollama server whole, or not at all."""

import subprocess
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from contract import paths
from contract.digest import digest_of_file
from contract.errors import UserError
from contract.reference import Reference
from contract.serving import Serving
from launcher.display import Display
from launcher.pipeline.finished_run import Run
from launcher.pipeline.model_files import ModelFiles
from launcher.pipeline.package import write_package
from launcher.serving.model_import import import_run
from launcher.serving.ollama_server import OllamaServer
from launcher.serving.server_choice import OllamaHost
from launcher.serving.server_diff import differences
from tests.conftest import begin, invoke
from tests.serving.conftest import (
    NAME,
    RETOLD,
    Ollama,
    import_smoke,
    programs,
    put,
    take_run,
    temporary,
)

QUIET = Display(quiet=True)
TRAIN_RETOLD = ("train", "--profile", "smoke", "--set", RETOLD)


@pytest.fixture
def clean(ollama, connected):
    """The shared server without our model."""
    connected.delete(NAME)
    return ollama


def questions(project):
    """What the trained model was asked, and what it says."""
    (run,) = (project / "data" / "models" / NAME).glob("*/")
    found = Reference.read(run / paths.REFERENCE).questions
    return [question for question in found if question.held_out]


def test_train_ends_with_a_model_that_answers_and_stops(clean, connected, project):
    done = invoke(project, "train", "--profile", "smoke", OLLAMA_HOST=clean.host)
    assert done.returncode == 0, done.stderr
    assert f"Ask it:  ollama run {NAME}" in done.stdout
    assert done.stderr.count("✓") >= 4
    for question in questions(project)[:5]:
        asked = clean.run("run", NAME, question.messages[-1]["content"])
        assert asked.stdout.strip() == question.answer.strip(), asked.stderr


def test_a_second_import_has_nothing_to_do(clean, project):
    assert import_smoke(project, clean).returncode == 0
    again = import_smoke(project, clean)
    assert again.returncode == 0, again.stderr
    assert "up to date" in again.stderr


def test_the_modelfile_makes_the_same_model_by_ollamas_own_means(clean, connected, project):
    run = put(project, connected)
    made = clean.run("create", "by-hand", "-f", str(run / "Modelfile"))
    assert made.returncode == 0, made.stderr
    ours, theirs = connected.show(NAME), connected.show("by-hand")
    for what in ("template", "details", "model_info"):
        assert ours.get(what) == theirs.get(what)
    assert sorted(ours["parameters"].split()) == sorted(theirs["parameters"].split())
    layers = [
        [line for line in shown["modelfile"].splitlines() if line.startswith("FROM")]
        for shown in (ours, theirs)
    ]
    assert layers[0] == layers[1]
    connected.delete("by-hand")


def test_a_package_makes_the_same_model_elsewhere(clean, connected, project, tmp_path):
    run = put(project, connected)
    write_package(Run(run), tmp_path / "p.zip", QUIET)
    with zipfile.ZipFile(tmp_path / "p.zip") as opened:
        opened.extractall(tmp_path / "elsewhere")
    (modelfile,) = (tmp_path / "elsewhere").glob("*/Modelfile")
    made = clean.run("create", "unpacked", "-f", str(modelfile))
    assert made.returncode == 0, made.stderr
    ours, theirs = connected.show(NAME), connected.show("unpacked")
    for what in ("template", "details", "model_info"):
        assert ours.get(what) == theirs.get(what)
    connected.delete("unpacked")


def test_a_strangers_model_keeps_its_name(clean, connected, project):
    (run,) = (project / "data" / "models" / NAME).glob("*/")
    (run / "stranger").write_text(f"FROM ./{paths.gguf_name('q8_0')}\nSYSTEM a stranger's\n")
    assert clean.run("create", NAME, "-f", str(run / "stranger")).returncode == 0
    before = connected.digest(NAME)
    refused = import_smoke(project, clean)
    assert refused.returncode == 2
    assert "was not imported by this project" in refused.stderr
    assert "--replace" in refused.stderr
    assert connected.digest(NAME) == before
    taken = import_smoke(project, clean, "--replace")
    assert taken.returncode == 0, taken.stderr
    assert connected.digest(NAME) != before


def test_ours_is_replaced_by_a_newer_one_of_ours(clean, connected, project, retold):
    put(project, connected)
    before = connected.digest(NAME)
    take_run(project, retold)
    done = invoke(project, *TRAIN_RETOLD, OLLAMA_HOST=clean.host)
    assert done.returncode == 0, done.stderr
    assert connected.digest(NAME) != before
    assert "99" in connected.show(NAME)["parameters"]


def test_what_the_server_reports_is_compared_with_what_was_sent(clean, connected, project):
    run = put(project, connected)
    files = Run(run).files
    assert differences(connected, NAME, files) == []
    others = replace(files, blobs=dict.fromkeys(files.blobs, "sha256:" + "0" * 64))
    assert differences(connected, NAME, others)[0].startswith("files: ")
    serving = files.serving
    other = serving.model_copy(
        update={"template": "{{ .Prompt }}", "parameters": {**serving.parameters, "num_ctx": 7}}
    )
    assert len(differences(connected, NAME, replace(others, serving=other))) == 3


def test_a_candidate_that_is_found_wanting_leaves_what_stood_there(
    clean, connected, project, retold
):
    put(project, connected)
    before = connected.digest(NAME)
    run = take_run(project, retold)

    def wanting(candidate):
        assert connected.digest(candidate) is not None
        raise UserError.one(candidate, "says something else")

    with pytest.raises(UserError, match="something else"):
        import_run(Run(run), NAME, connected, display=QUIET, examine=wanting)
    assert connected.digest(NAME) == before


def test_a_name_that_the_server_refuses_is_a_sentence(clean, connected, project):
    (run,) = (project / "data" / "models" / NAME).glob("*/")
    with pytest.raises(UserError, match="not a valid model name"):
        import_run(Run(run), "not a name", connected, display=QUIET)


def test_a_gguf_cut_short_is_refused_before_it_is_sent(clean, connected, project):
    (run,) = (project / "data" / "models" / NAME).glob("*/")
    gguf = run / Serving.read(run / paths.SERVING).gguf
    gguf.write_bytes(gguf.read_bytes()[:10_000])
    with pytest.raises(UserError, match="not the file that the run created"):
        import_run(Run(run), NAME, connected, display=QUIET)
    assert connected.digest(NAME) is None


def test_an_error_inside_a_stream_that_began_well_is_found(clean, connected, project, tmp_path):
    """The server says 200, works a while, and then that the file is none."""
    (run,) = (project / "data" / "models" / NAME).glob("*/")
    serving = Serving.read(run / paths.SERVING)
    short = tmp_path / "short.gguf"
    short.write_bytes((run / serving.gguf).read_bytes()[:10_000])
    blob = f"sha256:{digest_of_file(short)}"
    connected.upload(short, blob, lambda sent: None)
    files = ModelFiles(NAME, run, serving, {serving.gguf: blob})
    with pytest.raises(UserError, match="the server returned an error"):
        connected.create(NAME, files, lambda status: None)
    assert connected.digest(NAME) is None


def test_bytes_of_another_digest_are_refused(clean, connected, tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(UserError, match="digest"):
        connected.upload(tmp_path / "a", "sha256:" + "0" * 64, lambda sent: None)


def test_no_server_is_a_sentence_where_one_was_demanded(project):
    done = invoke(project, "train", "--profile", "smoke", "--ollama", "host")
    assert done.returncode == 2
    assert "no server responds at http://127.0.0.1:9" in done.stderr
    unknown = invoke(project, "import", "--model", "nobody")
    assert unknown.returncode == 2
    assert f"Known: {NAME}" in unknown.stderr


STEPS = ("upload", "create", "copy", "delete")


@pytest.mark.parametrize("program", programs(), ids=lambda path: path.split("/")[-3:][0])
@pytest.mark.parametrize("step", STEPS)
def test_a_server_killed_in_the_middle_is_a_sentence_and_the_next_run_ends_right(
    program, step, project, quantized, tmp_path, monkeypatch
):
    """The model that stood there is served until the new one is whole."""
    ollama = Ollama(program, tmp_path / "home")
    ollama.start()
    monkeypatch.setenv("OLLAMA_HOST", ollama.host)
    try:
        server = OllamaServer.found()
        (run,) = (project / "data" / "models" / NAME).glob("*/")
        old = import_run(Run(run), NAME, server, display=QUIET)
        question = questions(project)[0]
        take_run(project, quantized)

        real = getattr(OllamaServer, step)

        def killing(self, *arguments, **more):
            # Halted first: the question is on its way, and never answered.
            ollama.halt()
            killer = threading.Timer(0.3, ollama.kill)
            killer.start()
            try:
                return real(self, *arguments, **more)
            finally:
                killer.join()

        monkeypatch.setattr(OllamaServer, step, killing)
        with pytest.raises(UserError, match=r"lost the connection|did not succeed"):
            import_run(Run(run), NAME, server, display=QUIET)
        monkeypatch.setattr(OllamaServer, step, real)
        ollama.kill()
        ollama.start()
        server = OllamaServer.found()
        standing = server.digest(NAME)
        if step != "delete":
            assert standing == old.digest
        new = import_run(Run(run), NAME, server, display=QUIET)
        assert server.digest(NAME) == new.digest != old.digest
        asked = ollama.run("run", NAME, question.messages[-1]["content"])
        assert asked.stdout.strip() == question.answer.strip(), asked.stderr
        with OllamaHost(QUIET).running():
            assert temporary(server) == []
    finally:
        ollama.kill()


def test_an_interrupted_launcher_goes_on_where_it_was(clean, connected, project, retold):
    take_run(project, retold)
    process = begin(project, *TRAIN_RETOLD, OLLAMA_HOST=clean.host)
    deadline = time.monotonic() + 120
    while not temporary(connected) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    done = invoke(project, *TRAIN_RETOLD, OLLAMA_HOST=clean.host)
    assert done.returncode == 0, done.stderr
    assert "that an earlier command left" in done.stderr
    assert "99" in connected.show(NAME)["parameters"]
    assert temporary(connected) == []


def test_the_programs_are_there():
    for program in programs():
        assert Path(program).exists(), f"{program} is not there; see CONTRIBUTING.md"
        subprocess.run([program, "--version"], check=True, capture_output=True)
