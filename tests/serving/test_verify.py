"""The served model is compared with the trained one, and each way to differ is seen."""

import pytest

from contract import paths
from contract.digest import digest_of_file
from contract.serving import Serving
from launcher.pipeline.finished_run import Run
from launcher.pipeline.model_files import ModelFiles
from launcher.serving.compatibility import numbers
from tests.conftest import invoke
from tests.serving.conftest import CUT_SHORT, NAME, as_if_made, put, take_run, temporary


@pytest.fixture
def imported(connected, project):
    connected.delete(NAME)
    return put(project, connected)


def check(project, ollama):
    done = invoke(project, "verify", "--model", NAME, OLLAMA_HOST=ollama.host)
    (run,) = (project / "data" / "models" / NAME).glob("*/")
    written = Run(run).manifest.verification
    assert written.passed == (done.returncode == 0)
    return done, {line.name for line in written.checks if not line.passed}


def remake(connected, run, *, gguf=None, **changed):
    """The name with another model behind it, made by hand."""
    serving = Serving.read(run / paths.SERVING).model_copy(update=changed)
    file = gguf or run / serving.gguf
    blob = f"sha256:{digest_of_file(file)}"
    if not connected.has_blob(blob):
        connected.upload(file, blob, lambda sent: None)
    files = ModelFiles(NAME, run, serving, {serving.gguf: blob})
    connected.create(NAME, files, lambda status: None)


def test_the_trained_model_passes_every_line(imported, ollama, connected, project):
    done, failed = check(project, ollama)
    assert done.returncode == 0, done.stderr
    assert failed == set()
    assert done.stdout.count("✓") == 6
    # Each tells its prompts as it can.
    way = "letter for letter" if numbers(connected.version) >= (0, 34) else "token for token"
    said = " ".join(done.stdout.split())
    assert f"30 of 32 as in training, {way} (the server's Go template)" in said
    assert "the data do not have: consecutive turns of one role" in said
    assert "32 of 32 match the merged model" in done.stdout
    assert "24 of 24 answers stop within 128 tokens" in done.stdout
    assert temporary(connected) == []


def test_a_lost_template_is_seen(imported, ollama, connected, project):
    remake(connected, imported, template="{{ .Prompt }}")
    done, failed = check(project, ollama)
    assert done.returncode == 1
    assert "prompts" in failed
    assert "✗ prompts: 0 of 32" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_words_of_the_same_length_are_seen(imported, ollama, connected, project):
    """As a template that writes today's date: a count of tokens cannot see it."""
    template = Serving.read(imported / paths.SERVING).template
    changed = template.replace("<|im_start|>user", "<|im_start|>assistant")
    assert changed != template
    remake(connected, imported, template=changed)
    done, failed = check(project, ollama)
    assert "prompts" in failed
    newer = numbers(connected.version) >= (0, 34)
    assert ("user\\nClasse" if newer else "another token at 2 of") in done.stderr


def test_nothing_of_ours_is_left_on_the_server(imported, ollama, connected, project):
    before = connected.models().keys()
    check(project, ollama)
    assert connected.models().keys() == before


def test_a_turn_too_many_is_seen(imported, ollama, connected, project):
    remake(connected, imported, system="Tu es un assistant.")
    _, failed = check(project, ollama)
    assert "prompts" in failed


def test_a_penalty_that_the_server_adds_by_itself_is_seen(imported, ollama, connected, project):
    parameters = dict(Serving.read(imported / paths.SERVING).parameters)
    parameters["repeat_penalty"] = 8.0
    remake(connected, imported, parameters=parameters)
    _, failed = check(project, ollama)
    assert "greedy answers (f16)" in failed


def test_answers_that_run_into_their_bound_are_seen(imported, ollama, connected, project):
    parameters = {**Serving.read(imported / paths.SERVING).parameters, "num_predict": 3}
    remake(connected, imported, parameters=parameters)
    done, failed = check(project, ollama)
    assert done.returncode == 1
    assert failed == {"stop tokens", "server report"}


def test_spoiled_weights_are_seen_in_the_f16_file(imported, ollama, connected, project):
    import numpy
    from gguf import GGUFReader

    path = imported / paths.gguf_name("f16")
    reader = GGUFReader(path, "r+")
    matrix = next(tensor for tensor in reader.tensors if tensor.name == "blk.0.attn_q.weight")
    matrix.data[:] = numpy.negative(matrix.data)
    reader.data.flush()
    as_if_made(imported, paths.gguf_name("f16"))
    # It imports without a word, as it would have from a converter with such a fault.
    remake(connected, imported)
    _, failed = check(project, ollama)
    assert "greedy answers (f16)" in failed


def test_a_quantized_file_beyond_its_bounds_is_seen(imported, ollama, connected, project):
    run = Run(imported)
    recipe = run.recipe.model_copy(update={"quantizations": ["q8_0"], "max_mean_kl": 1e-9})
    run.write_manifest(run.manifest.model_copy(update={"recipe": recipe}))
    _, failed = check(project, ollama)
    assert failed == {"q8_0 vs merged"}


@pytest.mark.usefixtures("imported")
def test_a_failed_candidate_leaves_the_model_that_stood_there(
    ollama, connected, project, cut_short
):
    before = connected.digest(NAME)
    take_run(project, cut_short)
    words = ("--set", CUT_SHORT, "--profile", "smoke")
    done = invoke(project, "train", *words, OLLAMA_HOST=ollama.host)
    assert done.returncode == 1, done.stderr
    assert "✗ stop tokens" in done.stderr
    assert "The model previously served under that name is still in place." in done.stderr
    assert "Traceback" not in done.stderr
    assert connected.digest(NAME) == before


def test_a_model_that_is_not_there_is_a_sentence(ollama, connected, project):
    connected.delete(NAME)
    done = invoke(project, "verify", "--model", NAME, OLLAMA_HOST=ollama.host)
    assert done.returncode == 2
    assert f"./invoke import --model {NAME}" in done.stderr
