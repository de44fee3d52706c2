"""Which servers can serve which form of a model: known from versions, before anything is sent.

Ollama 0.34.1 took adapters out and says so in the middle of a create; before 0.30 a model without a
Go template got one that loses the conversation, and nothing says so.
"""

from __future__ import annotations

import re

from contract.errors import UserError
from contract.serving import Serving

# `files` in /api/create.
_FIRST = (0, 5, 5)
_READS_JINJA = (0, 30, 0)
_WITHOUT_ADAPTERS = (0, 34, 1)


def check_form(version: str, serving: Serving) -> None:
    """See that a server of this version serves the model in the form that the run made.

    Raises:
        UserError: it is too old or too new for it.
    """
    number = numbers(version)
    check_adapter(version, served=serving.adapter is not None)
    if number < _FIRST:
        raise _refusal(version, "is too old to accept a model's files over HTTP", "0.5.5 or newer")
    if serving.template is None and number < _READS_JINJA:
        raise _refusal(
            version,
            "supports only Go templates, which cannot express the base's chat template: "
            "conversations would be lost",
            "0.30 or newer",
        )


def check_templates(version: str, needs_template_engine: str | None) -> None:
    """See, before training, that a server of this version can write what the data have.

    Args:
        needs_template_engine: why Ollama's own template language cannot; None where it can.

    Raises:
        UserError: the server knows no other.
    """
    if needs_template_engine is not None and numbers(version) < _READS_JINJA:
        raise _refusal(
            version,
            f"supports only Go templates, and {needs_template_engine}: conversations would be lost",
            "0.30 or newer, or --ollama none to train without a server",
        )


def check_adapter(version: str, *, served: bool) -> None:
    """See that a server of this version takes adapters, where one is to be served.

    Raises:
        UserError: it is too new.
    """
    if served and numbers(version) >= _WITHOUT_ADAPTERS:
        raise UserError.one(
            "Ollama",
            f"this server ({version}) no longer supports adapters",
            "Serve the merged model: --set serving=merged.",
        )


def numbers(version: str) -> tuple[int, ...]:
    """`0.34.1-rc2` as (0, 34, 1); what is no version counts as newer than all."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return tuple(int(part) for part in found.groups()) if found else (10**6,)


def _refusal(version: str, what: str, take: str) -> UserError:
    return UserError.one("Ollama", f"this server ({version}) {what}", f"Use Ollama {take}.")
