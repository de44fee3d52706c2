"""Sign files of a run in OpenSSF's form for models, offline, with a key.

Run as `python -m launcher.attest.isolated.sign_model`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing, signing

from launcher.attest.exchange import ModelSigned, SignModel
from launcher.attest.isolated import keys
from launcher.attest.isolated.process import answer


def sign(request: SignModel) -> ModelSigned:
    """Write the signature, where the key is one that the form takes.

    It is of the named files alone; what else lies in the folder is left out, and a verifier is told
    so (`--ignore_unsigned_files`).

    Raises:
        UserError: the key cannot be used.
    """
    key = keys.private_key(request.key, request.passphrase)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return ModelSigned(signed=False)
    others = list(_others(request.folder, [request.folder / name for name in request.files]))
    form = hashing.Config().set_ignored_paths(paths=others, ignore_git_paths=True)
    # It says that it takes a text, and hands on to what takes bytes.
    secret: Any = request.passphrase.encode() if request.passphrase is not None else None
    signer = signing.Config().use_elliptic_key_signer(private_key=request.key, password=secret)
    signer.set_hashing_config(form).sign(request.folder, request.signature)
    return ModelSigned(signed=True)


def _others(folder: Path, wanted: Iterable[Path]) -> Iterator[Path]:
    """What lies in the folder and is none of these: whole folders where they hold none of them."""
    for entry in sorted(folder.iterdir()):
        inside = [path for path in wanted if path.is_relative_to(entry)]
        if not inside:
            yield entry
        elif entry not in inside:
            yield from _others(entry, inside)


if __name__ == "__main__":
    answer(SignModel, sign)
