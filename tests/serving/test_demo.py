"""A real instruct model through the whole chain: a few rows of `--profile demo`, to a proved model.

Its base is a GGUF file in a locked package, read once and shared by all clones.
"""

import json

import pytest

from contract.conversation import Message
from launcher.display import Display
from launcher.pipeline.finished_run import Run
from launcher.serving.model_import import import_run
from launcher.serving.verification import prove
from tests.conftest import invoke
from tests.serving.conftest import the_run
from trainer.prepared import read_prepared

QUIET = Display(quiet=True)
NAME = "affineur-demo"
SETTINGS = {"max_rows": 64, "held_out_answers": 2, "output_model_name": NAME}


@pytest.fixture(scope="session")
def demo_run(with_tools) -> Run:
    """Made once, for all servers."""
    words = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    words += ["--engine", "local", "--ollama", "none"]
    done = invoke(with_tools, "train", "--profile", "demo", *words)
    assert done.returncode == 0, done.stderr
    assert "Q4_1" in done.stderr
    return Run(the_run(with_tools, NAME))


def test_the_manifest_says_which_file_the_base_was_read_from(demo_run):
    base = demo_run.manifest.base
    assert base.gguf is not None
    assert base.gguf.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert (base.gguf.architecture, base.gguf.weight_type) == ("llama", "Q4_1")


def test_it_is_served_as_it_was_trained_and_has_learned(ollama, connected, demo_run):
    # It raises where a line of the proof fails.
    import_run(
        demo_run,
        NAME,
        connected,
        display=QUIET,
        examine=lambda candidate: prove(demo_run, connected, candidate, display=QUIET),
    )
    try:
        for row in read_prepared(demo_run.folder / "prepared" / "held_out.jsonl")[:6]:
            asked: list[Message] = row["messages"][:-1]
            said = connected.chat(model=NAME, messages=asked, options={"temperature": 0})
            assert json.loads(said["message"]["content"]).keys() == {"category", "urgent", "order"}
    finally:
        connected.delete(NAME)
