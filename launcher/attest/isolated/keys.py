"""Key pairs in PEM: made, and read. Run as `python -m launcher.attest.isolated.keys`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from securesystemslib.signer import CryptoSigner, SSlibKey

from contract.errors import UserError
from launcher.attest.exchange import KeyMade, MakeKey
from launcher.attest.isolated.process import answer

_KINDS = "Ed25519 and ECDSA keys on the curve P-256 are taken"
_REMEDY = "Make one: ./invoke make-key FILE."


def make(request: MakeKey) -> KeyMade:
    """Make an ECDSA key pair on P-256, which both forms of signature take.

    Raises:
        UserError: one of the files exists.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if request.passphrase is not None:
        encryption = serialization.BestAvailableEncryption(request.passphrase.encode())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for path in (request.private, request.public):
        if path.exists() or path.is_symlink():
            raise UserError.one(str(path), "already exists", "Choose another name for the key.")
    # Nobody else's from the start, and never over a key that is there.
    _write_new(request.private, private, 0o600)
    _write_new(request.public, public, 0o644)
    return KeyMade(keyid=SSlibKey.from_crypto(key.public_key()).keyid)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def private_key(path: Path, passphrase: str | None) -> Any:
    """A private key; its library's own type.

    Raises:
        UserError: it is none, of another kind, or the passphrase is wrong.
    """
    secret = passphrase.encode() if passphrase is not None else None
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if secret is not None:
            raise UserError.one(str(path), "does not open with this passphrase") from error
        raise UserError.one(str(path), "is no private key in PEM form", _REMEDY) from error
    _check_kind(path, key.public_key())
    return key


def signer(path: Path, passphrase: str | None) -> CryptoSigner:
    """What signs with a private key.

    Raises:
        UserError: as `private_key`.
    """
    return CryptoSigner(private_key(path, passphrase))


def public_key(path: Path) -> SSlibKey:
    """A public key, which knows its id.

    Raises:
        UserError: it is none, or of another kind.
    """
    text = path.read_bytes()
    try:
        key = serialization.load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm) as error:
        secret = b"PRIVATE KEY" in text
        what = "is the private key" if secret else "is no public key in PEM form"
        raise UserError.one(
            str(path),
            what,
            f"Give the public one, which ./invoke make-key wrote as {path}.pub." if secret else "",
        ) from error
    _check_kind(path, key)
    return SSlibKey.from_crypto(key)


def _check_kind(path: Path, key: object) -> None:
    curve = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else None
    if curve != ec.SECP256R1.name and not isinstance(key, ed25519.Ed25519PublicKey):
        raise UserError.one(str(path), f"is a key of another kind: {_KINDS}", _REMEDY)


if __name__ == "__main__":
    answer(MakeKey, make)
