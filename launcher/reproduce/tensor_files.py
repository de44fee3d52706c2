"""Two files of tensors, safetensors or GGUF, compared tensor by tensor.

Plain Python reads them, since the launcher has neither torch nor numpy and a comparison must not
need gigabytes of packages first. Most tensors are equal, which is seen by their bytes, a megabyte
at a time; only pieces that differ are turned into numbers, some ten million a second.
"""

from __future__ import annotations

import json
import math
import operator
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from contract.gguf_header import TENSOR_TYPES, GgufHeader, Tensor
from launcher.reproduce.record import TensorDifference

SUFFIXES = (".safetensors", ".gguf")
_PIECE_BYTES = 1 << 20
_LENGTH_BYTES = 8
# More than the header of any model.
_MAX_HEADER_BYTES = 1 << 28

# What turns a type's bytes into its values, and of how many bytes a whole number of them is.
_Decode = Callable[[bytes], Sequence[float]]


@dataclass(frozen=True)
class TensorPlace:
    """One tensor of a file: its `size_bytes` bytes begin at `offset`."""

    type: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class TensorFile:
    """A file's metadata, each value as its bytes, and its tensors."""

    path: Path
    metadata: Mapping[str, bytes]
    tensors: Mapping[str, TensorPlace]

    @classmethod
    def read(cls, path: Path) -> TensorFile:
        """The header of a file; which format it has, its suffix says.

        Raises:
            ValueError: it is no such file.
            UserError: it is no GGUF file.
        """
        return _read_gguf(path) if path.suffix == ".gguf" else _read_safetensors(path)


def metadata_differences(there: TensorFile, here: TensorFile) -> list[str]:
    """The keys of the metadata whose values differ, or that only one of the files has."""
    one, other = there.metadata, here.metadata
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]


def tensor_differences(there: TensorFile, here: TensorFile) -> Iterator[TensorDifference]:
    """The tensors that differ, one after the other, with how much."""
    for name, place in there.tensors.items():
        found = here.tensors.get(name)
        if found is None:
            yield TensorDifference(name=name, what="is not in the rebuilt file")
        elif (place.type, place.shape) != (found.type, found.shape):
            what = f"{place.type} {_shown(place.shape)}, rebuilt {found.type} {_shown(found.shape)}"
            yield TensorDifference(name=name, what=what)
        elif (difference := _difference(name, there, here)) is not None:
            yield difference
    for name in sorted(here.tensors.keys() - there.tensors.keys()):
        yield TensorDifference(name=name, what="is only in the rebuilt file")


def _difference(name: str, there: TensorFile, here: TensorFile) -> TensorDifference | None:
    place = there.tensors[name]
    kind = _TYPES.get(place.type)
    largest = None
    for one, other in _differing_pieces(name, there, here, kind.unit_bytes if kind else 1):
        apart = kind.largest_difference(one, other) if kind else 0.0
        largest = apart if largest is None else max(largest, apart)
    if largest is None:
        return None
    if kind is None:
        return TensorDifference(name=name, what=f"{place.type}, whose values are not read here")
    # The sign of a zero, or what is no number.
    what = f"largest difference {largest:.2g}" if largest else "differs in no number"
    return TensorDifference(name=name, what=what, largest=largest)


def _differing_pieces(
    name: str, there: TensorFile, here: TensorFile, unit_bytes: int
) -> Iterator[tuple[bytes, bytes]]:
    """Of a tensor of two files, the pieces that are not the same, of whole values each."""
    piece_bytes = _PIECE_BYTES // unit_bytes * unit_bytes
    place, found = there.tensors[name], here.tensors[name]
    size_bytes = max(place.size_bytes, found.size_bytes)
    with there.path.open("rb") as one, here.path.open("rb") as other:
        for begin in range(0, size_bytes, piece_bytes):
            pieces = (
                _piece(one, place, begin, piece_bytes),
                _piece(other, found, begin, piece_bytes),
            )
            if pieces[0] != pieces[1]:
                yield pieces


