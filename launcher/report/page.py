"""What all pages have in common: one HTML file, no script, nothing from elsewhere, and every figure
with its value and where it is from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from contract.errors import UserError
from launcher.evaluate.intervals import Interval
from launcher.project import VERSION, shown
from launcher.report.charts import Axis
from launcher.report.language import Language
from launcher.runs.compared_inputs import is_digest

TEMPLATES = Path(__file__).parent / "templates"
Kind = Literal["report", "comparison"]

_BEGINNING_BYTES = 512
# What no page may hold as it is: control characters have no look, halves of letters no UTF-8.
_UNSEEN = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"}
_UNSEEN |= {0x7F: 0x2421, **dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000)], 0xFFFD)}


@dataclass(frozen=True)
class Page:
    """One of a kind, in a language."""

    kind: Kind
    language: Language

    def render(self, template: str, **values: object) -> str:
        """The document. The same values are the same text."""
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_seen,
            keep_trailing_newline=True,
        )
        environment.filters.update(integer=self.language.integer, json=_json)
        environment.tests["digest"] = is_digest
        environment.globals.update(
            css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
            generator=f"{_generator(self.kind)}{VERSION}",
            language=self.language,
            say=self.language.say,
            count=self.language.count,
            figure=self.figure,
            interval=self.interval,
            widest=self._widest,
        )
        text: str = environment.get_template(template).render(**values)
        return text

    def figure(self, value: float, form: str, of: str = "") -> Markup:
        """A number in a form of the language, with its value and its place in the records."""
        source = Markup(' data-of="{}"').format(of) if of else ""
        text = getattr(self.language, form)(value)
        return Markup('<data value="{}"{}>{}</data>').format(repr(value), source, text)

    def interval(self, found: Interval, form: str, of: str) -> Markup:
        """A mean and the ends of its interval."""
        ends = [
            self.figure(end, "bound", f"{of}.{at}") for at, end in ((1, found.low), (2, found.high))
        ]
        return Markup('{} <span class="interval">[{}, {}]</span>').format(
            self.figure(found.mean, form, f"{of}.0"), *ends
        )

    def _widest(self, axis: Axis) -> int:
        return max(len(self.language.decimal(axis.label(tick), axis.digits)) for tick in axis.ticks)


def check_place(path: Path, kind: Kind) -> None:
    """A page may be written there: nothing is, or a page of this kind.

    Raises:
        UserError: something else is, or there is no such folder.
    """
    if not path.parent.is_dir():
        raise UserError.one("--output", f"{path.parent} is no folder", "Make it first: mkdir -p.")
    if (path.exists() or path.is_symlink()) and f'"{_generator(kind)}' not in beginning(path):
        raise UserError.one(
            "--output", f"{shown(path)} exists and is no {kind}", "Choose another name."
        )


def beginning(path: Path) -> str:
    """The first lines of a page, which say its language and its kind; nothing where none lies."""
    try:
        with path.open("rb") as file:
            return file.read(_BEGINNING_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _generator(kind: Kind) -> str:
    # By which a page is known, and may be written over.
    return f"Affineur {kind} "


def _seen(value: object) -> object:
    """A text without what no page may hold; markup stays markup."""
    if isinstance(value, Markup):
        return Markup(str(value).translate(_UNSEEN))
    return value.translate(_UNSEEN) if isinstance(value, str) else value


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
