"""What goes is said before it goes, and what somebody needs never does."""

import os
import pty
import shutil
import subprocess

import pytest

from launcher.pipeline.finished_run import Run
from launcher.promote.promoted_runs import PromotedRun
from launcher.runs.removal_plan import removal_plan, remove_all
from launcher.runtime.disk_usage import used_bytes
from launcher.runtime.exclusive_lock import exclusive_lock
from tests.conftest import clean_environment, invoke
from tests.launcher.made_runs import evaluate, make_run, make_unfinished

PATIENCE_S = 60


def going(promoted=(), model=""):
    """What would go: each path's last part, and why."""
    return {one.path.name: one.why for one in removal_plan(promoted, model).removable}


def staying(promoted=(), model=""):
    return {kept.run.key: kept.why for kept in removal_plan(promoted, model).kept}


def remove(promoted=(), model=""):
    """Remove all that would go; why something stayed."""
    plan = removal_plan(promoted, model)
    return {one.path.name: why for one, why in remove_all(lambda: promoted, plan, model)}


def test_older_runs_and_unfinished_ones_go_and_the_latest_stays(models):
    make_run(models, "m", "aaaa", day=1)
    latest = make_run(models, "m", "bbbb", day=2)
    make_unfinished(models, "m", "cccc", stages=["prepare"], checkpoints=[40])
    make_unfinished(models, "n", "dddd")
    only = make_run(models, "o", "eeee")
    assert going() == {
        "aaaa": "older run of 2026-01-01",
        "cccc": "unfinished, has prepare; could be resumed after step 40",
        "dddd": "unfinished, has no stage",
    }
    assert staying() == {"bbbb": "the latest finished run", "eeee": "the latest finished run"}
    assert going(model="n") == {"dddd": "unfinished, has no stage"}
    assert set(remove().values()) == {""}
    assert sorted(path.parent for path in models.glob("*/*/manifest.json")) == [latest, only]
    assert not (models / "m" / "cccc").exists()
    assert going() == {}


def test_what_brought_a_run_up_to_date_decides_which_is_the_latest(models):
    older = make_run(models, "m", "aaaa", day=1)
    make_run(models, "m", "bbbb", day=2)
    Run(older).name_latest()
    assert set(going()) == {"bbbb"}
    # Of which a stage is to run again: the training in it is whole.
    (older / "manifest.json").unlink()
    assert staying()["aaaa"] == "the run that was brought up to date last"
    assert staying()["bbbb"] == "the latest finished run"


def test_what_a_role_stands_at_stays(models):
    for number, key in enumerate(("aaaa", "bbbb", "cccc", "dddd"), 1):
        make_run(models, "m", key, day=number)
    make_run(models, "n", "eeee", day=1)
    make_run(models, "n", "ffff", day=2)
    make_unfinished(models, "m", "0000")
    promoted = [
        PromotedRun("sorter", "m", "aaaa", True),
        PromotedRun("sorter", "m", "bbbb", False),
        PromotedRun("spare", "m", "0000", True),
        PromotedRun("by hand", "n:latest", None, True),
    ]
    assert going(promoted) == {"cccc": "older run of 2026-01-03"}
    assert staying(promoted) == {
        "0000": "promoted: spare",
        "aaaa": "promoted: sorter",
        "bbbb": "a rollback of sorter returns to it",
        "dddd": "the latest finished run",
        "eeee": "may be what by hand stands at",
        "ffff": "may be what by hand stands at",
    }


def test_the_last_that_passed_the_gate_stays(models):
    for number, (key, gate) in enumerate(
        (("aaaa", "passed"), ("bbbb", "passed"), ("cccc", "failed"), ("dddd", None)), 1
    ):
        evaluate(make_run(models, "m", key, day=number), {"q": ("a", "a")}, gate=gate)
    assert set(going()) == {"aaaa", "cccc"}
    assert staying()["bbbb"] == "the last that passed the gate"


def test_what_a_process_works_with_stays(models):
    older = make_run(models, "m", "aaaa", day=1)
    make_run(models, "m", "bbbb", day=2)
    with (older / "open").open("w") as opened:
        worker = subprocess.Popen(["sleep", "60"], stdout=opened)
    try:
        assert staying()["aaaa"] == f"in use by process {worker.pid}"
        assert remove() == {}
    finally:
        worker.kill()
        worker.wait()
    assert older.exists()
    assert set(going()) == {"aaaa"}


@pytest.mark.parametrize("below", ["", "evaluation"])
def test_what_a_launcher_holds_stays_though_nothing_showed_it(models, below):
    older = make_run(models, "m", "aaaa", day=1)
    make_run(models, "m", "bbbb", day=2)
    (older / "evaluation").mkdir()
    with exclusive_lock(older / below):
        (why,) = remove().values()
    assert why.startswith("is in use by another run")
    assert (older / "manifest.json").exists()
    assert set(remove().values()) == {""}


