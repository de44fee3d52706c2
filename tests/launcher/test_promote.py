"""A promotion changes one value in one line, and everything can be taken back."""

import re

import pytest
from ruamel.yaml import YAML

from contract.errors import UserError
from launcher.project import MODELS_FILE
from launcher.promote.env_file import EnvVariable
from launcher.promote.log import EnvChange, PromotionLog
from launcher.promote.models_file import RoleEntry
from launcher.promote.promotion import name_by_digest, rollback
from tests.launcher.conftest import log_entry


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


SHARED = """\
models:
  base: &m   # shared
    model_name: old:1
    k: [1, 2]
  merged:
    <<: *m
    z: 1   # ours
  flow: {<<: *m, z: 2}
  list:
    <<: [*m]
    own: é
  same: *m
  own:
    <<: *m
    model_name: other:1
"""
SCALARS = """\
x: &name
  y: 1
models:
  one: {model_name: &m old:1, k: 1}
  two: {model_name: *m}
  three:
    model_name: *m   # the same
  four: {model_name: &alone old:1}
"""
BLOCKS = """\
models:
  folded:
    model_name: >-  # why
      old
      1

    # behind it
    k: 1
  literal:
    model_name: |
        old:1
  next:
    model_name: !!str old:1   # n
  quoted:
    ? "model_name"
    : 'old:1'
  last:
    k: 1
    model_name: >
      old:1"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("new", ["new:2", "12:30", 'a "b": #c', "on"])
@pytest.mark.parametrize(
    ("text", "role"),
    [
        (text, role)
        for text in (SHARED, SCALARS, BLOCKS)
        for role in YAML(typ="safe").load(text)["models"]
    ],
)
def test_one_role_changes_whatever_it_shares(tmp_path, text, role, new, newline):
    path = tmp_path / "m.yaml"
    path.write_bytes(text.replace("\n", newline).encode())
    before = YAML(typ="safe").load(text)["models"]
    RoleEntry.read(role, path).write(new)
    after = YAML(typ="safe").load(path)["models"]
    assert after.pop(role) == {**before.pop(role), "model_name": new}
    assert after == before
    for comment in re.findall("#.*", text):
        assert comment in path.read_text(encoding="utf-8")
    assert "\n" not in path.read_bytes().decode().replace(newline, "")
    # And back: what the file says is what it said.
    RoleEntry.read(role, path).write(YAML(typ="safe").load(text)["models"][role]["model_name"])
    assert YAML(typ="safe").load(path) == YAML(typ="safe").load(text)


def test_a_link_and_the_mode_stay(models):
    models.chmod(0o664)
    link = models.with_name("link.yaml")
    link.symlink_to(models.name)
    RoleEntry.read("sfd_analyzer", link).write("x:1")
    assert link.is_symlink()
    assert RoleEntry.read("sfd_analyzer", models).model_name == "x:1"
    assert models.stat().st_mode & 0o777 == 0o664


@pytest.mark.parametrize(
    "text",
    [
        # All roles are another mapping's.
        "x: &x\n  role: {model_name: a}\nmodels: *x\n",
        "x: &x\n  role: {model_name: a}\nmodels:\n  <<: *x\n",
        # The role is part of itself.
        "models:\n  role: &r\n    model_name: a\n    me: *r\n",
    ],
)
def test_what_cannot_be_changed_in_one_place_is_refused_and_left(tmp_path, text):
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="set it to new:2 by hand"):
        RoleEntry.read("role", path).write("new:2")
    assert path.read_text() == text


def test_a_role_that_is_not_there_is_a_sentence(models):
    with pytest.raises(
        UserError, match=r"has no role .nobody.\. Known roles: message_sorter, sfd_analyzer"
    ):
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


def test_rollbacks_go_back_one_promotion_each(models, tmp_path):
    log = PromotionLog(tmp_path / "log.jsonl")
    first = RoleEntry.read("sfd_analyzer", models).model_name
    for before, after in ((first, "a:1"), ("a:1", "b:2")):
        log.append(log_entry(before, after))
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
    log.append(log_entry(first, "a:1", env=change))
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
    log.append(log_entry(first, "a:1", env=change))
    RoleEntry.read("sfd_analyzer", models).write("a:1")
    variable.write("/new")
    assert env.read_bytes() == before.replace(b"'../lora/v1'", b"/new")
    rollback(RoleEntry.read("sfd_analyzer", models), log)
    assert env.read_bytes() == before


def test_what_was_changed_by_hand_is_not_rolled_back(models, tmp_path):
    log = PromotionLog(tmp_path / "log.jsonl")
    log.append(log_entry("x", "a:1"))
    with pytest.raises(UserError, match="changed by hand"):
        rollback(RoleEntry.read("sfd_analyzer", models), log)


def test_a_spoiled_log_is_named_by_line(tmp_path):
    log = PromotionLog(tmp_path / "log.jsonl")
    log.append(log_entry("x", "a:1"))
    with log.path.open("a") as file:
        file.write('{"at": 1}\n')
    with pytest.raises(UserError, match=r"log.jsonl:2: is not a valid entry"):
        log.standing("sfd_analyzer")


def test_a_promoted_model_has_a_name_with_its_digest():
    assert name_by_digest("m", "sha256:0123456789abcdef") == "m:0123456789ab"
    assert name_by_digest("m:latest", "0123456789abcdef") == "m:0123456789ab"
    assert name_by_digest("us/m:v1", "0123456789abcdef") == "us/m:v1-0123456789ab"
