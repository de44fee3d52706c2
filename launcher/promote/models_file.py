"""Change which model a role uses in `configs/models.yaml`, and no other character of the file."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from contract.atomic_write import atomic_write
from contract.errors import UserError
from launcher.configuration import read_yaml
from launcher.project import MODELS_FILE, shown


@dataclass(frozen=True)
class RoleEntry:
    """A role's `model_name`, and the file as it was when it was read."""

    path: Path
    role: str
    model_name: str
    _text: str
    _start: int
    _end: int

    @classmethod
    def read(cls, role: str, path: Path = MODELS_FILE) -> RoleEntry:
        """Find the role.

        Raises:
            UserError: the file is not there or no YAML, has no such role, or the role no model.
        """
        if not path.is_file():
            raise UserError.one(shown(path), "does not exist")
        # Says where it is no YAML.
        read_yaml(path)
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
        roles = _below(YAML().compose(io.StringIO(text)), "models")
        entry = _below(roles, role)
        if entry is None:
            known = ", ".join(_keys(roles)) or "none"
            raise UserError.one(
                "--role", f"{shown(path)} has no role {role!r}", f"Known roles: {known}."
            )
        name = _below(entry, "model_name")
        if not isinstance(name, ScalarNode) or not name.value:
            raise UserError.one(
                f"{shown(path)}: models.{role}",
                "has no model_name",
                "Add the name of the model that it uses now: model_name: NAME.",
            )
        start, end = name.start_mark.index, name.end_mark.index
        return cls(path, role, str(name.value), text, start, end)

    def write(self, model_name: str) -> None:
        """Put another model in its place.

        Raises:
            UserError: the file is another one than when it was read.
        """
        with self.path.open(encoding="utf-8", newline="") as file:
            now = file.read()
        if now != self._text:
            raise UserError.one(
                shown(self.path),
                "was changed in the meantime and was left as it is",
                "Review it and run the same command again.",
            )
        atomic_write(self.path, now[: self._start] + _scalar(model_name) + now[self._end :])


def _below(node: Node | None, key: str) -> Node | None:
    if isinstance(node, MappingNode):
        for name, value in node.value:
            if name.value == key:
                found: Node = value
                return found
    return None


def _keys(node: Node | None) -> list[str]:
    return [str(name.value) for name, _ in node.value] if isinstance(node, MappingNode) else []


def _scalar(text: str) -> str:
    """The text as YAML: plain where that reads back the same, in quotes otherwise."""
    try:
        if YAML(typ="safe").load(f"a: {text}\n") == {"a": text}:
            return text
    except YAMLError:
        pass
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
