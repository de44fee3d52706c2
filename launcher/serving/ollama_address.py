"""Where the Ollama server is looked for: `OLLAMA_HOST`, read as Ollama reads it."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from contract.errors import UserError

_OLLAMA_PORT = 11434
_SCHEME_PORTS = {"http": 80, "https": 443}


def address() -> str:
    """Where the server is looked for: `OLLAMA_HOST` in Ollama's own forms, or its default.

    Its rules: https://github.com/ollama/ollama/blob/main/envconfig/config.go (`Host`).

    Raises:
        UserError: it is no address.
    """
    given = os.environ.get("OLLAMA_HOST", "").strip().strip("\"'")
    scheme, found, rest = given.partition("://")
    if not found:
        scheme, rest = "http", given
    standard = _SCHEME_PORTS.get(scheme) if found else _OLLAMA_PORT
    place, _, path = rest.partition("/")
    user, at, place = place.rpartition("@")
    # An address of IPv6 may stand without brackets where no port is behind it.
    if place.count(":") > 1 and not place.startswith("["):
        place = f"[{place}]"
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        standard = None
    if standard is None:
        raise UserError.one(
            "OLLAMA_HOST",
            f"{given} is not an address of a server",
            "For example: 127.0.0.1:11434, or https://ollama.example.org.",
        )
    # A server told to listen everywhere is reached here.
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    named = f"[{host}]" if ":" in host else host
    return f"{scheme}://{user}{at}{named}:{standard if port is None else port}/{path}".rstrip("/")
