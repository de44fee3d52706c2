"""An evaluation set is found by its name, in whatever format it is."""

import pytest

from contract.errors import UserError
from launcher.evaluate import evaluation


@pytest.fixture
def sets(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "SETS", tmp_path)
    return tmp_path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".PARQUET"])
def test_a_set_is_found_by_its_name_whatever_its_suffix(sets, suffix):
    (sets / f"mine{suffix}").write_text("")
    (sets / "mine too.jsonl").write_text("")
    (sets / "mine").mkdir()
    assert evaluation._named_set("mine") == sets / f"mine{suffix}"
    assert evaluation._named_set("other") is None


def test_a_name_of_two_sets_is_refused_with_both(sets):
    for suffix in (".jsonl", ".csv"):
        (sets / f"mine{suffix}").write_text("")
    with pytest.raises(UserError, match=r"mine may be mine.csv or mine.jsonl.*Specify the file"):
        evaluation._named_set("mine")
