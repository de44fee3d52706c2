"""A promotion changes one value in one line, and everything can be taken back."""

import pytest

from contract.errors import UserError
from launcher.project import MODELS_FILE
from launcher.promote.env_file import EnvVariable
from launcher.promote.log import EnvChange, LogEntry, PromotionLog
from launcher.promote.models_file import RoleEntry
from launcher.promote.promotion import name_by_digest, rollback


@pytest.fixture
def models(tmp_path):
    path = tmp_path / "models.yaml"
    path.write_bytes(MODELS_FILE.read_bytes())
    return path


def changed_lines(before, after):
    pairs = zip(before.split("\n"), after.split("\n"), strict=True)
    return [(one, other) for one, other in pairs if one != other]


def test_one_line_changes(models):
    before = models.read_text()
    RoleEntry.read("sfd_analyzer", models).write("affineur-smoke:0123456789ab")
    ((old, new),) = changed_lines(before, models.read_text())
    assert old.strip() == "model_name: qwen2.5:1.5b-instruct"
    assert new == old.replace("qwen2.5:1.5b-instruct", "affineur-smoke:0123456789ab")
    assert RoleEntry.read("sfd_analyzer", models).model_name == "affineur-smoke:0123456789ab"


def test_comments_quotes_and_line_ends_stay(tmp_path):
    path = tmp_path / "m.yaml"
    text = (
        "models:  # à nous\r\n  other: {model_name: x}\r\n  role:\r\n"
        "    model_name: 'old: one'   # why\r\n    k: [1,2]\r\n"
    )
    path.write_bytes(text.encode())
    RoleEntry.read("role", path).write("new:1")
    assert path.read_bytes().decode() == text.replace("'old: one'", "new:1")
    RoleEntry.read("role", path).write("true")
    assert RoleEntry.read("role", path).model_name == "true"
    assert '"true"' in path.read_text()


def test_a_role_that_is_not_there_is_a_sentence(models):
    with pytest.raises(UserError, match=r"has no role .nobody.\. Known roles: sfd_analyzer"):
        RoleEntry.read("nobody", models)
    models.write_text("models:\n  empty:\n    other: 1\n")
    with pytest.raises(UserError, match="has no model_name"):
        RoleEntry.read("empty", models)
    models.write_text("models: [\n")
    with pytest.raises(UserError, match="is not valid YAML"):
        RoleEntry.read("empty", models)


def test_a_file_that_somebody_changed_meanwhile_is_left_alone(models):
    entry = RoleEntry.read("sfd_analyzer", models)
    models.write_text(models.read_text() + "# theirs\n")
    with pytest.raises(UserError, match="changed in the meantime"):
        entry.write("x")
    assert models.read_text().endswith("# theirs\n")
    assert "model_name: x" not in models.read_text()


def entry(before, after, did="promote", **more):
    values = {
        "at": "2026-01-01T00:00:00+00:00",
        "did": did,
        "role": "sfd_analyzer",
        "before": before,
        "after": after,
        "model": "m",
        "digest": "d",
        "run": "r",
        "gate": None,
        "override": None,
        "env": None,
    }
    return LogEntry(**{**values, **more})


def test_rollbacks_go_back_one_promotion_each(models, tmp_path):
    log = PromotionLog(tmp_path / "log.jsonl")
    first = RoleEntry.read("sfd_analyzer", models).model_name
    for before, after in ((first, "a:1"), ("a:1", "b:2")):
        log.append(entry(before, after))
        RoleEntry.read("sfd_analyzer", models).write(after)
    assert rollback(RoleEntry.read("sfd_analyzer", models), log).after == "a:1"
    assert rollback(RoleEntry.read("sfd_analyzer", models), log).after == first
    assert models.read_bytes() == MODELS_FILE.read_bytes()
    with pytest.raises(UserError, match="has no promotion to undo"):
        rollback(RoleEntry.read("sfd_analyzer", models), log)


def test_a_rollback_gives_the_variable_back_as_well(models, tmp_path):
    log = PromotionLog(tmp_path / "log.jsonl")
    env = tmp_path / ".env"
    env.write_text("SECRET=s\nKEY=/new\n")
    change = EnvChange(file=str(env), key="KEY", before=None, after="/new")
    first = RoleEntry.read("sfd_analyzer", models).model_name
    log.append(entry(first, "a:1", env=change))
    RoleEntry.read("sfd_analyzer", models).write("a:1")
    rollback(RoleEntry.read("sfd_analyzer", models), log)
    assert env.read_text() == "SECRET=s\n"


def test_a_rollback_gives_the_line_back_as_it_was(models, tmp_path):
    log = PromotionLog(tmp_path / "log.jsonl")
    env = tmp_path / ".env"
    before = b"\xef\xbb\xbfexport K = '../lora/v1' # note\r\nB=2"
    env.write_bytes(before)
    variable = EnvVariable.read(env, "K")
    change = EnvChange(
        file=str(env), key="K", before=variable.value, after="/new", written=variable.written
    )
    first = RoleEntry.read("sfd_analyzer", models).model_name
    log.append(entry(first, "a:1", env=change))
    RoleEntry.read("sfd_analyzer", models).write("a:1")
    variable.write("/new")
    assert env.read_bytes() == before.replace(b"'../lora/v1'", b"/new")
    rollback(RoleEntry.read("sfd_analyzer", models), log)
    assert env.read_bytes() == before


def test_what_was_changed_by_hand_is_not_rolled_back(models, tmp_path):
    log = PromotionLog(tmp_path / "log.jsonl")
    log.append(entry("x", "a:1"))
    with pytest.raises(UserError, match="changed by hand"):
        rollback(RoleEntry.read("sfd_analyzer", models), log)


def test_a_spoiled_log_is_named_by_line(tmp_path):
    log = PromotionLog(tmp_path / "log.jsonl")
    log.append(entry("x", "a:1"))
    with log.path.open("a") as file:
        file.write('{"at": 1}\n')
    with pytest.raises(UserError, match=r"log.jsonl:2: is not a valid entry"):
        log.standing("sfd_analyzer")


def test_a_promoted_model_has_a_name_with_its_digest():
    assert name_by_digest("m", "sha256:0123456789abcdef") == "m:0123456789ab"
    assert name_by_digest("m:latest", "0123456789abcdef") == "m:0123456789ab"
    assert name_by_digest("us/m:v1", "0123456789abcdef") == "us/m:v1-0123456789ab"