def _piece(file: BinaryIO, place: TensorPlace, begin: int, most_bytes: int) -> bytes:
    file.seek(place.offset + begin)
    return file.read(max(0, min(most_bytes, place.size_bytes - begin)))


@dataclass(frozen=True)
class _Type:
    """A type of tensors whose values are read: `unit_bytes` hold a whole number of them."""

    unit_bytes: int
    decode: _Decode

    def largest_difference(self, one: bytes, other: bytes) -> float:
        """Of the values at the same places of two pieces; 0 where no number differs."""
        values = self.decode(one), self.decode(other)
        found = max(map(abs, map(operator.sub, *values)), default=0.0)
        if not math.isnan(found):
            return float(found)
        # What is no number hides the others where it comes first.
        apart = map(abs, map(operator.sub, *values))
        return max((value for value in apart if not math.isnan(value)), default=0.0)


def _plain(letter: str) -> _Type:
    size_bytes = struct.calcsize(f"<{letter}")
    return _Type(size_bytes, lambda raw: struct.unpack(f"<{len(raw) // size_bytes}{letter}", raw))


def _bf16(raw: bytes) -> Sequence[float]:
    # The upper half of an fp32.
    wide = bytearray(2 * len(raw))
    wide[2::4], wide[3::4] = raw[0::2], raw[1::2]
    return struct.unpack(f"<{len(raw) // 2}f", wide)


def _q8_0(raw: bytes) -> Sequence[float]:
    # ggml's block_q8_0: an fp16 that 32 whole numbers are multiplied by.
    return [
        scale * value for scale, *values in struct.iter_unpack("<e32b", raw) for value in values
    ]


_TYPES = {
    **{"F64": _plain("d"), "F32": _plain("f"), "F16": _plain("e"), "BF16": _Type(2, _bf16)},
    **{"I64": _plain("q"), "I32": _plain("i"), "I16": _plain("h"), "I8": _plain("b")},
    **{"U8": _plain("B"), "BOOL": _plain("B"), "Q8_0": _Type(34, _q8_0)},
}


def _read_safetensors(path: Path) -> TensorFile:
    """See https://huggingface.co/docs/safetensors, "Format": a length, JSON, the tensors' bytes."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > _MAX_HEADER_BYTES:
            raise ValueError(f"{path} is no safetensors file")
        header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", {})
    begin = _LENGTH_BYTES + length
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        tensors[name] = TensorPlace(
            entry["dtype"], tuple(entry["shape"]), begin + start, end - start
        )
    return TensorFile(
        path, {name: str(value).encode() for name, value in metadata.items()}, tensors
    )


def _read_gguf(path: Path) -> TensorFile:
    header = GgufHeader.of_any(path)
    metadata = {}
    with path.open("rb") as file:
        for name, place in header.places.items():
            file.seek(place.start)
            metadata[name] = file.read(len(place))
    ends = sorted([*(tensor.offset for tensor in header.tensors), _data_bytes(path, header)])
    tensors = {
        tensor.name: TensorPlace(
            _type_name(tensor),
            tensor.shape,
            header.data_start + tensor.offset,
            _size_bytes(tensor, ends),
        )
        for tensor in header.tensors
    }
    return TensorFile(path, metadata, tensors)


def _data_bytes(path: Path, header: GgufHeader) -> int:
    return path.stat().st_size - header.data_start


def _type_name(tensor: Tensor) -> str:
    kind = TENSOR_TYPES.get(tensor.type_number)
    return kind.name if kind else f"ggml's type {tensor.type_number}"


def _size_bytes(tensor: Tensor, ends: Sequence[int]) -> int:
    """Its bytes in the file; of a type that is not known, up to the next tensor."""
    if tensor.type_number in TENSOR_TYPES:
        return tensor.size_bytes
    return next(end for end in ends if end > tensor.offset) - tensor.offset


def _shown(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
