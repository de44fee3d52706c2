"""What a server reports of a model, compared with what was sent to it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from contract import paths
from contract.chat_format import ChatFormat
from launcher.pipeline.model_files import ModelFiles
from launcher.serving.compatibility import numbers
from launcher.serving.ollama_server import OllamaServer


def differences(server: OllamaServer, model: str, files: ModelFiles) -> list[str]:
    """Everything in which the server's report of a model is not what was sent."""
    serving = files.serving
    reported = server.show(model)
    found = []

    def compare(what: str, sent: Any, said: Any) -> None:
        if sent != said:
            found.append(f"{what}: {_short(said)} instead of {_short(sent)}")

    # From 0.30 to 0.33 servers write the files anew, under other digests.
    if not (0, 30) <= numbers(server.version)[:2] <= (0, 33):
        layers = re.findall(
            r"^(?:FROM|ADAPTER) .*sha256[-:]([0-9a-f]{64})",
            reported.get("modelfile") or "",
            re.MULTILINE,
        )
        sent = [blob.removeprefix("sha256:") for blob in files.blobs.values()]
        compare("files", sent, layers)
    # From 0.34 on, servers take the GGUF's own template where it can do more, and report that one.
    if serving.template is not None and reported.get("template") != _own_template(files):
        compare("template", serving.template, reported.get("template"))
    compare("system prompt", serving.system or "", reported.get("system") or "")
    compare("parameters", _canonical(serving.parameters), _read_parameters(reported))
    return found


def _own_template(files: ModelFiles) -> str | None:
    path = files.folder / paths.CHAT_FORMAT
    return ChatFormat.read(path).template if path.exists() else None


def _canonical(parameters: Mapping[str, Any]) -> dict[str, list[str]]:
    return {
        name: sorted(value if isinstance(value, list) else [str(float(value))])
        for name, value in parameters.items()
    }


def reported_parameters(reported: Mapping[str, Any]) -> dict[str, list[str]]:
    """The lines `name   value` of `/api/show`, each value as text."""
    found: dict[str, list[str]] = {}
    for line in str(reported.get("parameters") or "").splitlines():
        name, _, value = line.strip().partition(" ")
        found.setdefault(name, []).append(_unquoted(value.strip()))
    return found


def _unquoted(value: str) -> str:
    """The value; strings are quoted as Go does."""
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        # Some of Go's escapes JSON does not have.
        return value[1:-1]


def _read_parameters(reported: Mapping[str, Any]) -> dict[str, list[str]]:
    """Those of a model of ours, whose values are numbers and strings."""
    return {
        name: sorted(values if name == "stop" else [str(float(value)) for value in values])
        for name, values in reported_parameters(reported).items()
    }


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
