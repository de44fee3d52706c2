"""One variable of an application's `.env` changes, as python-dotenv reads the file, and no more."""

import io
import random
import subprocess

import pytest
from dotenv import dotenv_values
from dotenv.parser import parse_stream

from contract.errors import UserError
from launcher.promote.env_file import EnvVariable


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("A=1\n# KEY=no\nexport KEY = old\nB=2\n", "A=1\n# KEY=no\nexport KEY = {}\nB=2\n"),
        ("A=1", "A=1\nKEY={}"),
        ("", "KEY={}\n"),
        ("KEY=x\r\nB=2\r\n", "KEY={}\r\nB=2\r\n"),
        ("MY_KEY=1\nKEYS=2\n", "MY_KEY=1\nKEYS=2\nKEY={}\n"),
    ],
)
def test_one_variable_is_set_and_the_rest_untouched(tmp_path, before, after):
    path = tmp_path / ".env"
    path.write_bytes(before.encode())
    path.chmod(0o600)
    EnvVariable.read(path, "KEY").write("/data/models/x")
    assert path.read_bytes().decode() == after.format("/data/models/x")
    assert path.stat().st_mode & 0o777 == 0o600
    assert EnvVariable.read(path, "KEY").value == "/data/models/x"


@pytest.mark.parametrize(
    "value", ["/mes modèles/d'été", 'a "b" $c \\d', "it's", "", "a # b", " a ", "`date`", "$HOME"]
)
def test_a_value_with_spaces_and_quotes_is_read_back(tmp_path, value):
    path = tmp_path / ".env"
    path.write_text("KEY=old\n")
    EnvVariable.read(path, "KEY").write(value)
    assert EnvVariable.read(path, "KEY").value == value
    assert dotenv_values(path)["KEY"] == value
    # As a shell reads it, too.
    read = ["sh", "-c", f'. {path}; printf %s "$KEY"']
    done = subprocess.run(read, capture_output=True, text=True, check=True)
    assert done.stdout == value


@pytest.mark.parametrize("value", ["C:\\\\a\\", "it's $c", "a\nb'\r\n", "'\"\\'"])
def test_a_value_that_no_shell_reads_is_read_by_python_dotenv(tmp_path, value):
    path = tmp_path / ".env"
    path.write_text("KEY=old # why\n")
    EnvVariable.read(path, "KEY").write(value)
    assert dotenv_values(path)["KEY"] == value
    assert path.read_text().endswith(" # why\n")


NEW = "/data/models/x/adapter"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("K=../lora/v1 # note\n", f"K={NEW} # note\n"),
        ("export  K = 'a b'  # note\nB=2\n", f"export  K = {NEW}  # note\nB=2\n"),
        ('A="x\nK=no\n"\nK="l\nm"\r\n', f'A="x\nK=no\n"\nK={NEW}\r\n'),
        ("A='it\\'s\nK=no'\nK=1", f"A='it\\'s\nK=no'\nK={NEW}"),
        ("K=\nB=${K}/x\n", f"K={NEW}\nB=${{K}}/x\n"),
        ("K= # note\n", f"K={NEW} # note\n"),
        ("K\n", f"K={NEW}\n"),
        ("'K'=1\n", f"'K'={NEW}\n"),
        ("K=a#b\n", f"K={NEW}\n"),
        # The last one counts.
        ("K=1\nB=${K}\nK=2\n", f"K=1\nB=${{K}}\nK={NEW}\n"),
        ("#K=1\n", f"#K=1\nK={NEW}\n"),
        ("A=1", f"A=1\nK={NEW}"),
        ("A=1\r\nB=2", f"A=1\r\nB=2\r\nK={NEW}"),
        ("", f"K={NEW}\n"),
        ("\ufeffK=1\r\nB=2\r\n", f"\ufeffK={NEW}\r\nB=2\r\n"),
        ("\ufeff", f"\ufeffK={NEW}\n"),
    ],
)
def test_a_promotion_and_its_rollback_give_the_same_bytes(tmp_path, before, after):
    path, link = tmp_path / "real.env", tmp_path / ".env"
    path.write_bytes(before.encode())
    path.chmod(0o640)
    link.symlink_to(path.name)
    standing = EnvVariable.read(link, "K")
    values = dotenv_values(path, encoding="utf-8-sig", interpolate=False)
    assert standing.value == values.get("K")
    standing.write(NEW)
    assert path.read_bytes().decode() == after
    now = dotenv_values(path, encoding="utf-8-sig", interpolate=False)
    assert now == {**values, "K": NEW}
    EnvVariable.read(link, "K").restore(standing)
    assert path.read_bytes().decode() == before
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640


