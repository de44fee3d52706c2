"""Read the header of a GGUF file, with the standard library alone, and say what speaks against it.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The header has the model's
settings and the place of every tensor, so a file that is cut, or that is no whole model, is known
before anything else is done with it.
"""

from __future__ import annotations

import math
import os
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from contract.errors import UserError

_MAGIC = b"GGUF"
# 1 counted in 32 bits, and no file of today has it.
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
# Number of a settings' type -> its form for `struct`.
_SCALARS = {
    **{0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?"},
    **{10: "<Q", 11: "<q", 12: "<d"},
}
# More than any file has: what is read is no header.
_MAX_ENTRIES = 1_000_000
_MAX_STRING_BYTES = 64 << 20
_MAX_DIMENSIONS = 4
_DEFAULT_ALIGNMENT = 32
_MAX_ALIGNMENT = 1 << 30
_MAX_ARRAY_DEPTH = 4


class TensorType(NamedTuple):
    """How ggml stores weights: `size_bytes` for each `block` of them."""

    name: str
    block: int
    size_bytes: int


# By ggml's numbers: the types that the gguf package can turn into numbers again.
TENSOR_TYPES = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    10: TensorType("Q2_K", 256, 84),
    11: TensorType("Q3_K", 256, 110),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    16: TensorType("IQ2_XXS", 256, 66),
    17: TensorType("IQ2_XS", 256, 74),
    18: TensorType("IQ3_XXS", 256, 98),
    19: TensorType("IQ1_S", 256, 50),
    20: TensorType("IQ4_NL", 32, 18),
    21: TensorType("IQ3_S", 256, 110),
    22: TensorType("IQ2_S", 256, 82),
    23: TensorType("IQ4_XS", 256, 136),
    29: TensorType("IQ1_M", 256, 56),
    30: TensorType("BF16", 1, 2),
    34: TensorType("TQ1_0", 256, 54),
    35: TensorType("TQ2_0", 256, 66),
    39: TensorType("MXFP4", 32, 17),
    40: TensorType("NVFP4", 64, 36),
}
# How llama.cpp and Ollama begin the names of tensors that read images and sound.
_OTHER_SENSES = ("v.", "a.", "mm.")
# Those that hold each weight by itself.
PLAIN_TYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file; `type_number` is ggml's."""

    name: str
    shape: tuple[int, ...]
    type_number: int
    offset: int

    @property
    def parameters(self) -> int:
        """How many weights it has."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Its bytes in the file, of a type that is known."""
        kind = TENSOR_TYPES[self.type_number]
        return self.parameters // kind.block * kind.size_bytes