def test_what_cannot_be_read_and_what_is_a_link_stays(models, tmp_path):
    make_run(models, "m", "aaaa", day=3)
    unread = make_run(models, "m", "bbbb", day=1)
    (unread / "manifest.json").write_text("{}")
    elsewhere = make_run(tmp_path, "m", "cccc", day=2)
    (models / "m" / "cccc").symlink_to(elsewhere)
    assert going() == {}
    assert staying()["bbbb"].startswith("cannot be read: was written by another version")
    assert staying()["cccc"] == "is a symbolic link"


def test_what_a_killed_launcher_left_in_a_run_goes_alone(models):
    folder = make_run(models, "m", "aaaa")
    for work in (folder / ".work", folder / "evaluation" / ".work"):
        (work / "train").mkdir(parents=True)
        (work / "train" / "weights").write_bytes(b"w" * 9000)
        # As a container may leave it.
        (work / "train").chmod(0o500)
    plan = removal_plan([])
    assert [one.why for one in plan.removable] == ["work folder that a killed launcher left"] * 2
    assert plan.size_bytes >= 18_000
    assert set(remove().values()) == {""}
    assert (folder / "manifest.json").exists()
    assert not list(folder.rglob(".work"))


def test_what_was_taken_up_between_the_look_and_the_removal_stays(models):
    older = make_run(models, "m", "aaaa", day=1)
    make_run(models, "m", "bbbb", day=2)
    unfinished = make_unfinished(models, "n", "cccc")
    plan = removal_plan([])
    assert len(plan.removable) == 2
    # Somebody promotes one, and finishes the other.
    promoted = [PromotedRun("sorter", "m", "aaaa", True)]
    manifest = (older / "manifest.json").read_bytes()
    (unfinished / "manifest.json").write_bytes(manifest)
    stayed = [why for _, why in remove_all(lambda: promoted, plan)]
    assert stayed == ["it may not go any more"] * 2
    assert (older / "manifest.json").exists()
    assert unfinished.exists()


def test_a_file_with_two_names_takes_its_place_once(tmp_path):
    folder = tmp_path / "été d'hier"
    folder.mkdir()
    (folder / "a").write_bytes(b"w" * 1_000_000)
    os.link(folder / "a", folder / "b")
    (folder / "to").symlink_to(tmp_path)
    assert 1_000_000 <= used_bytes(folder) < 1_100_000


@pytest.fixture
def older(clone):
    """Two runs in the clone, the older one of which can go; in a folder of an odd name."""
    models = clone / "data" / "models"
    folder = make_run(models, "modèle d'été", "aaaa", name="m", day=1)
    (folder / "weights d'été").write_bytes(b"w" * 3_000_000)
    make_run(models, "modèle d'été", "bbbb", name="m", day=2)
    yield folder
    shutil.rmtree(models)


def test_without_a_yes_nothing_is_removed(clone, older):
    done = invoke(clone, "clean")
    assert done.returncode == 0, done.stderr
    assert older.exists()
    assert "modèle d'été@aaaa" in done.stdout
    assert "older run of 2026-01-01" in done.stdout
    assert "Nothing was removed. ./invoke clean --yes removes 3.0 MB." in done.stdout


def test_with_a_yes_it_goes_and_what_was_freed_is_said(clone, older):
    done = invoke(clone, "clean", "--model", "modèle d'été", "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("3.0 MB freed.\n")
    assert not older.exists()
    assert (older.parent / "bbbb" / "manifest.json").exists()
    again = invoke(clone, "clean", "--yes")
    assert again.stdout.endswith("Nothing to remove.\n")


def test_what_another_process_works_with_is_not_offered(clone, older):
    with exclusive_lock(older):
        done = invoke(clone, "clean", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"in use by process {os.getpid()}" in done.stdout
    assert done.stdout.endswith("Nothing to remove.\n")
    assert older.exists()


def test_where_promotions_cannot_be_read_nothing_is_removed(clone, older):
    log = clone / "configs" / "promotions.jsonl"
    log.write_text("{}\n")
    done = invoke(clone, "clean", "--yes")
    log.unlink()
    assert done.returncode == 2
    assert "promotions.jsonl:1: is not a valid entry" in done.stderr
    assert older.exists()


@pytest.mark.parametrize(("answer", "goes"), [("y", True), ("n", False), ("", False)])
def test_a_person_at_a_terminal_is_asked(clone, older, answer, goes):
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [str(clone / "invoke"), "clean"],
        cwd=clone,
        env=clean_environment(TERM="dumb", COLUMNS="80"),
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
    )
    os.close(inside)
    said = b""
    while b"[y/N]" not in said:
        said += os.read(terminal, 4096)
    os.write(terminal, answer.encode() + b"\n")
    try:
        while part := os.read(terminal, 4096):
            said += part
    except OSError:
        # Closed at the other end.
        pass
    assert process.wait(PATIENCE_S) == 0
    os.close(terminal)
    assert b"Remove 1 of them, 3.0 MB? [y/N]" in said
    assert older.exists() is not goes
    assert (b"3.0 MB freed." in said) is goes
