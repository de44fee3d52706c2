"""A conversation with the smoke model and its own base, on a real server."""

import subprocess

from contract.reference import Reference
from tests.conftest import clean_environment
from tests.serving.conftest import NAME, put, temporary


def test_a_model_and_its_own_base_answer_side_by_side(ollama, connected, project):
    run = put(project, connected)
    question = next(one for one in Reference.read(run / "reference.json").questions if one.held_out)
    asked = " ".join(question.messages[-1]["content"].split())
    done = subprocess.run(
        [str(project / "invoke"), "chat", "--model", NAME, "--beside", "base"],
        cwd=project,
        env=clean_environment(OLLAMA_HOST=ollama.host),
        input=f"{asked}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    connected.delete(NAME)
    assert done.returncode == 0, done.stderr
    names = [line.split()[0] for line in done.stdout.splitlines() if line[:1].strip()]
    assert names == [NAME, "base"]
    assert len([line for line in done.stdout.splitlines() if line.startswith("  ")]) >= 2
    # It was lent to the server for as long as it was asked.
    assert temporary(connected) == []
