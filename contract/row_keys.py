"""A row or a turn as it is read: what was read of it, and why it cannot be."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from contract import exact_json


class BadRow(ValueError):
    """Why a row cannot be read, and the remedy. The caller knows where the row is.

    Attributes:
        remedy: for a dataset; where `columns` says something, with the flags that say it.
        columns: our name for a column -> its own: the mapping that would make the row readable.
    """

    def __init__(
        self, what: str, remedy: str = "", columns: Mapping[str, str] | None = None
    ) -> None:
        """`remedy` is followed by the flags for `columns`, if there are any."""
        super().__init__(what)
        self.what = what
        self.columns = dict(columns or {})
        flags = [f"--set columns.{ours}={theirs}" for ours, theirs in self.columns.items()]
        if any(shlex.quote(theirs) != theirs for theirs in self.columns.values()):
            flags = [f'--set "{flag.removeprefix("--set ")}"' for flag in flags]
        self.remedy = f"{remedy}: {' '.join(flags)}." if flags else remedy

    @property
    def remedy_without_flags(self) -> str:
        """The remedy where no flag can map columns."""
        renamed = [f"{theirs} to {ours}" for ours, theirs in self.columns.items() if theirs != ours]
        return f"Rename its columns: {', '.join(renamed)}." if renamed else self.remedy


class Keys:
    """A mapping that remembers which of its keys were read."""

    def __init__(self, values: Mapping[str, Any], called: Mapping[str, str] | None = None) -> None:
        """Nothing is read yet.

        Args:
            values: by our names.
            called: our name -> the file's, where they differ.
        """
        self._values = values
        self._called = called or {}
        self._read: set[str] = set()
        self._unread: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return not exact_json.is_missing(self._values.get(name))

    def name(self, ours: str) -> str:
        """What the file calls it."""
        return self._called.get(ours, ours)

    def names(self) -> Iterable[str]:
        """All keys, as the file calls them."""
        return [self.name(str(key)) for key in self._values]

    def peek(self, name: str) -> Any:
        """Its value without reading it; None where it is missing."""
        value = self._values.get(name)
        return None if exact_json.is_missing(value) else value

    def read(self, name: str) -> Any:
        """Its value; None where it is missing."""
        self._read.add(name)
        return self.peek(name)

    def text(self, name: str) -> str:
        """Its value as text, empty where it is missing."""
        value = self.read(name)
        return "" if value is None else text_of(value, self.name(name))

    def pass_over(self, shadowed: Mapping[str, Any]) -> None:
        """List these keys as unread, whatever is read under their names."""
        self._unread.update(str(key) for key, value in shadowed.items() if not _is_empty(value))

    def note_unread(self, prefix: str, inner: Keys) -> None:
        """List what was not read of a part of the value, as `prefix.key`."""
        self._unread.update(f"{prefix}.{key}" for key in inner.unread())

    def unread(self) -> frozenset[str]:
        """The keys that have a value and were not read, as the file calls them."""
        return frozenset(self._unread).union(
            self.name(str(key))
            for key, value in self._values.items()
            if key not in self._read and not _is_empty(value)
        )


def _is_empty(value: Any) -> bool:
    return exact_json.is_missing(value) or (
        isinstance(value, str | list | tuple | Mapping) and not value
    )


def text_of(value: Any, where: str) -> str:
    """Text as it is; everything else as JSON (exporters put whole documents in `input`).

    Raises:
        BadRow: it has no text.
    """
    if isinstance(value, str):
        return value
    try:
        if isinstance(value, Mapping | list | tuple):
            return exact_json.dumps(value)
        return exact_json.scalar_text(value)
    except ValueError as error:
        raise BadRow(f"{where} {error}") from None


def parsed(text: str, where: str) -> Any:
    """The value of a JSON text inside a row.

    Raises:
        BadRow: it is none, or has a flaw.
    """
    try:
        value = exact_json.loads(text)
    except json.JSONDecodeError as error:
        raise BadRow(f"{where} is not valid JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        value = exact_json.TOO_DEEP
    if flaw := exact_json.flaw(value):
        raise BadRow(f"{where} {flaw.what}", flaw.remedy)
    return value
