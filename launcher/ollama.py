"""Ask whether an Ollama server answers, and which one. The import itself is not here yet."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request

_DEFAULT_PORT = 11434
_PATIENCE_S = 0.5


def address() -> str:
    """Where the server is looked for: `OLLAMA_HOST` in Ollama's own forms, or its default."""
    given = os.environ.get("OLLAMA_HOST", "").strip()
    scheme, found, rest = given.partition("://")
    if not found:
        scheme, rest = "http", given
    host, _, port = rest.rstrip("/").partition(":")
    # A server told to listen everywhere is reached here.
    host = "127.0.0.1" if host in ("", "0.0.0.0") else host
    return f"{scheme}://{host}:{port or _DEFAULT_PORT}"


def server_version() -> str | None:
    """The version of the server at `address()`, or None where none answers."""
    try:
        with urllib.request.urlopen(f"{address()}/api/version", timeout=_PATIENCE_S) as answer:
            return str(json.load(answer)["version"])
    except (urllib.error.URLError, OSError, ValueError, KeyError):
        return None
