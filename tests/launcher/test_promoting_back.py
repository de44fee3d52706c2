"""A promotion changes nothing before it is sure to end, and a rollback gives back every byte."""

import os
import random
from types import SimpleNamespace

import pytest
from ruamel.yaml import YAML

from contract.errors import UserError
from launcher.evaluate.record import GateDecision
from launcher.gate.policy import Policy
from launcher.project import MODELS_FILE
from launcher.promote import models_file, promotion
from launcher.promote.env_file import EnvVariable
from launcher.promote.log import PromotionLog
from launcher.promote.models_file import RoleEntry
from launcher.promote.promotion import promote, record, rollback
from launcher.serving.import_records import ImportRecords
from launcher.serving.ollama_server import OllamaServer
from tests.launcher.conftest import log_entry
from tests.launcher.test_promote import BLOCKS, SCALARS, SHARED

QUOTED = """\
models:  # à nous
  other: {model_name: "x:1"}   # its own
  role:
    k: [1,2]
    model_name:   'old:1'   # why
  same:
    model_name:   'old:1'   # why
  number: {model_name: 12}
"""


def roles_of(text):
    return list(YAML(typ="safe").load(text)["models"])


@pytest.fixture
def log(tmp_path):
    return PromotionLog(tmp_path / "promotions.jsonl")


def promoted(path, role, after, log, **more):
    return record(log_entry(role=role, after=after), RoleEntry.read(role, path), log, **more)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("new", ["new:2", "12:30", 'a "b": #c'])
@pytest.mark.parametrize(
    ("text", "role"),
    [(text, role) for text in (SHARED, SCALARS, BLOCKS, QUOTED) for role in roles_of(text)],
)
def test_a_rollback_gives_the_roles_lines_back_letter_for_letter(
    tmp_path, log, text, role, new, newline
):
    path = tmp_path / "m.yaml"
    before = text.replace("\n", newline).encode()
    path.write_bytes(before)
    first = RoleEntry.read(role, path).model_name
    promoted(path, role, new, log)
    between = path.read_bytes()
    assert between != before
    promoted(path, role, "third:3", log)
    assert rollback(RoleEntry.read(role, path), log).after == new
    assert path.read_bytes() == between
    assert rollback(RoleEntry.read(role, path), log).after == first
    assert path.read_bytes() == before


def test_what_changed_elsewhere_in_the_file_stays(tmp_path, log):
    path = tmp_path / "m.yaml"
    path.write_text(QUOTED)
    promoted(path, "role", "m:1", log)
    # The very same line, of another role that comes first, and a person's own lines.
    promoted(path, "same", "m:1", log)
    path.write_text("# theirs\n" + path.read_text() + "# and these\n")
    rollback(RoleEntry.read("role", path), log)
    same = QUOTED.rpartition("    model_name:   'old:1'   # why")
    expected = same[0] + "    model_name:   m:1   # why" + same[2]
    assert path.read_text() == "# theirs\n" + expected + "# and these\n"


def test_a_line_that_a_person_changed_since_gets_its_value_back_and_no_more(tmp_path, log):
    path = tmp_path / "m.yaml"
    path.write_text(QUOTED)
    promoted(path, "role", "m:1", log)
    path.write_text(path.read_text().replace("m:1   # why", "m:1  # a better reason"))
    rollback(RoleEntry.read("role", path), log)
    assert "model_name:   old:1  # a better reason\n" in path.read_text()


ENV_LINES = [
    "K=old",
    "K='../lora/v1' # note",
    'export  K = "a b"\t# note',
    "K= # nothing",
    "K=",
    "K",
    "K   =   old   # spaces",
    "K=first\nK=second",
    "  K='two\nlines'",
    "'K'=old",
    "",
]


@pytest.mark.parametrize("around", [("A=1\n", "\nB=2\n"), ("", ""), ("\ufeff# à\r\n", "\r\nB=2")])
@pytest.mark.parametrize("line", ENV_LINES)
def test_a_rollback_gives_the_variables_line_back_byte_for_byte(tmp_path, log, line, around):
    models = tmp_path / "m.yaml"
    models.write_text(QUOTED)
    file = tmp_path / "shared" / "env"
    file.parent.mkdir()
    before = line.join(around).encode()
    file.write_bytes(before)
    file.chmod(0o640)
    theirs = next((group for group in os.getgroups() if group != os.getegid()), os.getegid())
    os.chown(file, -1, 12345 if os.geteuid() == 0 else theirs)
    group = file.stat().st_gid
    link = tmp_path / ".env"
    link.symlink_to("shared/env")
    variable = EnvVariable.read(link, "K")
    promoted(models, "role", "m:1", log, env=variable, adapter="/new adapter")
    assert EnvVariable.read(link, "K").value == "/new adapter"
    rollback(RoleEntry.read("role", models), log)
    assert file.read_bytes() == before
    assert link.is_symlink()
    assert (file.stat().st_mode & 0o777, file.stat().st_gid) == (0o640, group)


@pytest.mark.slow
def test_random_files_come_back_as_they_were(tmp_path, log):
    models = tmp_path / "m.yaml"
    models.write_text(QUOTED)
    chance = random.Random(14)
    file = tmp_path / ".env"
    for _ in range(60):
        lines = chance.choices([*ENV_LINES, "# é", "OTHER=$K", "not a line at all ="], k=4)
        before = chance.choice(["\n", "\r\n"]).join(lines).encode()
        file.write_bytes(before)
        variable = EnvVariable.read(file, "K")
        promoted(models, "role", "m:1", log, env=variable, adapter="/a")
        rollback(RoleEntry.read("role", models), log)
        assert file.read_bytes() == before
    assert models.read_text() == QUOTED


