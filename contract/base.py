"""Which base model is asked for, and which one it turned out to be."""

from __future__ import annotations

from typing import Literal

from contract.record import Record

# The name under which the embedded smoke base is asked for.
SMOKE = "smoke"
# The named bases whose GGUF files transformers reads back exactly (Llama, with its vocabulary
# whole): their runs start on a machine that has none of llama.cpp's compiled tools.
READ_BACK_BY_TRANSFORMERS = (SMOKE, "smollm2-135m-instruct")


class GgufRequest(Record):
    """The GGUF file that a base is read from.

    Attributes:
        sha256: the file's digest.
        stops: what ends its answers beside its own ends, as text.
    """

    sha256: str
    stops: list[str]


class BaseRequest(Record):
    """What the `base` stage is asked to put into the cache.

    `repository` is on the Hub, or says where the GGUF file came from, or is `SMOKE`.
    """

    kind: Literal["smoke", "hub", "gguf"]
    repository: str
    revision: str | None
    gguf: GgufRequest | None = None


class GgufIdentity(Record):
    """The GGUF file that a base was read from, and what its weights were rounded to."""

    sha256: str
    architecture: str
    weight_type: str
    bits_per_weight: float


class BaseIdentity(Record):
    """Which base model: its source, the revision that was pinned, the digests of its files.

    `gguf` is None where the base was not read from a GGUF file.
    """

    source: str
    revision: str | None
    digest: str
    files: dict[str, str]
    gguf: GgufIdentity | None = None
