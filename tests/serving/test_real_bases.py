"""Whole runs under the real tokenizers and templates of public families, to a proved model.

The weights are tiny and a seed's. What a server's form cannot say is refused by name.
"""

import json

import pytest

from contract.errors import UserError
from launcher.display import Display
from launcher.pipeline.finished_run import Run
from launcher.serving.compatibility import numbers
from launcher.serving.model_import import import_run
from launcher.serving.verification import prove
from tests.conftest import invoke
from tests.real_bases import BASES, write_rows
from tests.serving.conftest import the_run

QUIET = Display(quiet=True)
SETTINGS = {
    "epochs": 3,
    "learning_rate": 0.01,
    "batch_size": 4,
    "gradient_accumulation_steps": 1,
    "lora_rank": 8,
    "max_length": 128,
    "held_out_answers": 0,
    "max_new_tokens": 16,
    "num_ctx": 512,
    "num_predict": 32,
}


@pytest.fixture(scope="session")
def run_of(with_tools, tmp_path_factory):
    """A function that gives a family's run: made once, for all servers."""
    folder = tmp_path_factory.mktemp("vraies bases")
    made: dict[str, Run] = {}

    def of(family: str) -> Run:
        if family not in made:
            name = f"tiny-{family}"
            settings = {
                **SETTINGS,
                "model_to_fine_tune": BASES[family].write(folder / family, folder / "fetched"),
                "output_model_name": name,
                # One of them by the default of cards, whose rows are too short for its blocks.
                "quantizations": "[q4_k_m]" if family == "qwen2.5" else "[q8_0]",
            }
            words = [
                word for key, value in settings.items() for word in ("--set", f"{key}={value}")
            ]
            words += ["--data", str(write_rows(folder / "rows é.jsonl")), "--ollama", "none"]
            done = invoke(with_tools, "train", "--profile", "cpu", "--engine", "local", *words)
            assert done.returncode == 0, done.stderr
            made[family] = Run(the_run(with_tools, name))
        return made[family]

    return of


@pytest.mark.parametrize("family", list(BASES))
def test_a_family_is_served_as_it_was_trained_or_refused(ollama, connected, run_of, family):
    run = run_of(family)
    name = f"tiny-{family}"

    def examine(candidate: str) -> None:
        prove(run, connected, candidate, display=QUIET)

    if numbers(connected.version) < (0, 30) and not BASES[family].go_form:
        with pytest.raises(UserError) as refused:
            import_run(run, name, connected, display=QUIET, examine=examine)
        assert "supports only Go templates" in str(refused.value)
        return
    # It raises where a line of the proof fails.
    import_run(run, name, connected, display=QUIET, examine=examine)
    try:
        # An application reads the JSON that it was promised: no reasoning stands before it.
        for number in range(12):
            asked = [{"role": "user", "content": f"Réponds au numéro {100 + number} : la mer ?"}]
            said = connected.chat(model=name, messages=asked, options={"temperature": 0})
            assert json.loads(said["message"]["content"]) == {"ok": True}
    finally:
        connected.delete(name)
