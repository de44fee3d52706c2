"""Every format is read into the same rows, and every unreadable line is named."""

import json
from datetime import date, datetime
from decimal import Decimal

import pytest

from contract.errors import UserError
from contract.exact_json import MAX_DEPTH, dumps
from contract.row_forms import conversation_of
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
    rows = list(read_rows(path, problems))
    assert problems == []
    assert [row.values for row in rows] == ROWS
    assert all(row.where.startswith(name) for row in rows)


def test_a_line_separator_inside_a_string_does_not_split_a_row(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"output": "a\u2028b\x85c"}, ensure_ascii=False))
    assert next(read_rows(path, [])).values == {"output": "a\u2028b\x85c"}


def test_every_bad_line_is_named_and_the_good_ones_are_read(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"output": "il dit "oui""}\n{"a": 1}\n[1]\n{"a": 1\n')
    problems = []
    rows = list(read_rows(path, problems))
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
        ("d.jsonl", '{"a": 1}'.encode("utf-16"), "d.jsonl:1: byte 0xff is not UTF-8"),
        ("d.csv", "a,b\n1,2".encode("utf-16"), "d.csv:1: byte 0xff is not UTF-8"),
        ("d.csv", b"output,id,output\na,1,b\n", "d.csv:1: has two columns named 'output'"),
        ("d.json", b'[\n{"a": 1},\n' + b"[" * 10**5 + b"]" * 10**5 + b"]", "d.json:3: is nested"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(read_rows(path, []))
    assert said in str(caught.value)


def test_an_array_in_a_jsonl_file_is_recognised(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(ROWS, indent=1))
    problems = []
    list(read_rows(path, problems))
    assert "into a .json file" in problems[0].remedy


def test_a_csv_line_with_too_many_or_too_few_fields_is_named(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("instruction,output\na,b,c\nd\ne,f\n")
    problems = []
    rows = list(read_rows(path, problems))
    assert [row.values["instruction"] for row in rows] == ["e"]
    assert [problem.what for problem in problems] == [
        "has 3 fields where the header has 2",
        "has 1 fields where the header has 2",
    ]


def read(tmp_path, name, content):
    """The rows, and each problem as text."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    problems = []
    rows = list(read_rows(path, problems))
    return rows, [str(problem) for problem in problems]


FINE = '{"instruction": "Q", "output": "A"}'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"output": "Client content \\ud83d"}', "output: contains half a character (\\ud83d"),
        ('{"id": {"a": ["\\udc00"]}}', "id: contains half a character"),
        ('{"\\ud83d": 1}', "has a column whose name contains half a character"),
        ('{"output": "a", "id": 1, "output": "b"}', "has the key 'output' twice in one object"),
        ('{"meta": [{"a": 1, "a": 1}]}', "meta: has the key 'a' twice in one object"),
        ('{"score": Infinity}', "score: contains Infinity, which is not a JSON number"),
        ('{"score": [-Infinity]}', "score: contains -Infinity"),
        ('{"a": ' + "[" * 10**5 + "]" * 10**5 + "}", "is nested more than 100 levels deep"),
        ('{"a": ' + "[" * MAX_DEPTH + '"x"' + "]" * (MAX_DEPTH + 1), "is not valid JSON"),
        ('{"a": ' + "[" * 101 + "]" * 101 + "}", "a: is nested more than 100 levels deep"),
        ('{"output": "a\\u0000b"}', "output: contains the character NUL"),
        ("\ufeff" + FINE, "is not valid JSON: Unexpected UTF-8 BOM"),
        ("\0\0\0\0", "is not valid JSON"),
        ("12" + "3" * 5000, "is a number, not an object"),
        ("NaN", "is a NoneType, not an object"),
    ],
    ids=lambda text: text[:24],
)
def test_a_line_that_other_programs_would_read_otherwise_is_named(tmp_path, line, said):
    rows, problems = read(tmp_path, "d.jsonl", f"{FINE}\n{line}\n{FINE}")
    assert [row.where for row in rows] == ["d.jsonl:1", "d.jsonl:3"]
    assert [problem.startswith(f"d.jsonl:2: {said}") for problem in problems] == [True], problems
    if "BOM" in said or line.startswith("\0"):
        return
    # The same in an array.
    if len(line) < 5000 and "not valid" not in said:
        rows, problems = read(tmp_path, "d.json", f"[{FINE}, {line}]")
        assert [row.where for row in rows] == ["d.json row 1"]
        assert [problem.startswith(f"d.json row 2: {said}") for problem in problems] == [True]


def test_two_files_with_a_bom_put_together_are_refused_by_line(tmp_path):
    once = (FINE + "\n").encode("utf-8-sig")
    rows, problems = read(tmp_path, "d.jsonl", once * 2)
    assert len(rows) == len(problems) == 1
    assert problems[0].startswith("d.jsonl:2: is not valid JSON")


@pytest.mark.parametrize("header", ["a,b", '"a","b"'])
def test_the_second_header_of_two_joined_tables_is_no_row(tmp_path, header):
    content = f"{header}\n1,2\n"
    joined = [content.encode("utf-8-sig") * 2, content.encode() * 2]
    for rows, problems in (read(tmp_path, "d.csv", one) for one in joined):
        assert [row.values for row in rows] == [{"a": "1", "b": "2"}] * 2
        assert problems == [
            "d.csv:3: repeats the header. Two files were joined: remove the second header."
        ]


def test_numbers_stand_as_in_the_file(tmp_path):
    numbers = ["2.50", "1e-05", "-0", "1.0", "true", "1" + "0" * 4999]
    lines = "\n".join(f'{{"v": {n}, "d": {{"v": [{n}]}}}}' for n in numbers)
    rows, problems = read(tmp_path, "d.jsonl", lines)
    assert problems == []
    assert [dumps(row.values) for row in rows] == lines.split("\n")


def test_nan_is_missing_in_every_format(tmp_path):
    import pyarrow
    from pyarrow import parquet

    inputs = ["site principal", float("nan"), None]
    lines = [
        json.dumps({"instruction": "Code ?", "input": value, "output": "S"}) for value in inputs
    ]
    assert "NaN" in lines[1]
    read_as_json, problems = read(tmp_path, "d.jsonl", "\n".join(lines))
    assert problems == []
    # A column of numbers, as pandas makes one of whatever has a gap.
    numbers = pyarrow.table(
        {"instruction": ["Code ?"] * 2, "input": [1.5, float("nan")], "output": ["S"] * 2}
    )
    parquet.write_table(numbers, tmp_path / "d.parquet")
    problems = []
    read_as_parquet = list(read_rows(tmp_path / "d.parquet", problems))
    assert problems == []

    def questions(rows):
        return [conversation_of(row.values, {}, None).messages[0]["content"] for row in rows]

    assert questions(read_as_json) == ["Code ?\n\nsite principal", "Code ?", "Code ?"]
    assert questions(read_as_parquet) == ["Code ?\n\n1.5", "Code ?"]


def write_table(path, columns, types=None):
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema(types) if types else None
    parquet.write_table(pyarrow.table(columns, schema=schema), path)


def test_a_tables_values_are_read_as_they_print(tmp_path):
    import pyarrow

    write_table(
        tmp_path / "d.parquet",
        {
            "yes": [True],
            "short": [0.1],
            "half": [1.5],
            "money": [Decimal("2.50")],
            "day": [date(2026, 2, 3)],
            "at": [datetime(2026, 2, 3, 4, 5)],
        },
        [
            ("yes", pyarrow.bool_()),
            ("short", pyarrow.float32()),
            ("half", pyarrow.float16()),
            ("money", pyarrow.decimal128(9, 2)),
            ("day", pyarrow.date32()),
            ("at", pyarrow.timestamp("us")),
        ],
    )
    (row,) = read_rows(tmp_path / "d.parquet", [])
    assert dumps(row.values) == (
        '{"yes": true, "short": 0.1, "half": 1.5, "money": 2.50, '
        '"day": "2026-02-03", "at": "2026-02-03T04:05:00"}'
    )


def test_a_tables_structs_have_no_keys_of_other_rows(tmp_path):
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}
    other = {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "g", "arguments": {"b": 2}}}],
    }
    asked = {"role": "user", "content": "Q"}
    write_table(tmp_path / "d.parquet", {"messages": [[asked, call], [asked, other]]})
    rows = list(read_rows(tmp_path / "d.parquet", []))
    arguments = [
        conversation_of(row.values, {}, None).messages[1]["tool_calls"][0]["function"]["arguments"]
        for row in rows
    ]
    assert arguments == [{"a": 1}, {"b": 2}]


def test_a_table_with_one_column_twice_is_refused(tmp_path):
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, names=["output", "output"])
    parquet.write_table(table, tmp_path / "d.parquet")
    with pytest.raises(UserError, match="has two columns named 'output'"):
        list(read_rows(tmp_path / "d.parquet", []))


def test_a_tables_value_that_cannot_be_read_is_named(tmp_path):
    import pyarrow

    late = pyarrow.array([0, 10**12], pyarrow.int64()).cast(pyarrow.timestamp("s"))
    broken = pyarrow.array([b"fine", b"\xe9t\xe9"], pyarrow.binary()).view(pyarrow.string())
    for name, column in (("late", late), ("broken", broken)):
        write_table(tmp_path / f"{name}.parquet", {"output": column})
        problems = []
        rows = list(read_rows(tmp_path / f"{name}.parquet", problems))
        assert [row.where for row in rows] == [f"{name}.parquet row 1"], problems
        assert [problem.where for problem in problems] == [f"{name}.parquet row 2"]


def test_a_file_named_like_markup_is_read(tmp_path):
    folder = tmp_path / "[" / "v2]"
    folder.mkdir(parents=True)
    rows, problems = read(folder, "tickets [bold].json", f"[{FINE}]")
    assert problems == []
    assert rows[0].where == "tickets [bold].json row 1"
