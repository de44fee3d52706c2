"""Change which model a role uses in `configs/models.yaml`, and no other character of the file.

Before anything is written, the new text is read again, and it must say the same but for the one
value; how it is made: `role_edits.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import UserError
from contract.record import Record
from launcher.configuration import read_yaml
from launcher.project import MODELS_FILE, shown
from launcher.promote.rewriting import rewrite
from launcher.promote.role_edits import KEY, changes, says


class Lines(Record):
    """Whole lines of the file that a promotion replaced, and those in their place."""

    before: str
    after: str

    @classmethod
    def between(cls, old: str, new: str) -> Lines:
        """The lines in which two texts differ, from the first to the last."""
        one, other = old.split("\n"), new.split("\n")
        shortest = min(len(one), len(other))
        same = (first == second for first, second in zip(one, other, strict=False))
        start = next((number for number, equal in enumerate(same) if not equal), shortest)
        end = 0
        while end < shortest - start and one[-1 - end] == other[-1 - end]:
            end += 1
        texts = [lines[start : len(lines) - end] for lines in (one, other)]
        # With their line feeds, but for a last one that has none.
        feeds = ["\n" if lines and end else "" for lines in texts]
        before, after = ("\n".join(lines) + feed for lines, feed in zip(texts, feeds, strict=True))
        return cls(before=before, after=after)


@dataclass(frozen=True)
class RoleEntry:
    """A role's `model_name`, and the file as it was when it was read."""

    path: Path
    role: str
    model_name: str
    _text: str

    @classmethod
    def read(cls, role: str, path: Path = MODELS_FILE) -> RoleEntry:
        """Find the role.

        Raises:
            UserError: the file is not there or no YAML, has no such role, or the role no model.
        """
        if not path.is_file():
            raise UserError.one(shown(path), "does not exist")
        # Says where it is no YAML.
        content = read_yaml(path)
        roles = content.get("models") if isinstance(content, dict) else None
        roles = roles if isinstance(roles, dict) else {}
        if role not in roles:
            known = ", ".join(map(str, roles)) or "none"
            raise UserError.one(
                "--role", f"{shown(path)} has no role {role!r}", f"Known roles: {known}."
            )
        entry = roles[role]
        name = entry.get(KEY) if isinstance(entry, dict) else None
        if isinstance(name, bool) or not isinstance(name, str | int | float) or name == "":
            raise UserError.one(
                f"{shown(path)}: models.{role}",
                f"has no {KEY}",
                f"Add the name of the model that it uses now: {KEY}: NAME.",
            )
        return cls(path, role, str(name).strip(), _text_of(path))

    def read_again(self) -> RoleEntry:
        """The role as it is now.

        Raises:
            UserError: see `read`.
        """
        return RoleEntry.read(self.role, self.path)

    def write(self, model_name: str) -> None:
        """Put another model in its place.

        Raises:
            UserError: see `changed`.
        """
        self._write(self.changed(model_name))

    def restore(self, model_name: str, lines: Lines | None) -> None:
        """Put an earlier model back, and the lines as they stood then where ours still stand.

        Raises:
            UserError: see `changed`.
        """
        self._write(self._restored(model_name, lines) or self.changed(model_name))

    def lines(self, model_name: str) -> Lines:
        """The lines that `write` changes, before and after.

        Raises:
            UserError: see `changed`.
        """
        return Lines.between(self._text, self.changed(model_name))

    def _unchanged(self) -> str:
        text = _text_of(self.path)
        if text != self._text:
            raise UserError.one(
                shown(self.path),
                "was changed in the meantime and was left as it is",
                "Review it and run the same command again.",
            )
        return text

    def _restored(self, model_name: str, lines: Lines | None) -> str | None:
        now = self._unchanged()
        wanted = says(now)
        if lines is None or not lines.after or wanted is None:
            return None
        # As it was written: a number is no text.
        wanted["models"][self.role][KEY] = None
        # The same lines may stand elsewhere: what is said tells which are ours.
        for found in re.finditer(f"^{re.escape(lines.after)}", now, re.MULTILINE):
            earlier = now[: found.start()] + lines.before + now[found.end() :]
            said = says(earlier)
            if _name_in(said, self.role) == model_name:
                said["models"][self.role][KEY] = None
                if said == wanted:
                    return earlier
        return None

    def _write(self, text: str) -> None:
        rewrite(self.path, text)
        # Read again as everybody reads it.
        if RoleEntry.read(self.role, self.path)._text != text:
            raise UserError.one(
                shown(self.path),
                "does not hold what was just written to it",
                "Somebody else changed it: review it, and run the same command again.",
            )

    def changed(self, model_name: str) -> str:
        """The file's text with another model in its place.

        Raises:
            UserError: the file is another one than when it was read, or cannot be changed in this
                one place.
        """
        now = self._unchanged()
        wanted = says(now)
        nearest: Iterator[str] = iter(())
        # Nothing, where it holds itself.
        if wanted is not None:
            wanted["models"][self.role][KEY] = model_name
            nearest = changes(now, self.role, old=self.model_name, new=model_name)
        for changed in nearest:
            if says(changed) == wanted:
                return changed
        raise UserError.one(
            f"{shown(self.path)}: models.{self.role}",
            f"its {KEY} cannot be changed without changing something else",
            f"Nothing was changed: set it to {model_name} by hand.",
        )


def role_models(path: Path = MODELS_FILE) -> dict[str, str]:
    """The model of every role that has one.

    Raises:
        UserError: the file is not there or no YAML.
    """
    if not path.is_file():
        raise UserError.one(shown(path), "does not exist")
    said = read_yaml(path)
    roles = said.get("models") if isinstance(said, dict) else None
    named = {role: _name_in(said, role) for role in roles} if isinstance(roles, dict) else {}
    return {str(role): name for role, name in named.items() if name}


def _name_in(said: Any, role: str) -> str | None:
    """The role's model in what a text says, as a text; None where there is none."""
    roles = said.get("models") if isinstance(said, dict) else None
    entry = roles.get(role) if isinstance(roles, dict) else None
    name = entry.get(KEY) if isinstance(entry, dict) else None
    return None if name is None else str(name).strip()


def _text_of(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()
