"""Change which model a role uses in `configs/models.yaml`, and no other character of the file.

The value is replaced where it stands in the text. What YAML lets several places share (an anchor,
a merged mapping) is not changed for the others: the role gets a value of its own. Before anything
is written, the new text is read again, and it must say the same but for the one value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)

from contract.errors import UserError
from contract.record import Record
from launcher.configuration import read_yaml
from launcher.project import MODELS_FILE, shown
from launcher.promote.rewriting import rewrite

_KEY = "model_name"
_MERGE = "<<"
# Of one meaning in every version of YAML, unlike 12:30 and on.
_PLAIN = re.compile(r"[A-Za-z][\w./@-]*(?::[\w./@-]+)*", re.ASCII)
_NOT_TEXT = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


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
        name = entry.get(_KEY) if isinstance(entry, dict) else None
        if isinstance(name, bool) or not isinstance(name, str | int | float) or name == "":
            raise UserError.one(
                f"{shown(path)}: models.{role}",
                f"has no {_KEY}",
                f"Add the name of the model that it uses now: {_KEY}: NAME.",
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
        wanted = _says(now)
        if lines is None or not lines.after or wanted is None:
            return None
        # As it was written: a number is no text.
        wanted["models"][self.role][_KEY] = None
        # The same lines may stand elsewhere: what is said tells which are ours.
        for found in re.finditer(f"^{re.escape(lines.after)}", now, re.MULTILINE):
            earlier = now[: found.start()] + lines.before + now[found.end() :]
            said = _says(earlier)
            if _name_in(said, self.role) == model_name:
                said["models"][self.role][_KEY] = None
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
        wanted = _says(now)
        changes: Iterator[str] = iter(())
        # Nothing, where it holds itself.
        if wanted is not None:
            wanted["models"][self.role][_KEY] = model_name
            changes = _changes(now, self.role, old=self.model_name, new=model_name)
        for changed in changes:
            if _says(changed) == wanted:
                return changed
        raise UserError.one(
            f"{shown(self.path)}: models.{self.role}",
            f"its {_KEY} cannot be changed without changing something else",
            f"Nothing was changed: set it to {model_name} by hand.",
        )


def _name_in(said: Any, role: str) -> str | None:
    """The role's model in what a text says, as a text; None where there is none."""
    roles = said.get("models") if isinstance(said, dict) else None
    entry = roles.get(role) if isinstance(roles, dict) else None
    name = entry.get(_KEY) if isinstance(entry, dict) else None
    return None if name is None else str(name).strip()


