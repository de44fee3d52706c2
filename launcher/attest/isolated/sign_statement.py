"""Put a statement into a signed DSSE envelope.

Run as `python -m launcher.attest.isolated.sign_statement`.
"""

from __future__ import annotations

from launcher.attest.exchange import Sign, Signed
from launcher.attest.isolated import envelopes, keys
from launcher.attest.isolated.process import answer


def sign(request: Sign) -> Signed:
    """The envelope.

    Raises:
        UserError: the key cannot be used.
    """
    signer = keys.signer(request.key, request.passphrase)
    envelopes.check_statement(request.statement.encode())
    return Signed(
        envelope=envelopes.signed(request.statement.encode(), signer),
        keyid=signer.public_key.keyid,
    )


if __name__ == "__main__":
    answer(Sign, sign)
