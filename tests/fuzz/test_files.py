"""Whatever stands in roles, `.env` files, logs, records and model files: read, or a sentence."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import UserError
from contract.gguf_header import GgufHeader
from contract.manifest import Manifest, StageRecord
from contract.recipe import Recipe
from launcher.configuration import resolve
from launcher.pipeline.file_digests import FileDigests
from launcher.project import MODELS_FILE
from launcher.promote.env_file import EnvVariable
from launcher.promote.log import PromotionLog
from launcher.promote.models_file import RoleEntry
from tests.fuzz.documents import FUZZED, as_bytes, changed, damaged, no_hang, texts, values
from tests.fuzz.test_settings import sentence

pytestmark = pytest.mark.slow

MODELS = MODELS_FILE.read_text()
ENV = """# the application's
export PATH_TO_MODEL=/models/a  # a comment
RAISE_LORA_PATH='data/models/x/adapter'
MANY="several
lines"
EMPTY=
"""


@FUZZED
@given(content=damaged(MODELS), new=texts)
def test_roles(tmp_path_factory, content, new):
    """A role is read and changed in place, or refused; and what is written says the new name."""
    folder = tmp_path_factory.mktemp("roles")
    file = folder / "models.yaml"
    file.write_bytes(content)
    with no_hang():
        try:
            entry = RoleEntry.read("sfd_analyzer", file)
            entry.write("affineur-smoke")
            assert entry.read_again().model_name == "affineur-smoke"
            entry.read_again().write(new)
            assert entry.read_again().model_name == new.strip()
        except UserError as error:
            sentence(error)
    assert [path.name for path in folder.iterdir()] == ["models.yaml"]


@FUZZED
@given(content=damaged(ENV), value=texts)
def test_env_files(tmp_path_factory, content, value):
    """The variable is set, or nothing is changed; and it can be taken back to the byte."""
    folder = tmp_path_factory.mktemp("env")
    file = folder / ".env"
    file.write_bytes(content)
    with no_hang():
        try:
            before = EnvVariable.read(file, "RAISE_LORA_PATH")
            before.write(value)
        except UserError as error:
            sentence(error)
            assert file.read_bytes() == content
        else:
            after = EnvVariable.read(file, "RAISE_LORA_PATH")
            assert after.value == value
            after.restore(before)
            assert EnvVariable.read(file, "RAISE_LORA_PATH").value == before.value
    assert [path.name for path in folder.iterdir()] == [".env"]


@FUZZED
@given(content=st.one_of(damaged('{"role": "a"}\n'), values.map(as_bytes)))
def test_the_log_of_promotions(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "promotions.jsonl"
    file.write_bytes(content)
    with no_hang():
        try:
            PromotionLog(file).standing("sfd_analyzer")
        except UserError as error:
            sentence(error)


RECORD = json.loads(
    StageRecord(
        **{"stage": "train", "key": "k", "command": [], "engine": "local", "started": "now"},
        **{"seconds": 1.0, "inputs": {}, "outputs": {}, "result": {}},
    ).model_dump_json()
)


@FUZZED
@given(
    content=st.one_of(
        damaged(json.dumps(RECORD)),
        changed(RECORD).map(as_bytes),
    ),
    kind=st.sampled_from([StageRecord, Manifest, Recipe]),
)
def test_records(tmp_path_factory, content, kind):
    file = tmp_path_factory.getbasetemp() / "record.json"
    file.write_bytes(content)
    with no_hang():
        try:
            kind.read(file)
        except UserError as error:
            sentence(error)


@FUZZED
@given(
    content=st.one_of(
        damaged('{"/a": [1, 2, "d"]}'),
        values.map(as_bytes),
    )
)
def test_remembered_digests(tmp_path_factory, content):
    """They are a convenience: damaged, they are made anew."""
    folder = tmp_path_factory.getbasetemp()
    (folder / "digests.json").write_bytes(content)
    (folder / "a").write_text("a")
    with no_hang():
        digests = FileDigests(folder / "digests.json")
        # sha256 of "a"
        assert digests.of(folder / "a").startswith("ca978112ca1bbdcafac231b39a23dc4d")
        digests.save()


def some_gguf():
    def string(text):
        return struct.pack("<Q", len(text)) + text.encode()

    keys = string("general.architecture") + struct.pack("<I", 8) + string("llama")
    keys += string("a.list") + struct.pack("<IIQ", 9, 4, 2) + struct.pack("<II", 1, 2)
    tensor = string("token_embd.weight") + struct.pack("<IQQIQ", 2, 4, 2, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + keys + tensor
    return head + bytes(-len(head) % 32) + bytes(32)


@FUZZED
@given(place=st.integers(0, 400), length=st.integers(0, 16), piece=st.binary(max_size=16))
def test_gguf_headers(tmp_path_factory, place, length, piece):
    file = tmp_path_factory.getbasetemp() / "model.gguf"
    whole = some_gguf()
    place %= len(whole) + 1
    file.write_bytes(whole[:place] + piece + whole[place + length :])
    with no_hang():
        try:
            header = GgufHeader.read(file)
            assert header.parameters > 0
            assert header.bits_per_weight > 0
            assert header.weight_type
        except UserError as error:
            sentence(error)


def test_what_is_sound_is_read(tmp_path):
    """The tests above would pass as well if everything were refused."""
    (tmp_path / "m.gguf").write_bytes(some_gguf())
    assert GgufHeader.read(tmp_path / "m.gguf").parameters == 8
    (tmp_path / "record.json").write_text(json.dumps(RECORD))
    assert StageRecord.read(tmp_path / "record.json").stage == "train"
    resolve("smoke").write(tmp_path / "recipe.json")
    assert Recipe.read(tmp_path / "recipe.json") == resolve("smoke")
    assert RoleEntry.read("sfd_analyzer").model_name
    (tmp_path / ".env").write_text(ENV)
    assert EnvVariable.read(tmp_path / ".env", "RAISE_LORA_PATH").value == "data/models/x/adapter"
