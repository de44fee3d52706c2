"""Set one variable in an application's `.env`, and leave every other line as it stands."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path

from contract.atomic_write import atomic_write
from contract.errors import UserError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = re.compile(r"[\w./:@%+-]+", re.ASCII)


@dataclass(frozen=True)
class EnvVariable:
    """A variable in a file; `value` is None where it is not set there."""

    path: Path
    key: str
    value: str | None

    @classmethod
    def read(cls, path: Path, key: str) -> EnvVariable:
        """Find the variable.

        Raises:
            UserError: the file is not there, or the key is no name of a variable.
        """
        if not _NAME.fullmatch(key):
            raise UserError.one(
                "--env-key",
                f"{key!r} is not a valid variable name",
                "For example: --env-key RAISE_LORA_PATH.",
            )
        if not path.is_file():
            raise UserError.one("--env-file", f"there is no file {path}")
        found = None
        for line in _lines(path):
            if match := _setting(key).match(line):
                found = _unquoted(match["value"].rstrip("\r\n"))
        return cls(path.resolve(), key, found)

    def write(self, value: str | None) -> None:
        """Set it, in its line or in a new one at the end; None takes its line out."""
        lines = _lines(self.path)
        newline = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
        kept, written = [], False
        for line in lines:
            match = _setting(self.key).match(line)
            if match is None:
                kept.append(line)
            elif value is not None:
                ending = line[len(line.rstrip("\r\n")) :]
                kept.append(f"{match['before']}{_quoted(value)}{ending}")
                written = True
        if value is not None and not written:
            if kept and not kept[-1].endswith("\n"):
                kept[-1] += newline
            kept.append(f"{self.key}={_quoted(value)}{newline}")
        # It may hold secrets: never readable by more people than before.
        atomic_write(self.path, "".join(kept), stat.S_IMODE(self.path.stat().st_mode))


def _lines(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return re.findall(r"[^\n]*\n|[^\n]+", file.read())


def _setting(key: str) -> re.Pattern[str]:
    return re.compile(rf"(?P<before>\s*(?:export\s+)?{key}\s*=[ \t]*)(?P<value>.*)", re.DOTALL)


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1]
    return text
