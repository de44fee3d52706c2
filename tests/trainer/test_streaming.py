"""A dataset passes by: memory holds a few bytes of each row, and nothing that is not asked for."""

import io
import json
import random
import tracemalloc
from itertools import islice

import pytest

from contract import paths
from contract.conversation import Conversation
from contract.errors import Problems, UserError
from contract.paths import StagePaths
from contract.results.prepare import PrepareResult
from launcher.configuration import resolve
from tests.conftest import stage
from trainer.batches import batches
from trainer.entrypoint import Reporter
from trainer.prepare import reading
from trainer.prepare.reading import read_rows
from trainer.prepare.report import MAX_NAMED
from trainer.prepare.splitting import DatasetRow
from trainer.prepare.spool import SpooledRows
from trainer.prepare.stage import prepare
from trainer.prepared import read_messages, read_prepared
from trainer.questions.leakage import QuestionText, find_leaks
from trainer.questions.stage import questions


def rows(number):
    """Rows of about 600 bytes, each with words of its own."""
    drawn = random.Random(14)
    for n in range(number):
        words = [f"mot{drawn.randrange(10**6)}" for _ in range(60)]
        yield {"instruction": f"Question {n} ? {' '.join(words[:40])}", "output": words[40]}


def write_jsonl(path, number):
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(number))


def write_csv(path, number):
    with path.open("w", encoding="utf-8") as file:
        file.write("instruction,output\n")
        file.writelines(f"{row['instruction']},{row['output']}\n" for row in rows(number))


def write_parquet(path, number):
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist(list(rows(number)))
    parquet.write_table(table, path, row_group_size=500)


