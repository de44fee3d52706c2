"""What the launcher asks of the environment `attest`, and what it is answered: JSON on standard
input and output, each a model from here. Both sides import it, so it needs pydantic alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from contract.errors import ExitCode, UserError
from contract.record import Record


class AttestationFailed(UserError):
    """A check of an attestation that failed: what is wrong, and where. Exit code 3."""

    exit_code = ExitCode.GATE_REFUSED


class MakeKey(Record):
    """Make a key pair: neither file may exist. `passphrase` encrypts the private one."""

    private: Path
    public: Path
    passphrase: str | None


class KeyMade(Record):
    """The new key's id, as envelopes name it."""

    keyid: str


class Sign(Record):
    """Put a statement into a signed envelope. `statement` is its text, as it is to be signed."""

    statement: str
    key: Path
    passphrase: str | None


class Signed(Record):
    """The envelope's text, one line, and the id of the key that signed it."""

    envelope: str
    keyid: str


class CheckEnvelope(Record):
    """Check an envelope's form and signature by a public key. `name` is the envelope's."""

    name: str
    envelope: str
    key: Path


class EnvelopeChecked(Record):
    """What was signed: the statement's text, and the id of the key."""

    statement: str
    keyid: str


class SignModel(Record):
    """Sign files of a folder in OpenSSF's form for models; `signature` is written anew."""

    folder: Path
    files: list[str]
    signature: Path
    key: Path
    passphrase: str | None


class ModelSigned(Record):
    """Whether it was done: OpenSSF's form takes ECDSA keys alone."""

    signed: bool


class CheckModel(Record):
    """Check the files of a folder by such a signature, made with the public key's other half."""

    folder: Path
    signature: Path
    key: Path


class ModelChecked(Record):
    """The signature fits, and the files are as they were signed."""


class Metric(Record):
    """A measured figure: what was measured, its value, and on what."""

    type: str
    value: str
    slice: str | None = None


class ModelCard(Record):
    """CycloneDX's card of a model.

    Attributes:
        datasets: the references of the parts that it was trained and measured on.
    """

    architecture: str | None = None
    datasets: list[str] = Field(default_factory=list)
    metrics: list[Metric] = Field(default_factory=list)


class Part(Record):
    """A component of a bill of materials.

    Attributes:
        ref: by which others refer to it.
        sha256: of the one file that it is.
        archives: the digests of packages of it; each installation takes one of them.
        properties: our own, by name.
        parts: what it consists of.
    """

    ref: str
    kind: Literal["machine-learning-model", "data", "library", "file", "application", "container"]
    name: str
    version: str | None = None
    description: str | None = None
    purl: str | None = None
    sha256: str | None = None
    archives: list[str] = Field(default_factory=list)
    properties: dict[str, str] = Field(default_factory=dict)
    parts: list[Part] = Field(default_factory=list)
    card: ModelCard | None = None


class WriteBom(Record):
    """Write a bill of materials. `serial_number` is a UUID; `depends_on` has references of parts.

    Attributes:
        subject: what it is of.
        tool: what wrote it.
    """

    serial_number: str
    created: str
    subject: Part
    tool: Part
    parts: list[Part]
    depends_on: dict[str, list[str]]


class BomWritten(Record):
    """The bill of materials in JSON, compared with the schema of CycloneDX 1.6."""

    document: str
