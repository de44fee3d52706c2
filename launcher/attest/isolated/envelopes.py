"""DSSE envelopes of in-toto statements: written in one form, and read in that form alone."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from launcher.attest.exchange import AttestationFailed

_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_SHOWN_LETTERS = 12


def signed(statement: bytes, signer: CryptoSigner) -> str:
    """A statement's envelope with one signature: one line of JSON."""
    envelope = Envelope(statement, _PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return _text(envelope)


def verified(name: str, text: str, key: SSlibKey, key_name: str) -> bytes:
    """The payload of an envelope that this key has signed.

    The text has to be the one that `signed` writes. JSON and base64 can be written in many ways,
    and a change that no reader would see is a change.

    Raises:
        AttestationFailed: it is no envelope, is written otherwise, is signed by another key, the
            signature does not fit, or it is one of something else.
    """
    envelope = _read(name, text)
    if envelope is None or _text(envelope) != text:
        raise AttestationFailed.one(
            name, "is no envelope as ./invoke attest writes it: it is damaged, or was changed"
        )
    if envelope.payload_type != _PAYLOAD_TYPE:
        raise AttestationFailed.one(
            name, f"its payload is of the type {envelope.payload_type}, and not {_PAYLOAD_TYPE}"
        )
    if key.keyid not in envelope.signatures:
        others = ", ".join(keyid[:_SHOWN_LETTERS] for keyid in envelope.signatures)
        raise AttestationFailed.one(
            name,
            f"is signed by the key {others}, and {key_name} is the key "
            f"{key.keyid[:_SHOWN_LETTERS]}",
            "Verify it with the public key of the one who signed it.",
        )
    try:
        envelope.verify([key], threshold=1)
    except VerificationError:
        raise AttestationFailed.one(
            name, f"its signature by {key_name} does not fit: statement or signature were changed"
        ) from None
    try:
        check_statement(envelope.payload)
    except (ValueError, json_format.ParseError) as error:
        raise AttestationFailed.one(
            name, f"is signed, and what is signed is no in-toto statement: {error}"
        ) from None
    return bytes(envelope.payload)


def check_statement(payload: bytes) -> None:
    """See that in-toto's own classes take it.

    Raises:
        ValueError, ParseError: they do not.
    """
    statement = Statement("", "", {})
    statement.pb = json_format.Parse(payload, type(statement.pb)())
    statement.validate()


def _read(name: str, text: str) -> Envelope | None:
    try:
        data: dict[str, Any] = json.loads(text)
        return Envelope.from_dict(data)
    # Whatever else it is, it is none.
    except Exception:
        return None


def _text(envelope: Envelope) -> str:
    return json.dumps(envelope.to_dict(), sort_keys=True, separators=(",", ":")) + "\n"