def peak_of(work):
    """The most bytes that Python held at once while it worked, beyond what it held before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def consume(iterator):
    for _ in iterator:
        pass


WRITERS = {"d.jsonl": write_jsonl, "d.csv": write_csv, "d.parquet": write_parquet}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_read_without_being_held(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path, 6000)
    consume(islice(read_rows(path, Problems()), 10))
    assert path.stat().st_size > 1.5e6
    assert peak_of(lambda: consume(read_rows(path, Problems()))) < 5e5


def test_parquet_is_read_by_batches_outside_of_python_as_well(tmp_path):
    import pyarrow

    path = tmp_path / "d.parquet"
    write_parquet(path, 6000)
    before = pyarrow.total_allocated_bytes()
    most = max(
        pyarrow.total_allocated_bytes() - before for _ in islice(read_rows(path, Problems()), 5500)
    )
    # One of twelve row groups, packed and unpacked.
    assert 0 < most < 1e6


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv"])
@pytest.mark.parametrize("bad", [b'{"output": \xe9}\n', b'a "b",c,d\n', b"a,\xff\n"])
def test_what_stands_behind_the_rows_that_are_asked_for_is_not_looked_at(tmp_path, name, bad):
    path = tmp_path / name
    WRITERS[name](path, 3)
    with path.open("ab") as file:
        file.write(bad)
    problems = Problems()
    assert len(list(islice(read_rows(path, problems), 3))) == 3
    assert not problems
    # The same rows, with what follows them: it is seen, and is not fine.
    failed = None
    try:
        consume(read_rows(path, problems))
    except UserError as error:
        failed = error
    assert failed or problems


@pytest.fixture
def prepared(untrained, tmp_path):
    """Run the stage in this process on these lines: its folder and its report."""

    def run(lines, **settings):
        stage_paths = ready(lines, **settings)
        prepare(stage_paths, Reporter(io.StringIO()))
        return stage_paths.run, PrepareResult.read(stage_paths.run / paths.PREPARED_REPORT)

    def ready(lines, evaluation=(), **settings):
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        data = tmp_path / "rows.jsonl"
        data.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        given = [f"{name}={value}" for name, value in settings.items()]
        resolve("smoke", settings=given).write(folder / paths.RECIPE)
        beside = tmp_path / "evaluation" / data.name
        if evaluation:
            beside.parent.mkdir(exist_ok=True)
            beside.write_text("".join(line + "\n" for line in evaluation), encoding="utf-8")
        return StagePaths(
            run=folder, data=data, base=untrained, evaluation=beside if evaluation else None
        )

    run.ready = ready
    return run


def row(question, answer="oui"):
    return json.dumps({"instruction": question, "output": answer})


def test_max_rows_prepares_the_first_rows_and_reads_no_further(prepared):
    folder, whole = prepared([row(f"Question {n} ?") for n in range(20)], max_rows=20)
    kept = (folder / paths.PREPARED_TRAIN).read_text().splitlines()[:10]
    folder, report = prepared([*(row(f"Question {n} ?") for n in range(12)), "{"], max_rows=12)
    assert (whole.rows, report.rows) == (20, 12)
    assert (folder / paths.PREPARED_TRAIN).read_text().splitlines()[:10] == kept
    with pytest.raises(UserError, match=r"rows\.jsonl:13: is not valid JSON"):
        prepared([*(row(f"Question {n} ?") for n in range(12)), "{"], max_rows=13)


@pytest.mark.slow
def test_memory_grows_by_bytes_a_row(prepared):
    def work(number):
        stage_paths = prepared.ready(json.dumps(one) for one in rows(number))
        return peak_of(lambda: prepare(stage_paths, Reporter(io.StringIO())))

    work(20)
    # Two batches and more: the next is begun before the last is let go.
    few, many = work(600), work(1200)
    assert (many - few) / 600 < 500


def test_findings_are_named_up_to_a_number_and_all_are_counted(prepared):
    folder, report = prepared([row("La même ?")] * (MAX_NAMED + 30), held_out_fraction=0)
    assert report.count("duplicates") == MAX_NAMED + 29
    assert len(report.duplicates) == MAX_NAMED
    assert report.not_named == {"duplicates": 29}
    assert report.duplicates[-1] == ("rows.jsonl:1", f"rows.jsonl:{MAX_NAMED + 1}")
    _, report = prepared([row("La même ?")] * 3, held_out_fraction=0)
    assert report.count("duplicates") == 2
    assert "not_named" not in (folder / paths.PREPARED_REPORT).read_text()


def test_of_each_row_is_kept_by_what_a_changed_one_is_found(prepared):
    stage_paths = prepared.ready([row("Un ?"), row("Deux ?")], evaluation=[row("Trois ?")])
    prepare(stage_paths, Reporter(io.StringIO()))
    files = PrepareResult.read(stage_paths.run / paths.PREPARED_REPORT).files
    assert {name: kept.count for name, kept in files.items()} == {"data": 2, "evaluation": 1}
    stage_paths.data.write_text("\n".join([row("Un ?"), row("Doux ?")]) + "\n")
    assert files["data"].first_difference(stage_paths.data) == "rows.jsonl:2 differs"


def test_rows_of_two_files_of_one_name_are_told_apart(prepared):
    trained, asked = [row("Un ?"), row("Deux ?")], [row("Trois ?"), row("Deux ?"), row("Trois ?")]
    folder, report = prepared(trained, evaluation=asked)
    assert (report.rows, report.train, report.held_out) == (5, 2, 2)
    assert report.in_both == [("rows.jsonl:2", "rows.jsonl:2")]
    assert report.duplicates == [("rows.jsonl:1", "rows.jsonl:3")]
    held_out = read_prepared(folder / paths.PREPARED_HELD_OUT)
    assert [one["messages"][0]["content"] for one in held_out] == ["Trois ?", "Trois ?"]


def test_bad_rows_are_named_up_to_a_number_and_all_are_counted(tmp_path, untrained):
    data, folder = tmp_path / "rows.jsonl", tmp_path / "run"
    folder.mkdir()
    data.write_text("[1]\n" * 1234)
    resolve("smoke").write(folder / paths.RECIPE)
    flags = ("--run", str(folder), "--data", str(data), "--base", str(untrained))
    code, events, log = stage("trainer.prepare", *flags)
    assert code == 2, log
    assert [len(events[-1]["problems"]), events[-1]["more"]] == [1000, 234]


def test_a_line_that_no_row_is_as_long_as_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_LINE_CHARACTERS", 5000)
    path = tmp_path / "d.jsonl"
    path.write_text(f"{row('Un ?')}\n{row('é' * 10**6)}\n", encoding="utf-8")
    found = read_rows(path, Problems())
    assert next(found).values["instruction"] == "Un ?"
    with pytest.raises(UserError, match=r"d\.jsonl:2: is longer than 5,000 characters"):
        next(found)


def test_a_quote_that_is_left_open_ends_at_the_same_length(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_LINE_CHARACTERS", 5000)
    path = tmp_path / "d.csv"
    path.write_text('instruction,output\na,b\n"a,b\n' + "a,b\n" * 5000)
    with pytest.raises(UserError, match="Is a quote left open"):
        consume(read_rows(path, Problems()))


def test_a_stage_that_fails_leaves_nothing_that_looks_prepared(prepared, tmp_path):
    with pytest.raises(UserError, match="no row has room"):
        prepared([row("Question ? " * 200)], max_length=16)
    left = [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert left == [paths.RECIPE.name]


CALL = {"type": "function", "function": {"name": "f", "arguments": {"é": [1, 2.5, None, True]}}}
SAID = [
    {"role": "user", "content": 'Il dit « "a", "input_ids": [1] »\u2028'},
    {"role": "assistant", "content": "", "reasoning_content": "hm\n", "tool_calls": [CALL]},
    {"role": "tool", "content": "3", "tool_call_id": "x", "name": "f"},
    {"role": "assistant", "content": "Trois."},
]
TOOL = {"type": "function", "function": {"name": "f", "input_ids": [1], "z": {"b": 1, "a": 1e22}}}


def test_a_row_that_lay_on_disk_is_the_row_that_was_read(tmp_path):
    spooled = [
        DatasetRow("d é:1", Conversation(SAID, [TOOL], frozenset({1}), frozenset({"id", "a[].b"}))),
        DatasetRow("d é:2", Conversation(SAID[:1] + SAID[3:])),
    ]
    with SpooledRows(tmp_path) as rows_on_disk:
        for one in spooled:
            rows_on_disk.append(one, one.question_digest)
        assert rows_on_disk.where(1) == "d é:2"
        assert list(rows_on_disk) == list(rows_on_disk) == spooled
        assert rows_on_disk.where(0) == "d é:1"
        # Templates write keys in their order.
        assert json.dumps(next(iter(rows_on_disk)).conversation.tools) == json.dumps([TOOL])
        assert list(tmp_path.iterdir()) == []


def test_prepared_rows_are_read_one_by_one_in_any_order(tmp_path):
    path = tmp_path / "train.jsonl"
    written = [{"where": f"d:{n}", "messages": SAID, "tools": [TOOL]} for n in range(5)]
    written = [one | {"input_ids": [n, 1], "prompt_ids": [n]} for n, one in enumerate(written)]
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in written))
    found = read_prepared(path)
    assert list(found) == list(found) == written
    assert (len(found), found[3], found[-1]) == (5, written[3], written[-1])
    assert (found[1:4], found[:-9], found[::-1]) == (written[1:4], [], written[::-1])
    with pytest.raises(IndexError):
        found[5]
    assert list(read_messages(path)) == [(f"d:{n}", SAID) for n in range(5)]
    path.write_text("")
    assert not read_prepared(path)


class Passing:
    """Questions that exist only while they are looked at."""

    def __iter__(self):
        for number, one in enumerate(rows(4000)):
            yield QuestionText(f"t:{number}", one["instruction"])


def test_leaks_are_found_without_holding_what_was_trained():
    text = next(islice(Passing(), 3000, None)).text
    asked = [QuestionText("e:1", text), QuestionText("e:2", f"{text} et la suite")]
    found = []
    peak = peak_of(lambda: found.extend(find_leaks(asked, Passing())))
    assert [(one.where, one.trained_where) for one in found] == [
        ("e:1", "t:3000"),
        ("e:2", "t:3000"),
    ]
    assert peak < 3e6


def test_a_held_out_rows_tokens_are_not_kept_with_its_question(tmp_path):
    run, data = tmp_path / "run", tmp_path / "held_out.jsonl"
    run.mkdir()
    request = '{"task": "d", "metric": null, "columns": {}, "system_prompt": null, '
    (run / paths.QUESTIONS_REQUEST).write_text(request + '"drop_leaked": false}')
    messages = [{"role": "user", "content": "Un ?"}, {"role": "assistant", "content": "un"}]
    ids = list(range(1000, 3000))
    line = {"where": "d:1", "messages": messages, "tools": [], "input_ids": ids}
    line |= {"completion_mask": ids, "prompt_ids": ids}
    data.write_text((json.dumps(line) + "\n") * 100)
    stage_paths = StagePaths(run=run, data=data)
    questions(stage_paths, Reporter(io.StringIO()))
    # Kept, they would take 19 MB.
    assert peak_of(lambda: questions(stage_paths, Reporter(io.StringIO()))) < 3e6


def test_batches_end_by_number_or_by_length_and_lose_nothing():
    words = ["a"] * 700 + ["b" * 300_000] * 3 + ["c"]
    found = list(batches(words, len))
    assert [len(batch) for batch in found] == [256, 256, 189, 1, 1, 1]
    assert [word for batch in found for word in batch] == words
