"""Every format is read into the same rows, and every unreadable line is named."""

import json

import pytest

from contract.errors import UserError
from trainer.prepare.reading import read_rows

ROWS = [
    {"instruction": "Où ?", "output": "Là, « ici »."},
    {"instruction": "Deux\nlignes", "output": 'guillemets "x"; et, virgules'},
]


def write_csv(path, delimiter=",", encoding="utf-8"):
    def cell(text):
        return '"' + text.replace('"', '""') + '"'

    lines = [delimiter.join(ROWS[0])]
    lines += [delimiter.join(cell(value) for value in row.values()) for row in ROWS]
    path.write_bytes("\r\n".join(lines).encode(encoding))


def write_parquet(path):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


WRITERS = {
    "d.jsonl": lambda p: p.write_text("\n".join(json.dumps(row) for row in ROWS)),
    "accents é.JSONL": lambda p: p.write_text("\n\n".join(json.dumps(row) for row in ROWS) + "\n"),
    "bom.jsonl": lambda p: p.write_bytes(
        "\n".join(json.dumps(row) for row in ROWS).encode("utf-8-sig")
    ),
    "crlf.jsonl": lambda p: p.write_bytes(
        "\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode()
    ),
    "d.json": lambda p: p.write_text(json.dumps(ROWS, indent=2)),
    "d.csv": write_csv,
    "semicolons.csv": lambda p: write_csv(p, ";"),
    "excel.csv": lambda p: write_csv(p, ";", "utf-8-sig"),
    "d.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_each_format_gives_the_same_rows(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    problems = []
    rows = read_rows(path, problems)
    assert problems == []
    assert [row.values for row in rows] == ROWS
    assert all(row.where.startswith(name) for row in rows)


def test_a_line_separator_inside_a_string_does_not_split_a_row(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"output": "a\u2028b\x85c"}, ensure_ascii=False))
    assert read_rows(path, [])[0].values == {"output": "a\u2028b\x85c"}


def test_every_bad_line_is_named_and_the_good_ones_are_read(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"output": "il dit "oui""}\n{"a": 1}\n[1]\n{"a": 1\n')
    problems = []
    rows = read_rows(path, problems)
    assert [row.where for row in rows] == ["d.jsonl:2"]
    assert [problem.where for problem in problems] == ["d.jsonl:1", "d.jsonl:3", "d.jsonl:4"]
    assert 'Escape quotes inside a string as \\"' in problems[0].remedy
    assert "near" in problems[0].what


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.jsonl", b"", "contains no rows"),
        ("d.json", b"", "contains no rows"),
        ("d.json", b"[]", "contains no rows"),
        ("d.csv", b"instruction,output\n", "contains no rows"),
        ("d.txt", b"x", ".txt is not a supported dataset format"),
        ("d", b"x", "no suffix is not a supported dataset format"),
        ("d.json", b'{"a": 1}', "is not an array of rows"),
        ("d.json", b'{"a": 1}\n{"a": 2}', "Put one object per line into a .jsonl file"),
        ("d.jsonl", b'{"a": "ok"}\n{"a": "\xe9t\xe9"}', "d.jsonl:2: byte 0xe9 is not UTF-8"),
        ("d.parquet", b"PAR2", "is not a readable parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_rows(path, [])
    assert said in str(caught.value)


def test_an_array_in_a_jsonl_file_is_recognised(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(ROWS, indent=1))
    problems = []
    read_rows(path, problems)
    assert "into a .json file" in problems[0].remedy


def test_a_csv_line_with_too_many_or_too_few_fields_is_named(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("instruction,output\na,b,c\nd\ne,f\n")
    problems = []
    rows = read_rows(path, problems)
    assert [row.values["instruction"] for row in rows] == ["e"]
    assert [problem.what for problem in problems] == [
        "has 3 fields where the header has 2",
        "has 1 fields where the header has 2",
    ]
