"""Check an envelope's form and signature.

Run as `python -m launcher.attest.isolated.check_envelope`.
"""

from __future__ import annotations

from launcher.attest.exchange import CheckEnvelope, EnvelopeChecked
from launcher.attest.isolated import envelopes, keys
from launcher.attest.isolated.process import answer


def check(request: CheckEnvelope) -> EnvelopeChecked:
    """What was signed.

    Raises:
        UserError: the key cannot be used.
        AttestationFailed: the envelope is damaged, of another key, or its signature is wrong.
    """
    key = keys.public_key(request.key)
    payload = envelopes.verified(request.name, request.envelope, key, str(request.key))
    return EnvelopeChecked(statement=payload.decode(), keyid=key.keyid)


if __name__ == "__main__":
    answer(CheckEnvelope, check)
