"""The row of a data file that was changed is named by what was kept of the file, and no file."""

import json

import pytest

from contract.data_rows import DataRows

LINES = [json.dumps({"instruction": f"Compte {n}.", "output": "é" * n}) for n in range(1, 40)]


def flipped(content: bytes, at: int, bit: int = 0) -> bytes:
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


@pytest.fixture
def jsonl(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return file


def test_any_flipped_bit_names_the_line_that_it_is_in(jsonl):
    rows, content = DataRows.of(jsonl), jsonl.read_bytes()
    assert (rows.name, rows.count) == ("rows.jsonl", len(LINES))
    begin = 0
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        # Its first and its last byte, which is the end of the line, and one within.
        for at in (0, len(line) // 2, len(line) - 1):
            for bit in (0, 7):
                jsonl.write_bytes(flipped(content, begin + at, bit))
                assert rows.first_difference(jsonl) == f"rows.jsonl:{number} differs"
        begin += len(line)


def test_the_row_is_named_after_the_file_where_it_lies_now(jsonl, tmp_path):
    rows = DataRows.of(jsonl)
    moved = tmp_path / "moved.jsonl.bak"
    moved.write_bytes(jsonl.read_bytes().replace(b"Compte 7.", b"Compte 8."))
    assert rows.first_difference(moved) == "moved.jsonl.bak:7 differs"


def test_a_row_too_many_or_too_few_is_named(jsonl):
    rows, content = DataRows.of(jsonl), jsonl.read_bytes()
    jsonl.write_bytes(content + b"{}\n")
    assert rows.first_difference(jsonl) == "rows.jsonl:40 was not in it"
    jsonl.write_bytes(b"".join(content.splitlines(keepends=True)[:-2]))
    assert rows.first_difference(jsonl) == "it ends after 37 of 39 rows"
    jsonl.write_bytes(b"")
    assert rows.first_difference(jsonl) == "it ends after 0 of 39 rows"


def test_an_entry_of_an_array_is_a_row_however_it_is_laid_out(tmp_path):
    file = tmp_path / "rows.json"
    entries = [json.loads(line) for line in LINES]
    for indent in (None, 2):
        file.write_text(json.dumps(entries, indent=indent))
        rows, text = DataRows.of(file), file.read_text()
        assert rows.count == len(LINES)
        file.write_text(text.replace("Compte 30.", "Compte 31."))
        assert rows.first_difference(file) == "rows.json row 30 differs"
        # One that is no JSON any more: a quote became another sign.
        file.write_text(text.replace('Compte 5."', "Compte 5.#"))
        assert rows.first_difference(file) == "rows.json row 5 differs"
        file.write_text(text + " ")
        assert "what stands between them is not" in rows.first_difference(file)
    for damaged in ("", "[", "{", "[1,", "]", "[[[[", "[1 2]", "x", '{"a": [1]}', "[,,]"):
        file.write_text(damaged)
        assert "row" in rows.first_difference(file)
    file.write_text("[" * 100_000)
    assert rows.first_difference(file) == "rows.json row 1 differs"


def test_a_binary_file_has_the_place_in_bytes(tmp_path):
    file = tmp_path / "rows.parquet"
    content = bytes(range(256)) * 1024
    file.write_bytes(content)
    rows = DataRows.of(file)
    file.write_bytes(flipped(content, 70_000))
    said = "rows.parquet, in the bytes 65,536 to 131,072, differs"
    assert rows.first_difference(file) == said


def test_four_letters_a_row_are_kept_and_no_text(jsonl):
    kept = DataRows.of(jsonl).model_dump_json()
    assert len(DataRows.of(jsonl).digests) == 4 * len(LINES)
    assert "Compte" not in kept