def _text_of(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def _says(text: str) -> Any:
    """What the text says, with nothing shared; None where it is no YAML."""
    try:
        return _unshared(YAML(typ="safe").load(text))
    except (YAMLError, RecursionError):
        return None


def _unshared(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_unshared(inner) for inner in value]
    return value


@dataclass
class _Node:
    """A node of the text with its place, aliases not followed; `inside` has keys and values."""

    event: NodeEvent
    start: int
    end: int
    inside: list[_Node] = field(default_factory=list)

    @property
    def pairs(self) -> Iterator[tuple[_Node, _Node]]:
        """The keys and values of a mapping."""
        if isinstance(self.event, MappingStartEvent):
            yield from zip(self.inside[::2], self.inside[1::2], strict=True)

    def below(self, key: str) -> _Node | None:
        """The value of a key that stands in the mapping itself."""
        for name, value in self.pairs:
            if isinstance(name.event, ScalarEvent) and name.event.value == key:
                return value
        return None

    def walk(self) -> Iterator[_Node]:
        """The node and all inside it, in the order of the text."""
        yield self
        for node in self.inside:
            yield from node.walk()


def _tree(text: str) -> _Node | None:
    open_nodes: list[_Node] = []
    root = None
    for event in _events(text):
        if isinstance(event, CollectionEndEvent):
            open_nodes.pop().end = event.end_mark.index
        elif isinstance(event, NodeEvent):
            node = _Node(event, event.start_mark.index, event.end_mark.index)
            if open_nodes:
                open_nodes[-1].inside.append(node)
            root = root or node
            if isinstance(event, CollectionStartEvent):
                open_nodes.append(node)
    return root


def _events(text: str) -> Iterator[Event]:
    yield from YAML(typ="safe", pure=True).parse(text)


_Edit = tuple[int, int, str]


def _changes(text: str, role: str, *, old: str, new: str) -> Iterator[str]:
    """Texts in which the role may have its new model and nothing else, the nearest ones first."""
    root = _tree(text)
    roles = root.below("models") if root else None
    entry = roles.below(role) if roles else None
    if root is None or entry is None:
        return
    if isinstance(entry.event, AliasEvent):
        yield _edited(text, [_own_mapping(entry, new)])
        return
    value = entry.below(_KEY)
    if value is None:
        if added := _added(text, entry, new):
            yield _edited(text, [added])
        return
    edit = _replaced(text, value, new)
    yield _edited(text, [edit])
    # Others use this value, or this mapping, and go on with the old one.
    if isinstance(value.event, ScalarEvent) and value.event.anchor:
        anchor = value.event.anchor
        aliases = _aliases(root, anchor)
        if aliases:
            moved = (aliases[0].start, aliases[0].end, f"&{anchor} {_scalar(old)}")
            yield _edited(text, [edit, moved])
    if entry.event.anchor:
        others = [
            _added(text, user, old) if merged else _own_mapping(alias, old)
            for user, alias, merged in _users(root, entry.event.anchor)
            if not merged or user.below(_KEY) is None
        ]
        edits = [other for other in others if other is not None]
        yield _edited(text, [edit, *edits])


def _aliases(root: _Node, anchor: str) -> list[_Node]:
    return [
        node
        for node in root.walk()
        if isinstance(node.event, AliasEvent) and node.event.anchor == anchor
    ]


def _users(root: _Node, anchor: str) -> Iterator[tuple[_Node, _Node, bool]]:
    """Each mapping that names the anchor, the alias in it, and whether it is merged there."""
    for node in root.walk():
        for key, value in node.pairs:
            merged = isinstance(key.event, ScalarEvent) and key.event.value == _MERGE
            # Several are merged as a list.
            for alias in [value, *(value.inside if merged else [])]:
                if isinstance(alias.event, AliasEvent) and alias.event.anchor == anchor:
                    yield node, alias, merged


def _own_mapping(alias: _Node, model_name: str) -> _Edit:
    """In place of an alias of a whole role: the same role with a model of its own."""
    merged = f"{_MERGE}: *{alias.event.anchor}, {_KEY}: {_scalar(model_name)}"
    return alias.start, alias.end, "{" + merged + "}"


def _added(text: str, entry: _Node, model_name: str) -> _Edit | None:
    """A key of its own before the others of a role that merges another one."""
    if not entry.inside:
        return None
    first = entry.inside[0].start
    own = f"{_KEY}: {_scalar(model_name)}"
    if isinstance(entry.event, MappingStartEvent) and entry.event.flow_style:
        return first, first, f"{own}, "
    indent = text[text.rfind("\n", 0, first) + 1 : first]
    newline = "\r\n" if "\r\n" in text else "\n"
    return (first, first, own + newline + indent) if not indent.strip() else None


def _replaced(text: str, value: _Node, model_name: str) -> _Edit:
    """Another value in a scalar's or an alias's place."""
    written = text[value.start : value.end]
    style = value.event.style if isinstance(value.event, ScalarEvent) else None
    if style not in ("|", ">"):
        anchor = value.event.anchor if isinstance(value.event, ScalarEvent) else None
        # Where nobody uses it, the anchor stays.
        kept = f"&{anchor} " if anchor and f"*{anchor}" not in text else ""
        return value.start, value.end, kept + _scalar(model_name)
    # A block: its first line says how it is folded; comments and empty lines behind it stay.
    head, *lines = written.splitlines(keepends=True)
    header = head.rstrip("\r\n")
    comment = re.search(r"\s#.*", header)
    content = [number for number, line in enumerate(lines) if line.strip()]
    depth = len(lines[content[0]]) - len(lines[content[0]].lstrip()) if content else 0
    last = max((n for n in content if len(lines[n]) - len(lines[n].lstrip()) >= depth), default=-1)
    taken = head + "".join(lines[: last + 1])
    ending = re.search(r"[\r\n]*\Z", taken)
    new = _scalar(model_name) + (comment[0] if comment else "")
    return value.start, value.start + len(taken), new + (ending[0] if ending else "")


def _edited(text: str, edits: Sequence[_Edit]) -> str:
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _scalar(text: str) -> str:
    """The text as YAML: plain where every reader takes it for this text, in quotes otherwise."""
    if _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'
