"""What a base's template or embeddings cannot take is named by line, all of it, before training."""

import json

import pytest

from contract import paths
from contract.chat_format import ChatFormat
from contract.results.prepare import PrepareResult
from launcher.configuration import resolve
from tests.conftest import stage

pytestmark = pytest.mark.slow

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    + CHATML
)


@pytest.fixture
def prepare(untrained, tmp_path):
    """Run the stage on these rows and this template: its exit code, its problems, its report."""

    def run(rows, template=CHATML, **settings):
        base, folder = tmp_path / "base", tmp_path / "run"
        base.mkdir()
        folder.mkdir()
        for file in untrained.iterdir():
            (base / file.name).write_bytes(file.read_bytes())
        path = base / "tokenizer_config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "chat_template": template}))
        data = tmp_path / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        given = [f"{name}={value}" for name, value in settings.items()]
        resolve("smoke", settings=given).write(folder / paths.RECIPE)
        flags = ("--run", str(folder), "--data", str(data), "--base", str(base))
        code, events, log = stage("trainer.prepare", *flags)
        assert code in (0, 2), log
        problems = [
            f"{one['where']}: {one['what']}. {one['remedy']}"
            for event in events
            for one in event.get("problems", [])
        ]
        report = None
        if code == 0:
            report = PrepareResult.read(folder / paths.PREPARED_REPORT)
        return code, problems, report, folder

    return run


def rows(number, **more):
    return [{"instruction": f"Question {n} ?", "output": "oui", **more} for n in range(number)]


def test_every_row_that_a_template_refuses_is_named(prepare):
    code, problems, _, _ = prepare([*rows(3, system="Bref."), *rows(2)], NO_SYSTEM)
    assert code == 2
    assert [one.partition(":")[2][:2] for one in problems] == ["1:", "2:", "3:"]
    assert all("is refused by the base's chat template: no system turn" in one for one in problems)


def test_a_system_prompt_of_the_recipe_is_blamed_and_not_the_rows(prepare):
    code, problems, _, _ = prepare(rows(3), NO_SYSTEM, system_prompt="Bref.")
    assert code == 2
    assert len(problems) == 1
    assert problems[0].startswith("system_prompt: cannot be used with this base")


def test_a_token_without_embedding_is_named_with_its_line(prepare, untrained, tmp_path):
    # The tokenizer has one token more than the embeddings have rows.
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(untrained)
    size = len(tokenizer)
    other = tmp_path / "more"
    tokenizer.add_special_tokens({"additional_special_tokens": ["<scenario>"]})
    tokenizer.save_pretrained(other)
    wanted = [*rows(2), {"instruction": "Écris.", "output": "<scenario> un"}]
    base = tmp_path / "base"
    code, problems, _, _ = prepare(wanted)
    assert code == 0, problems
    # As text it is no token; as a token of the tokenizer's it has no row.
    for file in other.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "vocab_size": size}))
    path = base / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": CHATML}))
    run = tmp_path / "run"
    flags = ("--run", str(run), "--data", str(tmp_path / "rows.jsonl"), "--base", str(base))
    code, events, log = stage("trainer.prepare", *flags)
    assert code == 2, log
    (problem,) = [one for event in events for one in event.get("problems", [])]
    assert problem["where"] == "rows.jsonl:3"
    assert "has <scenario>, a token that the tokenizer has" in problem["what"]


def test_a_conversation_laid_out_is_counted(prepare):
    # As reasoning models': the prompt has an empty block, and the past has none.
    block = "<think>\n\n</think>\n\n"
    template = CHATML.replace("assistant\n{% endif %}", f"assistant\n{block}{{% endif %}}")
    said = []
    for question, answer in (("Un ?", "1"), ("Deux ?", "2")):
        said.append({"role": "user", "content": question})
        said.append({"role": "assistant", "content": answer})
    code, problems, report, run = prepare([{"messages": said}, *rows(2)], template)
    assert code == 0, problems
    assert report.laid_out == ["rows.jsonl:1"]
    assert report.rows == 3
    assert report.train + report.held_out == 4
    assert ChatFormat.read(run / paths.CHAT_FORMAT).ends[0] == "<|im_end|>"
