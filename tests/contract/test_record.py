"""What another version wrote is told as such, and is no bug."""

import math

import pytest

from contract.errors import UserError
from contract.record import Record
from contract.serving import Serving


class Loss(Record):
    remedy = "Measure it again."

    nats: float


def test_a_record_is_read_back(tmp_path):
    written = Serving(gguf="a", template="é", system=None, parameters={"stop": ["x"]})
    written.write(tmp_path / "s.json")
    assert Serving.read(tmp_path / "s.json") == written
    assert (tmp_path / "s.json").read_text(encoding="utf-8").startswith('{\n "gguf": "a",\n')
    assert (tmp_path / "s.json").read_bytes().endswith(b"}\n")


def test_a_record_of_other_keys_is_another_versions(tmp_path):
    (tmp_path / "s.json").write_text('{"gguf": "a"}')
    with pytest.raises(
        UserError, match=r"another version of Affineur \(template: field required\)\. Run \./invoke"
    ):
        Serving.read(tmp_path / "s.json")


@pytest.mark.parametrize("text", ["", "{", '{"nats": "much"}', '{"nats": 1, "bits": 2}'])
def test_a_record_names_its_own_remedy(tmp_path, text):
    (tmp_path / "loss.json").write_text(text)
    with pytest.raises(UserError, match=r"another version of Affineur \(.+\)\. Measure it again"):
        Loss.read(tmp_path / "loss.json")


@pytest.mark.parametrize("nats", [math.nan, math.inf])
def test_a_number_that_is_none_is_read_back(tmp_path, nats):
    Loss(nats=nats).write(tmp_path / "loss.json")
    assert str(Loss.read(tmp_path / "loss.json").nats) == str(nats)


def test_a_record_cannot_be_changed_or_given_other_keys():
    with pytest.raises(ValueError, match="frozen"):
        Loss(nats=1.0).nats = 2.0
    with pytest.raises(ValueError, match="Extra inputs"):
        Loss(nats=1.0, bits=2.0)
