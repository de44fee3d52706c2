"""Files of keys: what they are, and the passphrase of a private one."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from contract.errors import UserError
from launcher.display import Display

PASSPHRASE = "AFFINEUR_KEY_PASSPHRASE"
_OTHERS_MAY = 0o077


def check_key(key: Path, where: str) -> None:
    """See that there is a file to read.

    Raises:
        UserError: there is none.
    """
    if not key.is_file():
        raise UserError.one(where, f"there is no file {key}", "Make a key: ./invoke make-key FILE.")


def passphrase_of(key: Path, display: Display) -> str | None:
    """The passphrase of a private key, from the environment or a person; None where it has none.

    It is never taken from the command's words, which every process of the machine can read.

    Raises:
        UserError: there is no such file, or nobody to ask.
    """
    check_key(key, "--key")
    if key.stat().st_mode & _OTHERS_MAY:
        display.note(f"{key} can be read by others on this machine: chmod 600 {key}")
    if b"ENCRYPTED" not in key.read_bytes():
        return None
    if given := os.environ.get(PASSPHRASE):
        return given
    if not sys.stdin.isatty():
        raise UserError.one(
            "--key",
            f"{key} is encrypted, and there is no terminal to ask for its passphrase",
            f"Set {PASSPHRASE}, or run the command in a terminal.",
        )
    return getpass.getpass(f"Passphrase of {key}: ")


def new_passphrase(key: Path) -> str | None:
    """A passphrase for a new private key; None where a person wants none, or nobody is there.

    Raises:
        UserError: what was typed twice is not the same.
    """
    if given := os.environ.get(PASSPHRASE):
        return given
    if not sys.stdin.isatty():
        return None
    typed = getpass.getpass(f"Passphrase for {key} (empty: none): ")
    if typed and getpass.getpass("The same again: ") != typed:
        raise UserError.one("passphrase", "the two are not the same", "Run the command again.")
    return typed or None
