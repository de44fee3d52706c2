"""Promotions lose nothing to each other, nor to what ends one half way."""

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from contract.errors import UserError
from launcher.configuration import read_yaml
from launcher.project import MODELS_FILE
from launcher.promote.env_file import EnvVariable
from launcher.promote.log import LogEntry, PromotionLog
from launcher.promote.models_file import RoleEntry
from launcher.promote.promotion import record, rollback
from tests.launcher.conftest import log_entry

ROLES = ("sfd_analyzer", "message_sorter")
PROCESSES, PROMOTIONS = 8, 12


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models.yaml").write_bytes(MODELS_FILE.read_bytes())
    return tmp_path


def entry(role, after):
    return log_entry("read while the log is held", after, role=role)


def role_of(folder, role=ROLES[0]):
    return RoleEntry.read(role, folder / "models.yaml")


def log_of(folder):
    return PromotionLog(folder / "promotions.jsonl")


def promote_many(folder, process, promotions=PROMOTIONS):
    """Promote in turn into both roles; the file is whole after each."""
    for number in range(promotions):
        role = ROLES[number % 2]
        record(entry(role, f"m:{process}-{number}"), role_of(folder, role), log_of(folder))
        assert set(read_yaml(folder / "models.yaml")["models"]) == set(ROLES)


@pytest.mark.slow
def test_promotions_of_several_processes_are_all_in_the_log(folder):
    check_promotions_at_once(folder, PROMOTIONS)


def check_promotions_at_once(folder, promotions):
    """Have several processes promote so many times each, and see that nothing is lost."""
    firsts = {role: role_of(folder, role).model_name for role in ROLES}
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("fork")) as pool:
        counts = [promotions] * PROCESSES
        list(pool.map(promote_many, [folder] * PROCESSES, range(PROCESSES), counts))
    lines = log_of(folder).path.read_text().splitlines()
    entries = [LogEntry.model_validate_json(line) for line in lines]
    assert sorted(one.after for one in entries) == sorted(
        f"m:{process}-{number}" for process in range(PROCESSES) for number in range(promotions)
    )
    for role in ROLES:
        chain = [one for one in entries if one.role == role]
        # Each began at what the one before it had set, and the file stands at the last.
        assert [one.before for one in chain] == [
            firsts[role],
            *(one.after for one in chain[:-1]),
        ]
        assert role_of(folder, role).model_name == chain[-1].after


def die(*_arguments, **_options):
    os.kill(os.getpid(), signal.SIGKILL)


def killed(work):
    """Do the work in a process that is killed in it."""
    process = get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_a_promotion_killed_behind_the_log_is_taken_back(folder, monkeypatch):
    first = role_of(folder).model_name
    monkeypatch.setattr(RoleEntry, "write", die)
    killed(lambda: record(entry(ROLES[0], "m:1"), role_of(folder), log_of(folder)))
    monkeypatch.undo()
    assert role_of(folder).model_name == first
    assert rollback(role_of(folder), log_of(folder)).after == first
    assert log_of(folder).standing(ROLES[0]) is None


def test_a_rollback_killed_before_the_log_is_finished_by_the_next(folder, monkeypatch):
    first = role_of(folder).model_name
    record(entry(ROLES[0], "m:1"), role_of(folder), log_of(folder))
    monkeypatch.setattr(PromotionLog, "append", die)
    killed(lambda: rollback(role_of(folder), log_of(folder)))
    monkeypatch.undo()
    assert role_of(folder).model_name == first
    assert rollback(role_of(folder), log_of(folder)).after == first
    assert log_of(folder).standing(ROLES[0]) is None


def test_what_a_power_cut_left_of_an_entry_counts_for_nothing(folder):
    log = log_of(folder)
    record(entry(ROLES[0], "m:1"), role_of(folder), log)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + whole[: len(whole) // 2])
    standing = log.standing(ROLES[0])
    assert standing is not None
    assert standing.after == "m:1"
    record(entry(ROLES[0], "m:2"), role_of(folder), log)
    assert len(log.path.read_text().splitlines()) == 2


def test_a_variable_that_cannot_be_set_is_refused_before_anything_changes(folder):
    env = folder / ".env"
    env.write_text("ADAPTER=/old\n")
    variable = EnvVariable.read(env, "ADAPTER")
    with pytest.raises(UserError, match="would replace the braces"):
        record(
            entry(ROLES[0], "m:1"),
            role_of(folder),
            log_of(folder),
            env=variable,
            adapter="/runs/${HOME}/adapter",
        )
    assert (folder / "models.yaml").read_bytes() == MODELS_FILE.read_bytes()
    assert not log_of(folder).path.exists()
    assert env.read_text() == "ADAPTER=/old\n"


def test_the_lock_is_no_file_of_the_repository(folder):
    record(entry(ROLES[0], "m:1"), role_of(folder), log_of(folder))
    beside = sorted(path.name for path in Path(folder).iterdir())
    assert beside == [".promotions", "models.yaml", "promotions.jsonl"]
    assert "configs/.promotions/" in (MODELS_FILE.parent.parent / ".gitignore").read_text()
