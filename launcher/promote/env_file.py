"""Set one variable in an application's `.env`, and leave every other byte as it stands.

The file is read as python-dotenv reads it (https://github.com/theskumar/python-dotenv), which knows
quotes, escapes, values of several lines, comments behind values and `export`. Before anything is
written, what would be written is read again, and every other variable must be as it was.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contract.errors import UserError
from launcher.promote.rewriting import rewrite

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = re.compile(r"[\w./:@%+-]+", re.ASCII)
_BOM = "\ufeff"
# python-dotenv puts other variables in place of these, in quotes as well.
_INTERPOLATED = re.compile(r"\$\{[^}]*\}")
_BEFORE = re.compile(r"\s*(?:export[^\S\r\n]+)?")
_KEY = re.compile(r"'(?P<quoted>[^']+)'|(?P<plain>(?!')[^=\#\s]+)")
_SPACE = re.compile(r"[^\S\r\n]*")
_SINGLE = re.compile(r"'((?:\\.|[^'\\])*)'", re.DOTALL)
_DOUBLE = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)
_SINGLE_ESCAPES, _DOUBLE_ESCAPES = re.compile(r"\\[\\']"), re.compile(r"\\[\\'\"abfnrtv]")
_LINE = re.compile(r"[^\r\n]*")
_COMMENT = re.compile(r"\s+#.*")
_END = re.compile(r"(?:[^\S\r\n]*#[^\r\n]*)?[^\S\r\n]*(?:\r\n|\n|\r|\Z)")
_REST_OF_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r|\Z)")


@dataclass(frozen=True)
class _Binding:
    """A variable's place in a text: its statement, and from behind its name to its value's end."""

    key: str
    value: str | None
    start: int
    end: int
    name_end: int
    value_start: int
    value_end: int


@dataclass(frozen=True)
class EnvVariable:
    """A variable in a file.

    Attributes:
        path: the file itself, where a symbolic link leads to it.
        key: the variable's name.
        value: as python-dotenv reads it; None where it is not set.
        written: what stands behind its name, from the `=` to the value's end; None where the name
            is not there.
    """

    path: Path
    key: str
    value: str | None
    written: str | None = None

    @classmethod
    def read(cls, path: Path, key: str) -> EnvVariable:
        """Find the variable; where it is set several times, the last one counts.

        Raises:
            UserError: the file is not there or no text, or the key is no name of a variable.
        """
        if not _NAME.fullmatch(key):
            raise UserError.one(
                "--env-key",
                f"{key!r} is not a valid variable name",
                "For example: --env-key RAISE_LORA_PATH.",
            )
        if not path.is_file():
            raise UserError.one("--env-file", f"there is no file {path}")
        text = _read(path)
        found = _last(text, key)
        if found is None:
            return cls(path.resolve(), key, None)
        written = text[found.name_end : found.value_end]
        try:
            written.encode()
        except UnicodeEncodeError:
            raise UserError.one(
                str(path),
                f"the value of {key} is not UTF-8",
                "Save the file as UTF-8.",
            ) from None
        return cls(path.resolve(), key, found.value, written)

    def check(self, value: str) -> None:
        """See that it can be set to this value.

        Raises:
            UserError: python-dotenv would not read it, or another variable, as it should.
        """
        self._changed(self._token(value), value)

    def write(self, value: str | None) -> None:
        """Set it, in its place or in a new line at the end; None takes its statement out.

        Raises:
            UserError: python-dotenv would not read it, or another variable, as it should.
        """
        if value is None:
            self._rewrite(None, None)
            return
        self._rewrite(self._token(value), value)

    def restore(self, before: EnvVariable) -> None:
        """Put back what stood there, letter for letter, or take out what was added.

        Raises:
            UserError: python-dotenv would not read it, or another variable, as it did.
        """
        self._rewrite(before.written, before.value, whole=True)

    def _token(self, value: str) -> str:
        if not _is_text(value):
            raise self._unwritable(f"{value!r} cannot stand in a text")
        if _INTERPOLATED.search(value):
            raise self._unwritable(f"python-dotenv would replace the braces in {value!r}")
        return _quoted(value)

    def _rewrite(self, token: str | None, value: str | None, *, whole: bool = False) -> None:
        changed = self._changed(token, value, whole=whole)
        rewrite(self.path, changed.encode("utf-8", "surrogateescape"))

    def _changed(self, token: str | None, value: str | None, *, whole: bool = False) -> str:
        """The text with a token in the value's place, or with `whole` in that of all behind the
        name.
        """
        text = _read(self.path)
        found = _last(text, self.key)
        if token is None:
            changed = text if found is None else _without(text, found)
        elif found is None:
            changed = _with_line(text, f"{self.key}{token if whole else f'={token}'}")
        elif whole:
            changed = text[: found.name_end] + token + text[found.value_end :]
        else:
            equals = "=" if found.value is None else ""
            changed = text[: found.value_start] + equals + token + text[found.value_end :]
        self._check(text, changed, found, value)
        return changed

    def _check(self, text: str, changed: str, found: _Binding | None, value: str | None) -> None:
        """Refuse a change after which something else is read differently."""
        place = [binding for binding in _bindings(text) if found is None or binding != found]
        kept = [(binding.key, binding.value) for binding in place]
        now = list(_bindings(changed))
        ours = [binding for binding in now if binding.key == self.key]
        gone = value is None and len(now) == len(kept)
        if ours and not gone:
            now.remove(ours[-1])
        others = [(binding.key, binding.value) for binding in now]
        if others != kept or (not gone and (not ours or ours[-1].value != value)):
            raise self._unwritable(f"{self.key} cannot be set without changing what else is read")

    def _unwritable(self, why: str) -> UserError:
        return UserError.one(str(self.path), why, "Nothing was changed: set it by hand.")


def _is_text(value: str) -> bool:
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def _read(path: Path) -> str:
    """The file's text; bytes that are no UTF-8 are kept as they are."""
    raw = path.read_bytes()
    if b"\0" in raw or raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError.one(str(path), "is not a text in UTF-8", "Save it as UTF-8.")
    return raw.decode("utf-8", "surrogateescape")


