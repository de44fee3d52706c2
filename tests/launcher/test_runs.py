"""Every run here is listed: how far it came, its figures, and what stands at it."""

import io
import json
import subprocess

import pytest
from rich.cells import cell_len

from contract.errors import UserError
from launcher.cli import runs_report
from launcher.display import terminal
from launcher.evaluate.record import GateDecision
from launcher.pipeline.finished_run import Run
from launcher.promote.log import PromotionLog
from launcher.promote.promoted_runs import PromotedRun, promoted_runs
from launcher.runs.run_summary import summaries
from tests.conftest import invoke
from tests.launcher.conftest import log_entry
from tests.launcher.made_runs import (
    evaluate,
    make_run,
    make_unfinished,
    prepared,
    record,
    trained,
)


def shown(runs, width=80):
    file = io.StringIO()
    runs_report.show(runs, terminal(file=file, width=width))
    return file.getvalue()


def test_a_finished_run_has_its_figures(models):
    folder = make_run(models, "m", "aaaa")
    (folder / "weights").write_bytes(b"w" * 3_000_000)
    evaluate(folder, {"q": ("a", "a")}, gate="inconclusive")
    (run,) = summaries([])
    assert (run.state, run.latest, run.base, run.train_rows) == ("finished", True, "smoke", 3)
    assert (run.held_out_loss.base, run.held_out_loss.tuned) == (5.0, 0.5)
    assert (run.exact_match.base, run.exact_match.tuned) == (0.0, 1.0)
    assert run.gate == "inconclusive"
    assert 3_000_000 <= run.size_bytes < 3_200_000
    said = shown([run])
    line = next(line for line in said.splitlines() if line.startswith("aaaa"))
    cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
    figures = ["3", "5 -> 0.5", "0% -> 100%", "inconclusive"]
    assert cells == ["aaaa*", "2026-01-01", "3.0 MB", *figures]
    assert "base smoke" in said


def test_an_unfinished_run_says_how_far_it_came(models):
    make_unfinished(models, "m", "aaaa", stages=["preflight", "prepare"], checkpoints=[40, 120])
    make_unfinished(models, "m", "bbbb")
    second, first = summaries([])
    assert (first.state, first.stages, first.checkpoint) == (
        "unfinished",
        ["preflight", "prepare"],
        120,
    )
    assert first.train_rows == 3
    assert not first.latest
    said = shown([first, second])
    assert "unfinished: preflight, prepare; to be resumed after step 120" in said
    assert "unfinished: no stage is recorded" in said


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "another version of Affineur (Invalid JSON"),
        (b"\xff\xfe", "another version of Affineur (Invalid JSON"),
        (b'{"contract_version": 1}', "another version of Affineur (affineur_version: field req"),
        (None, "Is a directory"),
    ],
)
def test_what_cannot_be_read_is_a_line_with_the_reason(models, content, reason):
    make_run(models, "m", "aaaa")
    folder = make_run(models, "m", "bbbb", day=2)
    (folder / "manifest.json").unlink()
    if content is None:
        (folder / "manifest.json").mkdir()
    else:
        (folder / "manifest.json").write_bytes(content)
    runs = {run.key: run for run in summaries([])}
    assert runs["bbbb"].state == "unreadable"
    assert reason in runs["bbbb"].reason
    assert runs["aaaa"].latest
    said = " ".join(shown(list(runs.values())).split())
    assert f"cannot be read: {runs['bbbb'].reason}" in said


def test_the_latest_run_is_the_one_that_the_models_name_means(models):
    older = make_run(models, "m", "aaaa", day=1)
    make_run(models, "m", "bbbb", day=2)
    make_run(models, "other", "cccc", day=3)
    assert {run.key for run in summaries([]) if run.latest} == {"bbbb", "cccc"}
    Run(older).name_latest()
    assert {run.key for run in summaries([]) if run.latest} == {"aaaa", "cccc"}
    assert [run.key for run in summaries([], "m")] == ["aaaa", "bbbb"]
    with pytest.raises(UserError, match=r"--model: nobody has no run here\. Known: m, other\."):
        summaries([], "nobody")


def test_what_a_process_works_with_says_so(models):
    folder = make_run(models, "m", "aaaa")
    make_run(models, "m", "bbbb")
    with (folder / "open").open("w") as opened:
        worker = subprocess.Popen(["sleep", "60"], stdout=opened)
    try:
        runs = {run.key: run for run in summaries([])}
    finally:
        worker.kill()
        worker.wait()
    assert runs["aaaa"].process == worker.pid
    assert runs["bbbb"].process is None
    assert f"in use by process {worker.pid}" in shown([runs["aaaa"]])


def test_evaluations_of_models_that_were_not_made_here_are_no_runs(models):
    make_run(models, "m", "aaaa")
    (models / "m" / "served-0123456789ab").mkdir()
    (models / "m" / "latest").write_text("aaaa")
    assert [run.key for run in summaries([])] == ["aaaa"]


