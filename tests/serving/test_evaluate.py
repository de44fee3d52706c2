"""From a trained model to the role that an application asks, on a real server."""

import json
import os
import random
import signal
import time
from itertools import islice
from pathlib import Path

import pytest

from contract import paths
from contract.reference import Reference
from launcher.evaluate.evaluation import SKILLS
from launcher.evaluate.record import Evaluation, EvaluationAttempt
from launcher.project import MODELS_FILE
from launcher.promote.env_file import EnvVariable
from launcher.promote.log import PromotionLog
from launcher.serving.compatibility import numbers
from launcher.serving.ollama_server import OllamaServer
from tests.conftest import begin, clone_with_run, invoke, lend_tools
from tests.serving.conftest import (
    NAME,
    Ollama,
    import_smoke,
    programs,
    put,
    temporary,
    the_run,
)

ROLE = ("--role", "sfd_analyzer", "--model", NAME)
SHUFFLED = "shuffled"


@pytest.fixture
def clean(ollama, connected):
    for name in list(connected.models()):
        connected.delete(name)
    return ollama


@pytest.fixture(scope="session")
def trained(smoke_run, tools, tmp_path_factory):
    """A clone with the smoke run, and one of a model that learned answers in a shuffled order."""
    clone = clone_with_run(smoke_run.project, tmp_path_factory.mktemp("évaluer") / "clone")
    lend_tools(clone, tools)
    rows = [
        json.loads(line)
        for line in (clone / "data" / "training" / "smoke.jsonl").read_text().splitlines()
    ]
    outputs = [row["output"] for row in rows]
    random.Random(1).shuffle(outputs)
    path = clone / "data" / "training" / "shuffled.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row, output in zip(rows, outputs, strict=True):
            file.write(json.dumps({**row, "output": output}, ensure_ascii=False) + "\n")
    words = ["--data", str(path), "--set", "evaluation_path=data/evaluation/smoke.jsonl"]
    words += ["--set", f"output_model_name={SHUFFLED}", "--set", "epochs=1"]
    words += ["--set", "held_out_answers=2", "--ollama", "none"]
    done = invoke(clone, "train", "--profile", "smoke", "--engine", "local", *words)
    assert done.returncode == 0, done.stderr
    return clone


@pytest.fixture(scope="session")
def few_skills(tmp_path_factory):
    """Each shipped set of skills, and four rows of it."""
    folder = tmp_path_factory.mktemp("few")
    for path in SKILLS.glob("*.jsonl"):
        with path.open(encoding="utf-8") as rows:
            (folder / path.name).write_text("".join(islice(rows, 4)), encoding="utf-8")
    return folder


def ask(project, ollama, *words):
    return invoke(project, *words, OLLAMA_HOST=ollama.host)


def test_the_smoke_model_ships_and_an_application_uses_it(
    clean, connected, trained, few_skills, tmp_path
):
    models = trained / MODELS_FILE.relative_to(MODELS_FILE.parent.parent)
    before = models.read_text()
    assert import_smoke(trained, clean).returncode == 0
    # Servers of old take ten times as long for an answer.
    few = () if numbers(connected.version) >= (0, 30) else ("--skills", str(few_skills))
    evaluated = ask(trained, clean, "evaluate", "--model", NAME, *few)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "better" in evaluated.stdout
    found = Evaluation.of_run(the_run(trained), NAME)
    assert found.model.by == f"Ollama {connected.version}"
    assert found.model.address == connected.address
    assert found.task.model.score.mean > 0.9
    assert len(found.skills) >= 8
    # The base was there as long as it was asked.
    assert set(connected.models()) == {f"{NAME}:latest"}
    said = ask(trained, clean, "gate", "--model", NAME)
    assert said.returncode == 0, said.stdout
    assert "ship" in said.stdout
    env = tmp_path / ".env"
    env.write_text("# keep\nRAISE_LORA_PATH=old\n")
    words = ("--env-file", str(env), "--env-key", "RAISE_LORA_PATH")
    promoted = ask(trained, clean, "promote", *ROLE, *words)
    assert promoted.returncode == 0, promoted.stderr
    digest = connected.digest(NAME)
    own_name = f"{NAME}:{digest[:12]}"
    assert connected.digest(own_name) == digest
    pairs = zip(before.splitlines(), models.read_text().splitlines(), strict=True)
    (change,) = [(old, new) for old, new in pairs if old != new]
    assert change[1].strip() == f"model_name: {own_name}"
    variable = EnvVariable.read(env, "RAISE_LORA_PATH")
    assert variable.value == str(the_run(trained) / paths.ADAPTER)
    assert env.read_text().startswith("# keep\nRAISE_LORA_PATH=")
    question = Reference.read(the_run(trained) / paths.REFERENCE).questions[0]
    asked = clean.run("run", own_name, question.messages[-1]["content"])
    assert asked.stdout.strip() == question.answer.strip()
    back = ask(trained, clean, "rollback", "--role", "sfd_analyzer")
    assert back.returncode == 0, back.stderr
    assert models.read_text() == before
    assert env.read_text() == "# keep\nRAISE_LORA_PATH=old\n"


