"""Check files by a signature in OpenSSF's form for models.

Run as `python -m launcher.attest.isolated.check_model`.
"""

from __future__ import annotations

from model_signing import verifying

from launcher.attest.exchange import AttestationFailed, CheckModel, ModelChecked
from launcher.attest.isolated.process import answer


def check(request: CheckModel) -> ModelChecked:
    """See that the signature fits, and that the files are as they were signed.

    Raises:
        AttestationFailed: it does not, or they are not.
    """
    config = verifying.Config().use_elliptic_key_verifier(public_key=request.key)
    try:
        config.set_ignore_unsigned_files(True).verify(request.folder, request.signature)
    # Of damaged signatures, its libraries raise whatever meets them first.
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise AttestationFailed.one(
            str(request.signature), f"does not fit by OpenSSF model signing: {said}"
        ) from None
    return ModelChecked()


if __name__ == "__main__":
    answer(CheckModel, check)