def _last(text: str, key: str) -> _Binding | None:
    found = [binding for binding in _bindings(text) if binding.key == key]
    return found[-1] if found else None


def _bindings(text: str) -> Iterator[_Binding]:
    """Every statement that python-dotenv reads; lines that it cannot read are passed over."""
    # An editor's mark is no part of the first name.
    position = len(_BOM) if text.startswith(_BOM) else 0
    while position < len(text):
        binding, reached = _binding(text, position)
        if binding is not None:
            yield binding
            position = reached
        else:
            # A comment, an empty line at the end, or nothing that it understands.
            position = _after(_REST_OF_LINE, text, reached)


def _binding(text: str, position: int) -> tuple[_Binding | None, int]:
    """The statement there, if it is one, and how far it was understood."""
    start = _after(_BEFORE, text, position)
    key = _KEY.match(text, start)
    if key is None:
        return None, start
    name_end = value_start = value_end = key.end()
    equals = _after(_SPACE, text, name_end)
    value: str | None = None
    if text[equals : equals + 1] == "=":
        value_start = _after(_SPACE, text, equals + 1)
        first = text[value_start : value_start + 1]
        if first == "#" and value_start > equals + 1:
            # KEY= # a comment
            value, value_start, value_end = "", equals + 1, equals + 1
        elif first in ("'", '"'):
            quoted = (_SINGLE if first == "'" else _DOUBLE).match(text, value_start)
            if quoted is None:
                return None, value_start
            value_end = quoted.end()
            value = _decoded(_SINGLE_ESCAPES if first == "'" else _DOUBLE_ESCAPES, quoted[1])
        else:
            line = text[value_start : _after(_LINE, text, value_start)]
            value = _COMMENT.sub("", line).rstrip()
            value_end = value_start + len(value)
    end = _END.match(text, value_end)
    if end is None:
        return None, value_end
    name = key["quoted"] or key["plain"]
    found = _Binding(name, value, start, end.end(), name_end, value_start, value_end)
    return found, end.end()


def _after(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


def _decoded(escapes: re.Pattern[str], text: str) -> str:
    return escapes.sub(lambda match: codecs.decode(match[0], "unicode-escape"), text)


def _with_line(text: str, line: str) -> str:
    """The text with a line more; without a line feed at its end where it had none."""
    newline = "\r\n" if re.match(r"[^\n]*\r\n", text) else "\n"
    if text in ("", _BOM) or text.endswith(("\n", "\r")):
        return text + line + newline
    return text + newline + line


def _without(text: str, found: _Binding) -> str:
    before, after = text[: _line_start(text, found.start)], text[found.end :]
    if not after and not text.endswith(("\n", "\r")):
        # The line feed before it is one that `_with_line` added.
        before = re.sub(r"(?:\r\n|\n|\r)\Z", "", before)
    return before + after


def _line_start(text: str, position: int) -> int:
    return max(text.rfind("\n", 0, position), text.rfind("\r", 0, position)) + 1 or (
        len(_BOM) if text.startswith(_BOM) else 0
    )


def _quoted(value: str) -> str:
    """The value as python-dotenv reads it, and a shell too where that is possible."""
    if _PLAIN.fullmatch(value):
        return value
    # A shell takes what stands in single quotes as it is, and python-dotenv nearly.
    if not re.search(r"'|\\\\|\\\Z|[\r\n]", value):
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r") + '"'
