"""Standard output and standard error on a terminal that cannot show every character.

Bars, marks and arrows become what ASCII has, and any other character its number, so that no text
ends a command: on a Latin-1 or ASCII terminal, or where a file's name is no UTF-8.
"""

from __future__ import annotations

import codecs
import io
import sys

_NAME = "affineur.degrade"
_IN_ASCII = {
    **dict(zip("▁▂▃▄▅▆▇█▏", "_.-:=+*#|", strict=True)),
    **dict(zip("│┆└─━╸╺●○·•✓✗×", "|:+----*o--+xx", strict=True)),
    **dict(zip("‘’“”–—\u00a0\u202f", "''\"\"--  ", strict=True)),
    "→": "->",
    "←": "<-",
    "…": "...",
    "≤": "<=",
    "≥": ">=",
    "✅": "+",
    "❌": "x",
    "❔": "?",
}
# The pictures of rich's spinner.
_BRAILLE = range(0x2800, 0x2900)


def degrade_output() -> None:
    """From now on, write what standard output and error cannot encode in ASCII instead."""
    codecs.register_error(_NAME, _degrade)
    for stream in (sys.stdout, sys.stderr):
        # A test or a notebook may have put something else there.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_NAME)


def _degrade(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    refused = error.object[error.start : error.end]
    return "".join(_in_ascii(character) for character in refused), error.end


def _in_ascii(character: str) -> str:
    if ord(character) in _BRAILLE:
        return "*"
    known = _IN_ASCII.get(character)
    return character.encode("ascii", "backslashreplace").decode() if known is None else known
