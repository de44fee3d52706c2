"""Every form that a run can give a model is served right by a real server, or refused by name."""

import json
from pathlib import Path

import pytest

from contract import paths
from contract.errors import UserError
from launcher.display import Display
from launcher.pipeline.finished_run import Run
from launcher.serving.compatibility import numbers
from launcher.serving.model_import import import_run
from launcher.serving.ollama_server import OllamaServer
from launcher.serving.verification import verify
from tests.conftest import clone_with_run, invoke, stage
from tests.serving.conftest import (
    NAME,
    Ollama,
    as_if_made,
    import_smoke,
    programs,
    take_run,
    the_run,
)

QUIET = Display(quiet=True)
TRAIN = ("train", "--profile", "smoke", "--engine", "local")
# The system turn is folded into the first question: Ollama's templates have no equal.
FOLDED = (
    "{% set s = namespace(t='') %}{% for m in messages %}"
    "{% if m.role == 'system' %}{% set s.t = m.content + '\n\n' %}"
    "{% elif m.role == 'user' %}<|im_start|>{{ s.t }}{{ m.content }}<|im_end|>{% set s.t = '' %}"
    "{% else %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)


@pytest.fixture
def clean(ollama, connected):
    connected.delete(NAME)
    return ollama


def test_a_k_quant_is_served_and_proved(clean, connected, quantized):
    done = import_smoke(quantized, clean)
    assert done.returncode == 0, done.stderr
    assert "✓  q4_k_m vs merged" in done.stderr
    assert connected.show(NAME)["details"]["quantization_level"] == "Q4_K_M"
    manifest = Run(the_run(quantized)).manifest
    assert manifest.verification.passed
    assert manifest.verification.server == connected.version
    stages = [record.stage for record in manifest.stages]
    assert stages[stages.index("convert") + 1] == "quantize"
    assert "rendering" in stages


def test_the_adapter_is_served_by_servers_that_take_one(clean, connected, project):
    words = ("--set", "serving=adapter", "--set", "quantizations=[q8_0]")
    done = invoke(project, *TRAIN, *words, OLLAMA_HOST=clean.host)
    if numbers(connected.version) >= (0, 34, 1):
        assert done.returncode == 2
        assert "no longer supports adapters" in done.stderr
        assert "✓ prepare" not in done.stderr
        assert connected.digest(NAME) is None
        return
    assert done.returncode == 0, done.stderr
    assert "✓  q8_0 base and adapter vs merged" in done.stderr
    run = the_run(project)
    assert "ADAPTER ./gguf/adapter-f32.gguf" in (run / paths.MODELFILE).read_text()
    made = clean.run("create", "by-hand", "-f", str(run / paths.MODELFILE))
    assert made.returncode == 0, made.stderr
    layers = [
        [line for line in connected.show(name)["modelfile"].splitlines() if "sha256" in line]
        for name in (NAME, "by-hand")
    ]
    # The first is a comment that names the model.
    assert layers[0][-2:] == layers[1][-2:]
    connected.delete("by-hand")
    # A base of the same shapes that is not the one that was trained on loads without a word.
    base = run / paths.base_gguf_name("f16")
    negate_a_matrix(base)
    as_if_made(run, paths.base_gguf_name("f16"))
    wrong = invoke(project, "verify", "--model", NAME, OLLAMA_HOST=clean.host)
    assert wrong.returncode == 1
    assert "✗ greedy answers (f16)" in wrong.stderr


def negate_a_matrix(gguf):
    import numpy
    from gguf import GGUFReader

    reader = GGUFReader(gguf, "r+")
    matrix = next(tensor for tensor in reader.tensors if tensor.name == "blk.0.attn_q.weight")
    matrix.data[:] = numpy.negative(matrix.data)
    reader.data.flush()


@pytest.fixture(scope="session")
def folded(smoke_run, tmp_path_factory):
    """A clone whose run has a template without an equal; not to be changed."""
    clone = clone_with_run(smoke_run.project, tmp_path_factory.mktemp("plié") / "clone")
    run = the_run(clone)
    merged = run / paths.MERGED
    config = json.loads((merged / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (merged / "tokenizer_config.json").write_text(json.dumps(config))
    (merged / "chat_template.jinja").write_text(FOLDED)
    mounts = ["--base", smoke_run.base, "--llama-cpp", smoke_run.llama_cpp]
    for name, words in (("convert", mounts), ("modelfile", []), ("reference", [])):
        code, _, log = stage(f"trainer.{name}", "--run", str(run), *map(str, words))
        assert code == 0, log
    for file in run.glob(f"{paths.GGUF}/*.gguf"):
        as_if_made(run, file.relative_to(run))
    return clone


def test_a_template_without_an_equal_is_the_ggufs_own_or_nobodys(clean, connected, project, folded):
    run = take_run(project, folded)
    if numbers(connected.version) < (0, 30):
        refused = import_smoke(project, clean)
        assert refused.returncode == 2
        assert "conversations would be lost" in refused.stderr
        assert connected.digest(NAME) is None
        return
    import_run(Run(run), NAME, connected, display=QUIET)
    checks = {
        check.name: check.passed
        for check in verify(
            Run(run), connected, NAME, exact=NAME, on_progress=lambda doing, done, total: None
        )
    }
    # It was not trained on this form: what it answers is nothing to ask for.
    assert checks["server report"]
    assert checks["prompts"]


class OnASmallDisk(Ollama):
    """A server whose store is a file system of 3 MB of its own."""

    def start(self):
        store = self.home / "store"
        store.mkdir(parents=True, exist_ok=True)
        wrapper = self.home / "serve"
        wrapper.write_text(
            f"#!/bin/sh\nmount -t tmpfs -o size=3m tmpfs '{store}' && exec '{self.real}' \"$@\"\n"
        )
        wrapper.chmod(0o755)
        self.program = str(self.home / "unshared")
        Path(self.program).write_text(
            f'#!/bin/sh\nexec unshare --user --map-root-user --mount "{wrapper}" "$@"\n'
        )
        Path(self.program).chmod(0o755)
        super().start()

    def environment(self):
        return {**super().environment(), "OLLAMA_MODELS": str(self.home / "store")}


@pytest.mark.parametrize("program", programs(), ids=lambda path: path.split("/")[-3:][0])
def test_a_full_disk_on_the_servers_side_is_a_sentence(program, project, tmp_path, monkeypatch):
    server = OnASmallDisk(program, tmp_path / "home")
    server.real = program
    server.start()
    monkeypatch.setenv("OLLAMA_HOST", server.host)
    try:
        with pytest.raises(UserError) as refused:
            import_run(Run(the_run(project)), NAME, OllamaServer.found(), display=QUIET)
        assert "no space left" in str(refused.value)
        assert "Free some space on the server's disk" in str(refused.value)
        assert OllamaServer.found().digest(NAME) is None
    finally:
        server.kill()