def test_bytes_that_are_no_utf8_are_left_as_they_are(tmp_path):
    path = tmp_path / ".env"
    before = "A=été # à nous\r\nK=../lora # là\r\n".encode("cp1252")
    path.write_bytes(before)
    standing = EnvVariable.read(path, "K")
    standing.write("/modèles")
    changed = before.replace(b"../lora", "'/modèles'".encode())
    assert path.read_bytes() == changed
    EnvVariable.read(path, "K").restore(standing)
    assert path.read_bytes() == before
    with pytest.raises(UserError, match="the value of A is not UTF-8"):
        EnvVariable.read(path, "A")


def test_what_cannot_be_set_faithfully_is_refused_and_left(tmp_path):
    path = tmp_path / ".env"
    for before, value, said in (
        ("K=1\n", "/a/${HOME}", "would replace the braces"),
        # A quote that nobody closed would end in our value.
        ("A='x\nB=1\n", "it's", "without changing what else is read"),
        ("A='x\nB=1\n", "a b", "without changing what else is read"),
    ):
        path.write_text(before)
        with pytest.raises(UserError, match=said):
            EnvVariable.read(path, "K").write(value)
        assert path.read_text() == before
    path.write_bytes("K=1\n".encode("utf-16"))
    with pytest.raises(UserError, match="is not a text in UTF-8"):
        EnvVariable.read(path, "K")


PIECES = ["K", "A", "=", "=", "'", '"', "\\", "\n", "\r\n", "\r", " ", "\t", "#", "export ", "é"]
PIECES += ["$", "${A}", "\u00a0", "\u2028", "n", "K=1\n", "A='b'\n", "K='c d' # e\n"]


def bindings(text):
    """The variables in their order, by python-dotenv's own parser."""
    found = parse_stream(io.StringIO(text, newline=""))
    return [(binding.key, binding.value) for binding in found if binding.key is not None]


@pytest.mark.slow
def test_any_file_is_read_and_changed_as_python_dotenv_reads_it(tmp_path):
    draw = random.Random(1)
    path = tmp_path / ".env"
    refused = 0
    for _ in range(2000):
        before = "".join(draw.choice(PIECES) for _ in range(draw.randrange(14)))
        path.write_bytes(before.encode())
        pairs = bindings(before)
        standing = EnvVariable.read(path, "K")
        assert standing.value == dict(pairs).get("K"), before
        try:
            standing.write("/d'é x")
        except UserError:
            refused += 1
            assert path.read_bytes() == before.encode()
            continue
        text = path.read_bytes().decode()
        now = bindings(text)
        assert [pair for pair in now if pair[0] != "K"] == [p for p in pairs if p[0] != "K"], before
        assert dict(now) == {**dict(pairs), "K": "/d'é x"}, before
        EnvVariable.read(path, "K").restore(standing)
        assert path.read_bytes() == before.encode()
    assert refused < 600


def test_a_variable_that_cannot_be_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        EnvVariable.read(tmp_path / "none", "KEY")
    with pytest.raises(UserError, match="not a valid variable name"):
        EnvVariable.read(tmp_path / "none", "RAISE LORA")
