"""What a report says in a language: its sentences, and how numbers, sizes and dates are written.

The sentences are in `strings/`, a file a language with the same keys in all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup
from ruamel.yaml import YAML

from contract.errors import UserError, unknown_name
from launcher.display import duration

_STRINGS = Path(__file__).parent / "strings"
LANGUAGES = ("en", "fr")

_NO_BREAK = "\u00a0"
_NARROW = "\u202f"
_MINUS = "\u2212"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SIZES = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
# Smaller and larger ones are written with a power of ten.
_LEAST_PLAIN, _MOST_PLAIN = 1e-3, 1e7
_PLAIN_DIGITS = 3


@dataclass(frozen=True)
class _Forms:
    """How a language writes numbers; `zero_is_one`: nothing is counted in the singular."""

    point: str
    group: str
    before_percent: str
    byte: str
    zero_is_one: bool


_FORMS = {
    "en": _Forms(point=".", group=",", before_percent="", byte="B", zero_is_one=False),
    "fr": _Forms(point=",", group=_NARROW, before_percent=_NARROW, byte="o", zero_is_one=True),
}


@dataclass(frozen=True)
class Language:
    """One language's sentences and forms."""

    code: str
    sentences: Mapping[str, str]

    @classmethod
    def read(cls, code: str) -> Language:
        """The language of this code.

        Raises:
            UserError: a report is not written in it.
        """
        if code not in LANGUAGES:
            raise UserError([unknown_name(code, LANGUAGES, kind="language", where="--language")])
        text = (_STRINGS / f"{code}.yaml").read_text(encoding="utf-8")
        return cls(code, YAML(typ="safe", pure=True).load(text))

    @property
    def _forms(self) -> _Forms:
        return _FORMS[self.code]

    def say(self, key: str, /, **words: object) -> Markup:
        """A sentence, with each word in its `{place}`; what is no markup is escaped."""
        return Markup.escape(self.sentences[key]).format(**words)

    def named(self, family: str, name: str) -> str:
        """The sentence for what records call so, as `figure_training_speed`; else the name."""
        return self.sentences.get(family + re.sub(r"\W+", "_", name).strip("_"), name)

    def count(self, key: str, number: int, /, **words: object) -> Markup:
        """The sentence `key_one` or `key_other`, as the number asks for."""
        one = number == 1 or (number == 0 and self._forms.zero_is_one)
        return self.say(f"{key}_{'one' if one else 'other'}", **words)

    def integer(self, number: int) -> str:
        """`12,345`."""
        return self.decimal(number, 0)

    def decimal(self, number: float, digits: int = _PLAIN_DIGITS) -> str:
        """`1,234.500`: with so many digits behind the point."""
        if not math.isfinite(number):
            return "NaN" if math.isnan(number) else "∞" if number > 0 else f"{_MINUS}∞"
        text = f"{abs(number):,.{digits}f}"
        sign = _MINUS if number < 0 and any(letter in "123456789" for letter in text) else ""
        forms = {",": self._forms.group, ".": self._forms.point}
        return sign + "".join(forms.get(letter, letter) for letter in text)

    def plain(self, number: int) -> str:
        """A name that is a number, such as a seed."""
        return str(number)

    def loss(self, number: float) -> str:
        """`0.407`."""
        return self.decimal(number, 3)

    def rate(self, number: float) -> str:
        """`371.5`: of something a second."""
        return self.decimal(number, 1)

    def share(self, number: float) -> str:
        """`90.0%`."""
        return f"{self.decimal(100 * number, 1)}{self._forms.before_percent}%"

    def points(self, number: float) -> str:
        """`82.5`: a share of a full score, in hundredths."""
        return self.decimal(100 * number, 1)

    def bound(self, number: float) -> str:
        """`83`: the end of an interval, in hundredths."""
        return self.decimal(100 * number, 0)

    def gain(self, number: float) -> str:
        """`+82.5`: a difference of scores, in hundredths."""
        return f"{'+' if number >= 0 else ''}{self.points(number)}"

    def general(self, number: float) -> str:
        """Three digits that matter, without zeros behind them: `0.002`, `3.5`, `2×10⁻⁴`."""
        if number == 0 or not math.isfinite(number):
            return self.decimal(number, 0)
        if _LEAST_PLAIN <= abs(number) < _MOST_PLAIN:
            exponent = math.floor(math.log10(abs(number)))
            text = self.decimal(number, max(0, _PLAIN_DIGITS - 1 - exponent))
            return text.rstrip("0").rstrip(self._forms.point) if exponent < 2 else text
        mantissa, _, power = f"{number:.2e}".partition("e")
        return f"{self.general(float(mantissa))}{self.power_of_ten(int(power))}"

    def power_of_ten(self, exponent: int) -> str:
        """`×10⁻⁴`."""
        return f"{_NARROW}×{_NARROW}10{str(exponent).translate(_SUPERSCRIPTS)}"

    def size(self, size_bytes: int) -> str:
        """`1.1 GB`, in French `1,1 Go`."""
        for factor, prefix in _SIZES:
            if size_bytes >= factor:
                return (
                    f"{self.decimal(size_bytes / factor, 1)}{_NO_BREAK}{prefix}{self._forms.byte}"
                )
        return f"{self.integer(size_bytes)}{_NO_BREAK}{self._forms.byte}"

    def duration(self, seconds: float) -> str:
        """`0.4 s`, `47 s`, `3 min 05 s`, `2 h 10 min`, as the terminal has it."""
        text = duration(seconds).replace(".", self._forms.point)
        return re.sub(r"(?<=\d) ", _NO_BREAK, text)

    def date(self, moment: str) -> str:
        """`27 November 2026, 17:42 UTC`, of a moment in ISO's form; another text as it is."""
        try:
            found = datetime.fromisoformat(moment).astimezone(UTC)
        except ValueError:
            return moment
        month = self.sentences["months"].split()[found.month - 1]
        return self.sentences["moment"].format(
            day=found.day, month=month, year=found.year, hour=found.hour, minute=f"{found:%M}"
        )
