"""Where two files differ is said by tensor, by line and key, or by byte."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from launcher.reproduce import tensor_files
from launcher.reproduce.file_differences import differences, first_byte, jsonl_difference
from launcher.reproduce.tensor_files import TensorFile, tensor_differences
from tests import gguf_files


def of(there, here):
    return differences(there, here, lambda _: None)


def raw_safetensors(path, dtype, raw, shape):
    """A file of one tensor, of a type that numpy lacks."""
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, len(raw)]}
    header = json.dumps({"w": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + raw)
    return path


def test_the_tensor_that_differs_is_named_with_its_largest_difference(tmp_path, monkeypatch):
    # Several pieces a tensor, and a last one that is shorter.
    monkeypatch.setattr(tensor_files, "_PIECE_BYTES", 1000)
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float16, np.float64, np.int32, np.uint8):
        one = {name: (rng.normal(size=(37, 41)) * 9).astype(dtype) for name in "abc"}
        other = {name: values.copy() for name, values in one.items()}
        save_file(one, tmp_path / "one.safetensors")
        other["b"][3, 7] += 1
        other["b"][36, 40] += 2
        save_file(other, tmp_path / "two.safetensors")
        where, (tensor,) = of(tmp_path / "one.safetensors", tmp_path / "two.safetensors")
        apart = np.abs(one["b"].astype(float) - other["b"].astype(float)).max()
        assert tensor.name == "b"
        assert tensor.largest == apart
        assert where[0].startswith(f"1 of 3 tensors, at most by {apart:.2g}; b: ")


def test_bf16_is_the_upper_half_of_an_fp32(tmp_path):
    values = struct.pack("<3f", 1.0, -2.5, 3.0), struct.pack("<3f", 1.0, -2.5, 3.5)
    files = [
        raw_safetensors(
            tmp_path / f"{number}.safetensors",
            "BF16",
            b"".join(value[i : i + 2] for i in (2, 6, 10)),
            [3],
        )
        for number, value in enumerate(values)
    ]
    _, (tensor,) = of(*files)
    assert tensor.largest == 0.5


def test_a_q8_0_block_is_its_scale_times_its_numbers(tmp_path):
    import gguf

    rng = np.random.default_rng(1)
    files, decoded = [], []
    for number in range(2):
        values = rng.normal(size=(4, 64)).astype(np.float32)
        raw = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
        decoded.append(gguf.dequantize(raw, gguf.GGMLQuantizationType.Q8_0))
        writer = gguf.GGUFWriter(tmp_path / f"{number}.gguf", "llama")
        writer.add_tensor("w", raw, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        gguf_files.close(writer)
        files.append(tmp_path / f"{number}.gguf")
    _, (tensor,) = of(*files)
    assert tensor.largest == pytest.approx(np.abs(decoded[0] - decoded[1]).max(), rel=1e-6)


def test_a_k_quant_that_differs_is_named_without_a_number(tmp_path):
    import gguf

    kind = gguf.GGMLQuantizationType.Q4_K
    for number in range(2):
        writer = gguf.GGUFWriter(tmp_path / f"{number}.gguf", "llama")
        raw = np.full((1, 144), number, np.uint8)
        writer.add_tensor("w", raw, raw_dtype=kind)
        gguf_files.close(writer)
    where, (tensor,) = of(tmp_path / "0.gguf", tmp_path / "1.gguf")
    assert tensor.largest is None
    assert where == ["1 of 1 tensors; w: Q4_K, whose values are not read here"]


def test_what_is_no_number_hides_no_difference(tmp_path):
    nan = float("nan")
    for number, values in enumerate(([nan, 1.0, 2.0], [nan, 1.0, 2.5])):
        save_file({"w": np.array(values, np.float32)}, tmp_path / f"{number}.safetensors")
    _, (tensor,) = of(tmp_path / "0.safetensors", tmp_path / "1.safetensors")
    assert tensor.largest == 0.5
    for number, value in enumerate((0.0, -0.0)):
        save_file({"w": np.array([value], np.float32)}, tmp_path / f"{number}.safetensors")
    _, (tensor,) = of(tmp_path / "0.safetensors", tmp_path / "1.safetensors")
    assert tensor.what == "differs in no number"


def test_a_tensor_of_another_shape_and_one_that_is_missing_are_told_apart(tmp_path):
    one, other = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    save_file({"a": np.ones((2, 3), np.float32), "gone": np.ones(1, np.float32)}, one)
    save_file({"a": np.ones((3, 2), np.float16), "new": np.ones(1, np.float32)}, other)
    found = {tensor.name: tensor.what for tensor in of(one, other).tensors}
    assert found == {
        "a": "F32 2x3, rebuilt F16 3x2",
        "gone": "is not in the rebuilt file",
        "new": "is only in the rebuilt file",
    }


def test_metadata_that_differs_is_named_by_its_keys(tmp_path):
    for number, value in enumerate(("pt", "np")):
        tensors = {"a": np.ones(2, np.float32)}
        save_file(tensors, tmp_path / f"{number}.safetensors", {"format": value})
        settings = {"llama.block_count": number, "x.same": "é"}
        gguf_files.write(tmp_path / f"{number}.gguf", settings=settings)
    assert of(tmp_path / "0.safetensors", tmp_path / "1.safetensors") == (["metadata: format"], [])
    assert of(tmp_path / "0.gguf", tmp_path / "1.gguf") == (["metadata: llama.block_count"], [])


def test_an_array_in_a_ggufs_metadata_is_compared_by_its_entries(tmp_path):
    import gguf

    for number, word in enumerate(("oui", "non")):
        writer = gguf.GGUFWriter(tmp_path / f"{number}.gguf", "llama")
        writer.add_token_list(["a", word, "b"])
        writer.add_tensor("w", np.ones(4, np.float32))
        gguf_files.close(writer)
    found = of(tmp_path / "0.gguf", tmp_path / "1.gguf")
    assert found == (["metadata: tokenizer.ggml.tokens"], [])


def test_an_adapters_gguf_and_an_importance_matrix_are_read_as_well(tmp_path):
    for kind in ("adapter", "imatrix"):
        for number in range(2):
            tensors = {"w": np.full(4, number, np.float32)}
            settings = {"general.type": kind}
            gguf_files.write(tmp_path / f"{number}.gguf", settings=settings, tensors=tensors)
        _, (tensor,) = of(tmp_path / "0.gguf", tmp_path / "1.gguf")
        assert (tensor.name, tensor.largest) == ("w", 1.0)


@pytest.mark.parametrize("suffix", ["safetensors", "gguf"])
@pytest.mark.parametrize("damaged", [b"", b"{}", b"\xff" * 64, b"\x02" + bytes(7) + b"[]"])
def test_a_damaged_file_of_tensors_is_compared_by_its_bytes(tmp_path, suffix, damaged):
    one, other = tmp_path / f"one.{suffix}", tmp_path / f"two.{suffix}"
    if suffix == "gguf":
        gguf_files.write(one)
    else:
        save_file({"a": np.ones(2, np.float32)}, one)
    other.write_bytes(damaged)
    where, tensors = of(one, other)
    assert where[0].startswith("first at byte ")
    assert tensors == []


def test_tensors_in_another_order_leave_the_byte(tmp_path):
    entries = {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    entries["b"] = {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}
    for number, names in enumerate(("ab", "ba")):
        header = json.dumps({name: entries[name] for name in names}).encode()
        content = len(header).to_bytes(8, "little") + header + b"\x01\x02"
        (tmp_path / f"{number}.safetensors").write_bytes(content)
    where, tensors = of(tmp_path / "0.safetensors", tmp_path / "1.safetensors")
    assert where == ["first at byte 10"]
    assert tensors == []


def test_equal_tensors_are_found_in_none(tmp_path):
    file = tmp_path / "one.safetensors"
    save_file({"a": np.ones(2, np.float32)}, file)
    read = TensorFile.read(file)
    assert list(tensor_differences(read, read)) == []


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        ('{"a": {"b": [1, 2]}}', '{"a": {"b": [1, 3]}}', "a.b[1]: 2, rebuilt 3"),
        ('{"a": 1}', '{"a": 1.0}', "a: 1, rebuilt 1.0"),
        ('{"a": 1}', '{"a": true}', "a: 1, rebuilt true"),
        ('{"a": 1}', '{"a": 1, "b": 2}', "b: nothing, rebuilt 2"),
        ('{"a": [1]}', '{"a": []}', "a[0]: 1, rebuilt nothing"),
        ('{"a": 1}', '{ "a": 1}', "first at byte 1 (8 bytes, rebuilt 9)"),
        ('{"a": 1}', '{"a": 1', "first at byte 7 (8 bytes, rebuilt 7)"),
        ("[1]", "[2]", "[0]: 1, rebuilt 2"),
        ("1", "2", "1, rebuilt 2"),
    ],
)
def test_the_first_key_of_json_that_differs_is_named(tmp_path, there, here, said):
    one, other = tmp_path / "one.json", tmp_path / "two.json"
    one.write_text(there)
    other.write_text(here)
    assert of(one, other) == ([said], [])


def test_the_first_line_that_differs_is_named_with_its_key(tmp_path):
    one, other = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    lines = [json.dumps({"step": n, "loss": n / 2, "seconds": n}) for n in range(5)]
    one.write_text("\n".join(lines) + "\n")
    other.write_text("\n".join(lines).replace('"loss": 1.5', '"loss": 1.25') + "\n")
    assert of(one, other) == (["line 4: loss: 1.5, rebuilt 1.25"], [])
    other.write_text("\n".join(lines[:3]) + "\n")
    assert of(one, other) == (["the rebuilt file ends before line 4"], [])
    assert of(other, one) == (["the run's file ends before line 4"], [])
    other.write_text("\n".join(lines).replace('"seconds": 2', '"seconds": 7') + "\n")
    assert jsonl_difference(one, other, but_for=("seconds",)) is None
    assert jsonl_difference(one, other) == "line 3: seconds: 2, rebuilt 7"
    other.write_text("\n".join(lines).replace('{"step": 2', '{"step" 2') + "\n")
    assert jsonl_difference(one, other) == "line 3"


def test_the_first_byte_that_differs_is_counted_from_zero(tmp_path):
    one, other = tmp_path / "one", tmp_path / "two"
    content = bytes(3 << 20)
    one.write_bytes(content)
    other.write_bytes(content[: 2 << 20] + b"\x01" + content[(2 << 20) + 1 :])
    assert first_byte(one, other) == "first at byte 2,097,152"
    other.write_bytes(content[:7])
    assert first_byte(one, other) == "first at byte 7 (3,145,728 bytes, rebuilt 7)"
    other.write_bytes(content)
    assert first_byte(one, other) == "nowhere: the same bytes"
