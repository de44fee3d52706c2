"""The guide word for word: its seven keys, a base that the server alone has, and no profile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.evaluate.record import Evaluation
from launcher.project import MODELS_FILE, ROOT
from launcher.serving import ollama_server
from tests.conftest import apart, bare_clone, invoke, lend_tools
from tests.real_bases import BASES, RealBase, write_rows
from tests.serving.conftest import Ollama, programs, the_run

BASE, TUNED = "qwen3-sfd-analyzer", "qwen3-sfd-analyzer-v2"
DATASET = "data/training/sfd_analysis_dataset.jsonl"
EVALUATION = "data/evaluation/sfd_analysis_dataset.jsonl"
# The numbers are for a model of a seed's weights: it has more to learn than the guide's has.
GUIDE = {
    "model_to_fine_tune": BASE,
    "dataset_path": DATASET,
    "output_model_name": TUNED,
    "epochs": 3,
    "learning_rate": 1e-2,
    "batch_size": 1,
    "lora_rank": 16,
}
# Qwen3 itself, which the newer servers know; all public ones have heads of this width.
QWEN3 = RealBase(
    BASES["qwen3"].tokenizer,
    ("Qwen3Config", "Qwen3ForCausalLM"),
    True,
    {"vocab_size": 151936, "head_dim": 128},
)
CONVERT = """
from trainer.convert.llama_cpp import write_gguf
llama_cpp, base, gguf = map(Path, sys.argv[1:])
write_gguf(llama_cpp, base, gguf, quantization="q8_0", model_name="qwen3")
"""


@pytest.fixture(scope="module")
def gguf(llama_cpp, tmp_path_factory) -> Path:
    """A tiny Qwen3 with the real tokenizer, as a model in Ollama is: one file in 8 bits."""
    folder = tmp_path_factory.mktemp("qwen3")
    base = QWEN3.write(folder / "base", folder / "fetched")
    file: Path = folder / "qwen3-q8_0.gguf"
    apart(CONVERT, llama_cpp, base, file)
    return file


@pytest.fixture(scope="module")
def server(gguf, tmp_path_factory):
    """The newest of the servers, that has this model under the guide's name and nothing else."""
    server = Ollama(programs()[-1], tmp_path_factory.mktemp("ollama") / "home")
    server.start()
    (gguf.parent / "Modelfile").write_text(f"FROM {gguf}\n")
    made = server.run("create", BASE, "-f", str(gguf.parent / "Modelfile"))
    assert made.returncode == 0, made.stderr
    yield server
    server.kill()


@pytest.fixture(scope="module")
def clone(smoke_run, tools, tmp_path_factory) -> Path:
    """A clone with the guide's configuration, and easy rows under the guide's names for them."""
    clone = bare_clone(smoke_run.project, tmp_path_factory.mktemp("guide") / "clone é")
    lend_tools(clone, tools)
    rows = write_rows(clone / DATASET, 140).read_text("utf-8").splitlines(keepends=True)
    (clone / DATASET).write_text("".join(rows[:100]), "utf-8")
    (clone / EVALUATION).write_text("".join(rows[100:]), "utf-8")
    (clone / "guide.json").write_text(json.dumps(GUIDE))
    return clone


@pytest.mark.trains
def test_the_guides_configuration_makes_its_model_beside_the_base_and_an_application_uses_it(
    server, clone, monkeypatch
):
    monkeypatch.setenv("OLLAMA_HOST", server.host)
    connected = ollama_server.OllamaServer.found()
    base_digest = connected.digest(BASE)

    done = invoke(clone, "train", "--config", "guide.json", OLLAMA_HOST=server.host)
    assert done.returncode == 0, done.stderr
    # One line says which profile it took, and why; tests/gpu has machines with a card.
    profile = next(line for line in done.stderr.splitlines() if "profile" in line)
    assert "profile cpu: no NVIDIA GPU was found" in profile
    assert set(connected.models()) == {f"{BASE}:latest", f"{TUNED}:latest"}
    assert connected.digest(BASE) == base_digest
    for number in range(3):
        asked = [{"role": "user", "content": f"Réponds au numéro {500 + number} : la mer ?"}]
        said = connected.chat(model=TUNED, messages=asked, options={"temperature": 0})
        assert json.loads(said["message"]["content"]) == {"ok": True}

    # A sample of each set: a base of a seed's weights answers every question to its bound.
    words = ("evaluate", "--model", TUNED, "--limit", "24")
    evaluated = invoke(clone, *words, OLLAMA_HOST=server.host)
    assert evaluated.returncode == 0, evaluated.stderr
    found = Evaluation.of_run(the_run(clone, TUNED), TUNED)
    assert found.task.model.score.mean > 0.9
    assert found.task.difference is not None
    # A seed's weights have no skill to lose.
    gated = invoke(clone, "gate", "--model", TUNED)
    assert gated.returncode == 0, gated.stdout
    role = ("--role", "sfd_analyzer", "--model", TUNED)
    promoted = invoke(clone, "promote", *role, OLLAMA_HOST=server.host)
    assert promoted.returncode == 0, promoted.stderr
    models = (clone / MODELS_FILE.relative_to(ROOT)).read_text()
    assert f"model_name: {TUNED}:{connected.digest(TUNED)[:12]}" in models
