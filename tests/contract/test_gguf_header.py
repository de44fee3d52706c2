"""What speaks against a GGUF file as a base is seen in its header, and said."""

import struct

import gguf
import numpy as np
import pytest

from contract.errors import UserError
from contract.gguf_header import TENSOR_TYPES, GgufHeader, check_chat_template
from tests import gguf_files


def refusal(file):
    with pytest.raises(UserError) as caught:
        GgufHeader.read(file)
    return str(caught.value)


def test_settings_and_tensors_are_read(tmp_path):
    weights = {"a": np.ones((3, 32), np.float16), "b": np.ones(32, np.float32)}
    settings = {"llama.block_count": 2, "tokenizer.ggml.add_bos_token": False, "x.y": "é"}
    file = gguf_files.write(tmp_path / "m.gguf", settings=settings, tensors=weights)
    header = GgufHeader.read(file)
    assert header.architecture == "llama"
    assert header.chat_template == gguf_files.TEMPLATE
    assert {name: header.settings[name] for name in settings} == settings
    assert [(t.name, t.shape) for t in header.tensors] == [("a", (3, 32)), ("b", (32,))]
    assert (header.parameters, header.weight_type, header.is_plain) == (128, "F16", True)
    assert header.bits_per_weight == (96 * 16 + 32 * 32) / 128


def test_each_type_has_the_size_and_the_reader_that_the_gguf_package_has():
    for number, kind in TENSOR_TYPES.items():
        known = gguf.GGMLQuantizationType(number)
        assert known.name == kind.name
        assert gguf.GGML_QUANT_SIZES[known] == (kind.block, kind.size_bytes)
        block = np.zeros((1, kind.size_bytes), np.uint8)
        assert gguf.dequantize(block, known).size == kind.block


@pytest.mark.parametrize("kept", [2, 20, 200, -1])
def test_a_file_that_is_cut_is_refused_wherever_it_is_cut(tmp_path, kept):
    file = gguf_files.write(tmp_path / "m.gguf")
    content = file.read_bytes()
    file.write_bytes(content[:kept])
    assert ("is not a GGUF file" if kept == 2 else "is cut off") in refusal(file)
    file.write_bytes(content)
    GgufHeader.read(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04 a zip", "it does not begin with GGUF"),
        (b"", "it does not begin with GGUF"),
        (b"GGUF" + struct.pack("<I", 1), "this one has 1"),
        (b"GGUF" + struct.pack(">I", 3), "this one is big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 1), "its header counts"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path, content, said):
    (tmp_path / "m.gguf").write_bytes(content)
    assert said in refusal(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"general.type": "adapter"}, "is an adapter"),
        ({"adapter.type": "lora"}, "is an adapter"),
        ({"general.type": "mmproj"}, "images or sound"),
        ({"split.count": 3}, "one of 3 parts"),
    ],
)
def test_what_is_no_whole_model_is_refused(tmp_path, settings, said):
    assert said in refusal(gguf_files.write(tmp_path / "m.gguf", settings=settings))


def test_a_model_with_eyes_is_refused(tmp_path):
    eyes = {"token_embd.weight": np.ones(8, np.float32), "v.blk.0.w": np.ones(8, np.float32)}
    assert "parts for images" in refusal(gguf_files.write(tmp_path / "m.gguf", tensors=eyes))


def test_a_type_that_nothing_here_reads_is_named(tmp_path):
    numbers = {"token_embd.weight": np.ones(8, np.int32)}
    said = refusal(gguf_files.write(tmp_path / "m.gguf", tensors=numbers))
    assert "stores token_embd.weight in ggml's type 26" in said


def test_a_file_without_a_template_is_refused(tmp_path):
    file = gguf_files.write(tmp_path / "m.gguf", template=None)
    with pytest.raises(UserError, match="has no chat template"):
        check_chat_template(file, GgufHeader.read(file))


def test_a_file_that_cannot_be_opened_is_said(tmp_path):
    assert "cannot be read" in refusal(tmp_path / "absent.gguf")