def test_what_was_written_is_read_again(tmp_path, log, monkeypatch):
    path = tmp_path / "m.yaml"
    path.write_text(QUOTED)

    def rewrite(target, content):
        # As another program that saves its own copy in that moment.
        target.write_text(content.replace("new:2", "theirs:3"))

    monkeypatch.setattr(models_file, "rewrite", rewrite)
    with pytest.raises(UserError, match=r"m\.yaml: does not hold what was just written to it"):
        promoted(path, "role", "new:2", log)


def test_a_last_entry_without_a_line_feed_counts(tmp_path, log):
    log.append(log_entry("x", "a:1"))
    log.append(log_entry("a:1", "b:2"))
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-1])
    assert log.standing("sfd_analyzer").after == "b:2"
    log.append(log_entry("b:2", "c:3"))
    assert log.path.read_bytes().startswith(whole)
    assert len(log.path.read_bytes().splitlines()) == 3
    assert log.standing("sfd_analyzer").after == "c:3"


def test_a_last_entry_that_is_cut_off_counts_for_nothing_and_is_taken_away(log):
    log.append(log_entry("x", "a:1"))
    whole = log.path.read_bytes()
    for cut in (b'{"at": "2026', b"\xff\xfe", b"{}", b"   "):
        log.path.write_bytes(whole + cut)
        assert log.standing("sfd_analyzer").after == "a:1"
        log.append(log_entry("a:1", "b:2"))
        assert log.path.read_bytes().startswith(whole + b'{"at":"2026-01-01')


def test_a_line_of_other_bytes_is_named(log):
    log.append(log_entry("x", "a:1"))
    log.path.write_bytes(b"\xff\xfe\n" + log.path.read_bytes())
    with pytest.raises(UserError, match=r"promotions.jsonl:1: is not a valid entry"):
        log.standing("sfd_analyzer")


PASSED = GateDecision(outcome="passed", lines=[])
POLICY = Policy(min_task_gain=0, max_skill_loss=None, verified=False)


@pytest.fixture
def fit(made_run, ollama, ollama_server, monkeypatch):
    """A run whose model is served, and fit to be promoted; its server."""
    made_run.adapter = made_run.folder / "adapter"
    found = SimpleNamespace(model=SimpleNamespace(model_digest=made_run.model_digest, name="m"))
    monkeypatch.setattr(promotion.Evaluation, "of_run", lambda folder, name: found)
    monkeypatch.setattr(promotion, "decide", lambda run, evaluation, policy: PASSED)
    ollama.make("m", "ours")
    ImportRecords.of(made_run).add(ollama.models["m:latest"], made_run.model_digest)
    return OllamaServer(ollama_server.address, "0.34.1")


@pytest.fixture
def models(tmp_path):
    path = tmp_path / "models.yaml"
    path.write_bytes(MODELS_FILE.read_bytes())
    return path


def ask(made_run, server, models, log, **more):
    role = RoleEntry.read("sfd_analyzer", models)
    return promote(made_run, "m", role, server=server, policy=POLICY, log=log, **more)


def test_a_model_is_promoted_under_a_name_with_its_digest(fit, made_run, ollama, models, log):
    digest = ollama.models["m:latest"]
    changed = ask(made_run, fit, models, log)
    assert changed.after == f"m:{digest[:12]}"
    assert ollama.models == {"m:latest": digest, changed.after: digest}
    assert RoleEntry.read("sfd_analyzer", models).model_name == changed.after


def test_what_cannot_be_promoted_is_said_before_the_server_is_changed(
    fit, made_run, ollama, models, log, tmp_path
):
    before = dict(ollama.models)
    env = tmp_path / ".env"
    env.write_text("K=1\n")
    variable = EnvVariable.read(env, "K")
    made_run.adapter = tmp_path / "${HOME}"
    with pytest.raises(UserError, match="would replace the braces"):
        ask(made_run, fit, models, log, env=variable)
    log.path.write_text('{"at": 1}\n')
    with pytest.raises(UserError, match=r"promotions.jsonl:1: is not a valid entry"):
        ask(made_run, fit, models, log)
    assert ollama.models == before
    assert models.read_bytes() == MODELS_FILE.read_bytes()


def test_a_name_that_becomes_another_model_meanwhile_is_not_promoted(
    fit, made_run, ollama, models, log
):
    ollama.before["copy"] = lambda _asked: ollama.make("m", "imported in that moment")
    with pytest.raises(UserError, match=r"m:latest at .* became another model meanwhile"):
        ask(made_run, fit, models, log)
    assert list(ollama.models) == ["m:latest"]
    assert not log.path.exists()


def test_a_strangers_model_under_that_name_is_left_alone(fit, made_run, ollama, models, log):
    name = f"m:{ollama.models['m:latest'][:12]}"
    ollama.make(name, "a stranger's")
    before = dict(ollama.models)
    with pytest.raises(UserError, match="is another model than its name says"):
        ask(made_run, fit, models, log)
    assert ollama.models == before