@dataclass(frozen=True)
class GgufHeader:
    """A file's settings by name, without the arrays (their lengths instead), and its tensors.

    `places` are the bytes of each setting in the file, its type included.
    """

    settings: Mapping[str, str | float | bool]
    places: Mapping[str, range]
    tensors: tuple[Tensor, ...]
    data_start: int

    @classmethod
    def read(cls, file: Path) -> GgufHeader:
        """The header of a whole model.

        Raises:
            UserError: it is no GGUF file, is cut, or is no whole language model that can be read.
        """
        header = cls.of_any(file)
        header._check(file)
        return header

    @classmethod
    def of_any(cls, file: Path) -> GgufHeader:
        """The header of a file, whatever it holds: an adapter, an importance matrix.

        Raises:
            UserError: it is no GGUF file, or is cut within its header.
        """
        try:
            with file.open("rb") as opened:
                return _read(opened)
        except OSError as error:
            raise _refusal(file, f"cannot be read: {error.strerror}", "") from None
        except _Foreign as error:
            raise _refusal(file, f"is not a GGUF file: {error}", _WHOLE_FILE) from None
        except (struct.error, EOFError):
            raise _refusal(file, "is cut off within its header", _WHOLE_FILE) from None

    @property
    def architecture(self) -> str:
        """llama.cpp's name for the model's family."""
        return str(self.settings.get("general.architecture", ""))

    @property
    def chat_template(self) -> str:
        """The Jinja template that the file holds; empty where it has none."""
        return str(self.settings.get("tokenizer.chat_template", ""))

    @property
    def parameters(self) -> int:
        """How many weights the model has."""
        return sum(tensor.parameters for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Of all tensors together."""
        return 8 * sum(tensor.size_bytes for tensor in self.tensors) / self.parameters

    @property
    def weight_type(self) -> str:
        """The type that most weights are stored in."""
        counted: Counter[str] = Counter()
        for tensor in self.tensors:
            counted[TENSOR_TYPES[tensor.type_number].name] += tensor.parameters
        return counted.most_common(1)[0][0]

    @property
    def is_plain(self) -> bool:
        """Whether each weight is stored by itself, rounded with no others."""
        return all(TENSOR_TYPES[t.type_number].name in PLAIN_TYPES for t in self.tensors)

    def _check(self, file: Path) -> None:
        kind = self.settings.get("general.type", "model")
        parts = self.settings.get("split.count", 1)
        if kind == "adapter" or "adapter.type" in self.settings:
            raise _refusal(
                file,
                "is an adapter: it has no model of its own",
                "Use the GGUF file of a whole model.",
            )
        if kind == "mmproj" or self.architecture == "clip":
            raise _refusal(
                file,
                "is the part of a model that reads images or sound (mmproj)",
                "Use the GGUF file of the language model; its text alone is trained.",
            )
        if isinstance(parts, int) and parts > 1:
            raise _refusal(
                file,
                f"is one of {parts} parts of a model",
                "Join them: llama-gguf-split --merge FIRST-PART WHOLE.gguf",
            )
        if not self.architecture:
            raise _refusal(file, "says nothing of its architecture", _WHOLE_FILE)
        if not self.parameters or kind == "imatrix":
            raise _refusal(file, "has no weights of a model", _WHOLE_FILE)
        if any(tensor.name.startswith(_OTHER_SENSES) for tensor in self.tensors):
            raise _refusal(
                file,
                "has parts for images or sound beside its language model",
                "Use the file of a model of text alone.",
            )
        for tensor in self.tensors:
            if tensor.type_number not in TENSOR_TYPES:
                raise _refusal(
                    file,
                    f"stores {tensor.name} in ggml's type {tensor.type_number}, which cannot be "
                    "read",
                    "Use a file of the same model in another type, such as q8_0.",
                )
            block = TENSOR_TYPES[tensor.type_number].block
            if tensor.parameters % block:
                raise _refusal(
                    file, f"is damaged: {tensor.name} has no whole blocks of {block}", _WHOLE_FILE
                )
        end = self.data_start + max(tensor.offset + tensor.size_bytes for tensor in self.tensors)
        if (found := file.stat().st_size) < end:
            raise _refusal(
                file, f"is cut off: it has {found:,} of {end:,} bytes", "Copy or fetch it again."
            )


def check_chat_template(file: Path, header: GgufHeader, remedy: str = "") -> None:
    """See that the file says how conversations are written.

    Raises:
        UserError: it has no chat template.
    """
    if not header.chat_template:
        raise _refusal(
            file,
            "has no chat template (tokenizer.chat_template)",
            remedy or "Use a file of the instruction-tuned model, made by a converter of today.",
        )


_WHOLE_FILE = "Use the GGUF file of a whole language model."


class _Foreign(Exception):
    pass


def _refusal(file: Path, what: str, remedy: str) -> UserError:
    return UserError.one(f"{file}", what, remedy)


def _read(file: BinaryIO) -> GgufHeader:
    if file.read(4) != _MAGIC:
        raise _Foreign("it does not begin with GGUF")
    (version,) = _unpack(file, "<I")
    if version not in _VERSIONS:
        what = "is big-endian" if version in {v << 24 for v in _VERSIONS} else f"has {version}"
        raise _Foreign(f"of its versions, 2 and 3 can be read, and this one {what}")
    tensor_count, setting_count = _unpack(file, "<QQ")
    if max(tensor_count, setting_count) > _MAX_ENTRIES:
        raise _Foreign(f"its header counts {max(tensor_count, setting_count):,} entries")
    settings: dict[str, str | float | bool] = {}
    places: dict[str, range] = {}
    for _ in range(setting_count):
        name = _string(file)
        begin = file.tell()
        (kind,) = _unpack(file, "<I")
        settings[name] = _value(file, kind)
        places[name] = range(begin, file.tell())
    tensors = tuple(_tensor(file) for _ in range(tensor_count))
    alignment = settings.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT:
        raise _Foreign(f"its alignment is {alignment!r}")
    return GgufHeader(settings, places, tensors, -(-file.tell() // alignment) * alignment)


def _value(file: BinaryIO, kind: int) -> str | float | bool:
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        element, length = _unpack(file, "<IQ")
        _skip(file, element, length)
        return int(length)
    if kind not in _SCALARS:
        raise _Foreign(f"a setting has the unknown type {kind}")
    value: float | bool = _unpack(file, _SCALARS[kind])[0]
    return value


def _skip(file: BinaryIO, element: int, length: int, depth: int = 1) -> None:
    if element == _STRING:
        for _ in range(length):
            _skip_bytes(file, _unpack(file, "<Q")[0])
    elif element == _ARRAY:
        if depth == _MAX_ARRAY_DEPTH:
            raise _Foreign(f"it has arrays within arrays, more than {depth} deep")
        for _ in range(length):
            inner, inner_length = _unpack(file, "<IQ")
            _skip(file, inner, inner_length, depth + 1)
    elif element in _SCALARS:
        _skip_bytes(file, length * struct.calcsize(_SCALARS[element]))
    else:
        raise _Foreign(f"an array has the unknown type {element}")


def _skip_bytes(file: BinaryIO, count: int) -> None:
    # Further than any file reaches, a seek is an error of another kind, or none.
    if count > _MAX_STRING_BYTES and count > os.fstat(file.fileno()).st_size:
        raise EOFError
    file.seek(count, 1)


def _tensor(file: BinaryIO) -> Tensor:
    name = _string(file)
    (dimensions,) = _unpack(file, "<I")
    if dimensions > _MAX_DIMENSIONS:
        raise _Foreign(f"{name} has {dimensions} dimensions")
    # The fastest-moving first; elsewhere it stands last.
    shape = tuple(reversed(_unpack(file, f"<{dimensions}Q")))
    kind, offset = _unpack(file, "<IQ")
    return Tensor(name, shape, kind, offset)


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<Q")
    if length > _MAX_STRING_BYTES:
        raise _Foreign(f"a text in its header would have {length:,} bytes")
    raw = file.read(length)
    if len(raw) < length:
        raise EOFError
    return raw.decode("utf-8", errors="replace")


def _unpack(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
