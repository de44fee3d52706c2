"""Names of models, as Ollama reads them: https://github.com/ollama/ollama, types/model/name.go.

One model has several names: without and with what is understood (`m`, `library/m:latest`), and in
either case of letters, since a server takes the name that is there for one that is written
otherwise (`getExistingName`). Two names that mean one model must never count as two.
"""

from __future__ import annotations

import re

from contract.errors import UserError

_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
# Of a namespace, a model and a tag alike, in 0.6.5 as in 0.34.1.
_LONGEST = 80
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)


def full_name(model: str) -> str:
    """The name as a server lists it: with its tag, less the parts that Ollama leaves out."""
    place, _, last = model.rpartition("/")
    tagged = last if ":" in last else f"{last}:{_TAG}"
    parts = [part for part in place.split("/") if part]
    if len(parts) == 2 and parts[0].casefold() == _HOST:
        parts = parts[1:]
    if len(parts) == 1 and parts[0].casefold() == _NAMESPACE:
        parts = []
    return "/".join([*parts, tagged])


def canonical(model: str) -> str:
    """The same for all names of one model."""
    return full_name(model).casefold()


def check_name(model: str) -> None:
    """See that a server takes the name, before anything is sent to it.

    Raises:
        UserError: it would refuse it.
    """
    place, _, last = model.rpartition("/")
    parts = [*place.split("/")[-1:], *last.split(":")] if place else last.split(":")
    if len(last.split(":")) > 2 or not all(_PART.fullmatch(part) for part in parts):
        raise UserError.one(
            "Ollama",
            f"{model!r} is not a valid model name",
            "Use another output_model_name: letters, digits, '-', '_' and '.'.",
        )
    if any(len(part) > _LONGEST for part in parts):
        raise UserError.one(
            "Ollama",
            f"{model} is too long a model name",
            f"Use another output_model_name: each of its parts may have {_LONGEST} characters.",
        )
