"""Write a Modelfile that Ollama's parser reads as it was meant.

The parser (https://github.com/ollama/ollama/blob/main/parser/parser.go) unescapes nothing. A value
in quotes, of one or of three, ends where a line does that ends with them; everything up to there is
taken as it stands, quotes included. But characters that Go does not print are dropped from the
whole file: no-break and thin spaces, joiners, marks of direction. A server that gets the same text
by HTTP keeps them.
"""

from __future__ import annotations

import re
import unicodedata

from contract.errors import UserError
from contract.serving import Serving

_THREE = '"""'


def modelfile_text(name: str, serving: Serving) -> str:
    """The Modelfile's lines; FROM is relative to the file itself.

    Raises:
        UserError: a text that no Modelfile can say.
    """
    lines = [
        f"# {name}, made by Affineur. To import it:",
        f"#   ollama create {name} -f Modelfile",
        *(f"# {note}" for note in losses(serving)),
        f"FROM ./{serving.gguf}",
    ]
    if serving.adapter is not None:
        lines.append(f"ADAPTER ./{serving.adapter}")
    if serving.template is not None:
        lines.append(f"TEMPLATE {_in_three_quotes('TEMPLATE', serving.template)}")
    if serving.system:
        lines.append(f"SYSTEM {_in_three_quotes('SYSTEM', serving.system)}")
    for parameter, value in serving.parameters.items():
        if isinstance(value, list):
            lines += [f"PARAMETER {parameter} {_quoted(parameter, text)}" for text in value]
        else:
            lines.append(f"PARAMETER {parameter} {value}")
    return "\n".join(lines) + "\n"


def losses(serving: Serving) -> list[str]:
    """What Ollama drops of this Modelfile's texts, a sentence for each."""
    stops = serving.parameters.get("stop")
    texts = {
        "TEMPLATE": serving.template or "",
        "SYSTEM": serving.system or "",
        "PARAMETER stop": "".join(stops) if isinstance(stops, list) else "",
    }
    found = {
        what: sorted({char for char in text if not is_kept(char)}) for what, text in texts.items()
    }
    return [
        f"ollama create drops {', '.join(f'U+{ord(char):04X}' for char in dropped)} from {what}; "
        "./invoke import keeps the text whole."
        for what, dropped in found.items()
        if dropped
    ]


def is_kept(char: str) -> bool:
    """Whether Ollama's parser keeps a character: what Go prints, and what breaks a line."""
    return char in " \t\r\n" or unicodedata.category(char)[0] in "LMNPS"


def can_be_said(text: str) -> bool:
    """Whether a Modelfile can say the text: no line but its last one may end with three quotes."""
    said = _THREE + "".join(filter(is_kept, text))
    ends = (said[: newline.start()].strip() for newline in re.finditer(r"[\r\n]", said))
    return not any(end.endswith(_THREE) and len(end) >= 2 * len(_THREE) for end in ends)


def _quoted(what: str, text: str) -> str:
    return _in_three_quotes(what, text) if re.search(r'["\r\n]', text) else f'"{text}"'


def _in_three_quotes(what: str, text: str) -> str:
    if not can_be_said(text):
        raise UserError.one(
            f"Modelfile: {what}",
            'a line of it ends with """, which Ollama takes for the end of all of it',
            "Put something behind the quotes, or break the line elsewhere.",
        )
    return _THREE + text + _THREE
