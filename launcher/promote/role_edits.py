"""Texts in which one role of `configs/models.yaml` has another model, and what a text says.

The value is replaced where it stands. What YAML lets several places share (an anchor, a merged
mapping) is not changed for the others: the role gets a value of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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

KEY = "model_name"
_MERGE = "<<"
# Of one meaning in every version of YAML, unlike 12:30 and on.
_PLAIN = re.compile(r"[A-Za-z][\w./@-]*(?::[\w./@-]+)*", re.ASCII)
_NOT_TEXT = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def says(text: str) -> Any:
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


def changes(text: str, role: str, *, old: str, new: str) -> Iterator[str]:
    """Texts in which the role may have its new model and nothing else, the nearest ones first."""
    root = _tree(text)
    roles = root.below("models") if root else None
    entry = roles.below(role) if roles else None
    if root is None or entry is None:
        return
    if isinstance(entry.event, AliasEvent):
        yield _edited(text, [_own_mapping(entry, new)])
        return
    value = entry.below(KEY)
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
            if not merged or user.below(KEY) is None
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
    merged = f"{_MERGE}: *{alias.event.anchor}, {KEY}: {_scalar(model_name)}"
    return alias.start, alias.end, "{" + merged + "}"


def _added(text: str, entry: _Node, model_name: str) -> _Edit | None:
    """A key of its own before the others of a role that merges another one."""
    if not entry.inside:
        return None
    first = entry.inside[0].start
    own = f"{KEY}: {_scalar(model_name)}"
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
