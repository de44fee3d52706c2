"""What a Modelfile says is what Ollama's own parser reads in it, quotes and line feeds included."""

import json
import random
import struct
import unicodedata

import pytest

from contract.serving import Serving
from trainer.modelfile.modelfile_text import can_be_said, is_kept, losses, modelfile_text

PIECES = [
    '"',
    '"',
    '"""',
    '"""\n',
    "\n",
    "\r\n",
    "\r",
    " ",
    "\t",
    "a",
    "é",
    "#",
    "\\",
    "\\n",
    "｜▁",
]
PIECES += ["🎯", "FROM x", "PARAMETER stop", "'", "{", "%s", "$"]
DROPPED = ["\u00a0", "\u202f", "\u200d", "\x1f"]


def smallest_gguf():
    """A file that `ollama create` takes for a model: a header and one tensor of zeros."""

    def text(of):
        return struct.pack("<Q", len(of.encode())) + of.encode()

    keys = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("general.file_type") + struct.pack("<II", 4, 0),
        text("llama.block_count") + struct.pack("<II", 4, 1),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys)) + b"".join(keys)
    head += text("token_embd.weight") + struct.pack("<IQQIQ", 2, 32, 1, 0, 0)
    return head + b"\0" * (-len(head) % 32) + b"\0" * 128


@pytest.fixture
def read_back(ollama, connected, tmp_path):
    """Create a model of a Modelfile by the command line; what the server then says of it."""
    (tmp_path / "m.gguf").write_bytes(smallest_gguf())

    def created(text):
        (tmp_path / "Modelfile").write_text(text, encoding="utf-8", newline="")
        done = ollama.run("create", "said", "-f", "Modelfile", cwd=tmp_path)
        return connected.show("said") if done.returncode == 0 else None

    yield created
    connected.delete("said")


def serving(system, template, stops):
    return Serving(
        gguf="m.gguf",
        template=template,
        system=system,
        parameters={"stop": stops, "num_ctx": 1024, "repeat_penalty": 1, "temperature": 0.5},
    )


def stops_in(shown):
    lines = [line.split(None, 1) for line in shown["parameters"].split("\n")]
    return [json.loads(value) for name, value in lines if name == "stop"]


TEXTS = (
    "Réponds en JSON.",
    'Say "yes".',
    '"quoted"',
    'ends with """',
    'a """ b',
    '"""',
    "two\nlines\r\nand a third\n",
    ' spaces around \n\n"',
    "{}\\n \\u2581 <｜end▁of▁sentence｜>",
    '# no comment\nFROM nothing\nPARAMETER stop "x"',
)


def test_every_text_is_read_as_it_was_meant(read_back):
    said = serving(TEXTS[0], "{{ .Prompt }}", [text for text in TEXTS if can_be_said(text)])
    assert len(said.parameters["stop"]) == len(TEXTS)
    assert stops_in(read_back(modelfile_text("said", said))) == said.parameters["stop"]
    for text in TEXTS:
        shown = read_back(modelfile_text("said", serving(text, "{{ .Prompt }}" + text, ["x"])))
        assert shown.get("system", "") == text
        assert shown["template"] == "{{ .Prompt }}" + text


def test_any_text_is_read_as_it_was_meant_or_refused_with_reason(read_back):
    draw = random.Random(12)
    refused = noted = 0
    for _ in range(60):
        system, end, *stops = (
            "".join(draw.choices(PIECES, k=draw.randrange(1, 9))) for _ in range(5)
        )
        system += draw.choice(DROPPED) + "a" if draw.random() < 0.3 else ""
        template = "{{ .Prompt }}" + end.replace("{", "(")
        # Go writes the others in a form of its own, in which the server then reports them.
        stops = [stop for stop in stops if stop.isprintable()] or ["x"]
        if can_be_said(system) and can_be_said(template):
            said = serving(system, template, stops)
            shown = read_back(modelfile_text("said", said))
            whole = (system, template) == (shown.get("system", ""), shown["template"])
            assert whole == (losses(said) == [])
            noted += not whole
            assert shown.get("system", "") == "".join(filter(is_kept, system))
            assert shown["template"] == "".join(filter(is_kept, template))
            assert stops_in(shown) == stops
        else:
            refused += 1
            wrong = template if can_be_said(system) else system
            shown = read_back(f'FROM ./m.gguf\nSYSTEM """{wrong}"""\n')
            assert shown is None or shown.get("system") != "".join(filter(is_kept, wrong))
    assert min(refused, noted) > 5
    assert refused + noted < 50


def test_ollama_drops_what_go_does_not_print(read_back):
    # The Basic Multilingual Plane, as far as both know it.
    known = [chr(n) for n in range(1, 0x10000) if unicodedata.category(chr(n)) not in ("Cs", "Cn")]
    text = "x".join(known).replace('"', "")
    shown = read_back(f'FROM ./m.gguf\nSYSTEM """{text}"""\n')
    assert shown.get("system", "") == "".join(filter(is_kept, text))