def test_the_list_fits_80_columns_and_cuts_nothing_off(models):
    long = "a-model-with-a-name-of-sixty-characters-that-ollama-still-takes"[:60]
    results = [
        record("prepare", prepared(train=1_234_567)),
        record("train", trained(loss=10.123, base_loss=12.5)),
    ]
    folder = make_run(models, long, "0123456789ab", records=results)
    evaluate(folder, {"q": ("a", "a")}, gate="inconclusive")
    base = {"source": "Qwen/" + "x" * 90, "revision": None, "digest": "0", "files": {}}
    make_run(models, long, "bbbbbbbbbbbb", base=base)
    stages = ["preflight", "prepare", "rendering", "train", "merge", "convert", "quantize"]
    make_unfinished(models, "été d'hier", "cccccccccccc", stages=stages, checkpoints=[123_456])
    promoted = [PromotedRun(f"role-of-{number}", long, "0123456789ab", True) for number in range(9)]
    said = shown(summaries(promoted))
    assert max(cell_len(line) for line in said.splitlines()) <= 80
    for whole in ("1,235k", "12.5 -> 10.1", "inconclusive", "0123456789ab", "123456"):
        assert whole in said
    for role in promoted:
        assert role.role in said


def test_a_name_moves_no_cursor(models):
    make_run(models, "m\x1b[2J", "aaaa", name="m")
    assert "\x1b" not in shown(summaries([]))


ROLES = """models:
  sorter:
    model_name: {sorter}
  by_hand:
    model_name: other:v2
"""


@pytest.fixture
def roles(tmp_path):
    """A file of roles, and a log in which `sorter` went from run aaaa to bbbb."""
    file, log = tmp_path / "models.yaml", PromotionLog(tmp_path / "promotions.jsonl")
    passed = GateDecision(outcome="passed", lines=[])
    for before, after, run in (("smollm2", "m:1", "aaaa"), ("m:1", "m:2", "bbbb")):
        values = {"role": "sorter", "model": "m", "run": run, "gate": passed}
        log.append(log_entry(before=before, after=after, **values))

    def at(model):
        file.write_text(ROLES.format(sorter=model))
        return promoted_runs(file, log)

    return at


def test_a_promoted_run_is_known_by_the_log(models, roles):
    assert roles("m:2") == [
        PromotedRun("sorter", "m", "bbbb", True),
        PromotedRun("sorter", "m", "aaaa", False),
        PromotedRun("by_hand", "other:v2", None, True),
        PromotedRun("by_hand", "other", None, True),
    ]
    for key in ("aaaa", "bbbb", "cccc"):
        make_run(models, "m", key)
    make_run(models, "other", "dddd")
    runs = {run.key: run for run in summaries(roles("m:2"))}
    assert runs["bbbb"].roles == ["sorter"]
    assert runs["aaaa"].rollback_roles == ["sorter"]
    assert (runs["cccc"].roles, runs["cccc"].rollback_roles) == ([], [])
    # Nobody says which run it is.
    assert (runs["dddd"].roles, runs["dddd"].maybe_roles) == ([], ["by_hand"])
    said = shown(list(runs.values()))
    assert "promoted: sorter" in said
    assert "a rollback of sorter returns to it" in said
    assert "may be what by_hand stands at" in said


def test_a_role_that_was_set_by_hand_stands_at_the_model_that_it_names(roles):
    found = roles("m:v2-0123456789ab")
    assert [one.model for one in found if one.role == "sorter"] == [
        "m:v2-0123456789ab",
        "m",
        "m:v2",
    ]
    assert {one.key for one in found} == {None}


def test_without_a_run_the_command_says_what_to_do(clone):
    done = invoke(clone, "runs")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "No runs here yet. Make one: ./invoke train --profile smoke\n"
    assert json.loads(invoke(clone, "runs", "--json").stdout) == []


def test_the_command_lists_runs_for_people_and_for_programs(clone):
    models = clone / "data" / "models"
    results = [record("prepare", prepared()), record("train", trained(loss=float("nan")))]
    folder = make_run(models, "listed", "aaaa", records=results)
    entry = log_entry(after="listed:1", role="sfd_analyzer", model="listed", run="aaaa")
    configs = clone / "configs"
    log = configs / "promotions.jsonl"
    log.write_text(entry.model_dump_json() + "\n")
    roles = configs / "models.yaml"
    before = roles.read_text()
    roles.write_text(before.replace("qwen2.5:1.5b-instruct", "listed:1"))
    people = invoke(clone, "runs", "--model", "listed:latest")
    assert people.returncode == 0, people.stderr
    assert "listed  base smoke" in people.stdout
    assert "promoted: sfd_analyzer" in people.stdout
    (run,) = json.loads(invoke(clone, "runs", "--model", "listed", "--json").stdout)
    assert (run["model"], run["key"], run["roles"]) == ("listed", "aaaa", ["sfd_analyzer"])
    # No JSON has a number for it.
    assert run["held_out_loss"] == {"base": 5.0, "tuned": None}
    assert clone / run["folder"] == folder
    # A list is none the worse for a log that cannot be read.
    log.write_text("{}\n")
    damaged = invoke(clone, "runs", "--model", "listed")
    assert damaged.returncode == 0, damaged.stderr
    assert "promotions are not known: configs/promotions.jsonl:1" in damaged.stderr
    assert "aaaa" in damaged.stdout
    log.unlink()
    roles.write_text(before)
    unknown = invoke(clone, "runs", "--model", "nobody")
    assert unknown.returncode == 2
    assert "nobody has no run here. Known: listed." in unknown.stderr
