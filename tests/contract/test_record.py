"""What another version wrote is told as such, and is no bug."""

import pytest

from contract.errors import UserError
from contract.record import read_record
from contract.serving import Serving


def test_a_record_is_read_back(tmp_path):
    written = Serving(gguf="a", template=None, system=None, parameters={"stop": ["x"]})
    (tmp_path / "s.json").write_text(written.model_dump_json())
    assert read_record(Serving, tmp_path / "s.json") == Serving.read(tmp_path / "s.json") == written


def test_a_record_of_other_keys_is_another_versions(tmp_path):
    (tmp_path / "s.json").write_text('{"gguf": "a"}')
    with pytest.raises(UserError, match=r"another version of Affineur \(template: field required"):
        read_record(Serving, tmp_path / "s.json")