def test_a_model_of_shuffled_answers_is_told_apart_and_does_not_ship(clean, connected, trained):
    models = trained / MODELS_FILE.relative_to(MODELS_FILE.parent.parent)
    before = models.read_text()
    put(trained, connected)
    imported = ask(trained, clean, "import", "--model", SHUFFLED)
    assert imported.returncode == 0, imported.stderr
    words = ("evaluate", "--model", SHUFFLED, "--skills", "none")
    against = ask(trained, clean, *words, "--base", NAME)
    assert against.returncode == 0, against.stderr
    assert Evaluation.of_run(the_run(trained, SHUFFLED), SHUFFLED).task.verdict == "worse"
    # Beside its own base, which has nothing right.
    assert ask(trained, clean, *words).returncode == 0
    said = ask(trained, clean, "gate", "--model", SHUFFLED)
    assert said.returncode == 3, said.stdout
    assert "do not ship" in said.stdout
    role = ("--role", "sfd_analyzer", "--model", SHUFFLED)
    refused = ask(trained, clean, "promote", *role)
    assert refused.returncode == 3, refused.stderr
    # It has learned the answers' form, and guesses: some gain, and none that is wanted.
    assert "✗ task" in refused.stderr or "? task" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert models.read_text() == before
    forced = ask(trained, clean, "promote", *role, "--override", "pour l'essai")
    assert forced.returncode == 0, forced.stderr
    entry = PromotionLog(trained / "configs" / "promotions.jsonl").standing("sfd_analyzer")
    assert entry.override == "pour l'essai"
    assert not entry.gate.ship
    assert ask(trained, clean, "rollback", "--role", "sfd_analyzer").returncode == 0
    assert models.read_text() == before


def test_what_cannot_be_evaluated_is_a_sentence(clean, connected, trained):
    missing = ask(trained, clean, "evaluate", "--model", "nobody", "--data", "smoke")
    assert missing.returncode == 2
    assert "has no model nobody" in missing.stderr
    put(trained, connected, SHUFFLED)
    made = clean.run("cp", SHUFFLED, NAME)
    assert made.returncode == 0, made.stderr
    another = ask(trained, clean, "evaluate", "--model", NAME, "--ollama", "host")
    assert another.returncode == 2
    assert "does not belong to run" in another.stderr
    for words, said in (
        (("--metric", "bleu"), "there is no metric 'bleu'. Known: json_f1"),
        (("--data", "nothing.jsonl"), "nothing.jsonl does not exist"),
        (("--skills", "data/models"), "is not a folder of evaluation sets"),
        (("--parallel", "0"), "0 is not a number between 1 and"),
        (("--parallel", "x"), "x is not a number between 1 and"),
        (("--run", "zz"), "no finished run zz"),
        (("--base", "nobody"), "has no model nobody"),
    ):
        done = ask(trained, clean, "evaluate", "--model", SHUFFLED, *words)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_a_model_of_somebody_elses_is_scored_on_given_rows(clean, connected, trained):
    put(trained, connected)
    connected.copy(f"{NAME}:latest", "theirs:latest")
    words = ("--model", "theirs", "--data", "smoke", "--skills", "none", "--metric", "exact")
    done = ask(trained, clean, "evaluate", *words, "--quiet")
    assert done.returncode == 0, done.stderr
    found = Evaluation.read(Path(done.stdout.strip()))
    assert found.task.model.score.mean > 0.9
    assert found.base is None
    assert found.model.model_digest is None
    whole = found.task.rows
    done = ask(trained, clean, "evaluate", *words, "--limit", "20", "--quiet")
    assert done.returncode == 0, done.stderr
    sample = Evaluation.read(Path(done.stdout.strip()))
    assert (sample.limit, sample.task.rows, found.limit) == (20, 20, None)
    assert whole > 20


@pytest.fixture
def fragile(tmp_path, monkeypatch):
    """A server that may be killed."""
    server = Ollama(programs()[-1], tmp_path / "home")
    server.start()
    monkeypatch.setenv("OLLAMA_HOST", server.host)
    yield server
    server.kill()


@pytest.mark.parametrize("dies", ["server", "launcher"])
def test_what_was_answered_is_not_asked_again(fragile, trained, dies):
    answers = the_run(trained) / paths.EVALUATION_FOLDER / paths.ANSWERS
    for file in answers.glob("*"):
        file.unlink()
    put(trained, OllamaServer.found())
    words = ("evaluate", "--model", NAME, "--skills", "none")
    process = begin(trained, *words, OLLAMA_HOST=fragile.host)
    deadline = time.monotonic() + 120
    while not (lines := answered(answers)) or len(lines) < 10:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if dies == "server":
        fragile.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    before = answered(answers)
    assert 10 <= len(before) < 118
    if dies == "server":
        assert process.returncode == 2, said
        assert "while answering" in said
        assert "Traceback" not in said
        fragile.start()
    attempt = EvaluationAttempt.of_run(the_run(trained))
    assert (
        attempt.model.answered == f"Ollama {OllamaServer.found().version} at http://{fragile.host}"
    )
    done = ask(trained, fragile, *words)
    assert done.returncode == 0, done.stderr
    assert EvaluationAttempt.of_run(the_run(trained)) is None
    assert temporary(OllamaServer.found()) == []
    after = [line for file in sorted(answers.glob("*")) for line in keys(file)]
    assert len(after) == 2 * 118
    assert set(before) <= set(after)
    for file in answers.glob("*"):
        assert len(set(keys(file))) == len(keys(file)) == 118


def answered(folder):
    return [key for file in folder.glob("*") for key in keys(file)] if folder.exists() else []


def keys(file):
    found = []
    for line in file.read_text(encoding="utf-8").split("\n"):
        try:
            found.append(json.loads(line)["key"])
        except json.JSONDecodeError:
            continue
    return found
