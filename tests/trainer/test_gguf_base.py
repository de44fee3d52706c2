"""A base that is read from a GGUF file has the very numbers and tokens that llama.cpp has."""

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import gguf
import numpy as np
import pytest

from contract import paths
from contract.base import BaseIdentity, BaseRequest, GgufRequest
from contract.digest import digest_of_file
from contract.errors import UserError
from launcher.display import Display
from launcher.pipeline.bases import find_base
from tests import gguf_files, qwen
from tests.conftest import apart, needs, stage
from trainer.base.gguf import check_family, read_gguf

# Of a type's file, the type of its folder's weights: what it stands for has more digits than bf16.
TYPES = {"f16": "float16", "q8_0": "float32", "q4_1": "float32", "q4_k_m": "float32"}
_CONVERT = (
    "from trainer.convert.llama_cpp import write_gguf\n"
    "llama_cpp, folder, gguf = map(Path, sys.argv[1:4])\n"
    "write_gguf(llama_cpp, folder, gguf, quantization=sys.argv[4], model_name='x')\n"
)


def convert(llama_cpp: Path, folder: Path, file: Path, kind: str) -> Path:
    """By llama.cpp's own converter, which knows nothing of what reads the file here."""
    apart(_CONVERT, llama_cpp, folder, file, kind)
    return file


def quantize(tools, file, kind):
    made = file.with_name(f"{kind}.gguf")
    command = [str(tools / "llama-quantize"), str(file), str(made), kind, "1"]
    subprocess.run(command, check=True, capture_output=True)
    return made


def read(file, run):
    """What the stage `base` makes of a GGUF file: its exit code, its events, its log."""
    run.mkdir(parents=True, exist_ok=True)
    asked = GgufRequest(sha256=digest_of_file(file), stops=[])
    request = BaseRequest(kind="gguf", repository="a file", revision=None, gguf=asked)
    request.write(run / paths.BASE_REQUEST)
    return stage("trainer.base", "--run", str(run), "--gguf", str(file))


def model_of(file, run):
    code, _, log = read(file, run)
    assert code == 0, log
    return run / paths.BASE_MODEL


def read_here(
    file: Path,
    folder: Path,
    *,
    stops: Sequence[str] = (),
    sha256: str = "",
    note: Callable[[str], None] = lambda text: None,
) -> Path:
    """Without a process of its own, whose start takes seconds."""
    read_gguf(
        file,
        sha256 or digest_of_file(file),
        folder,
        stops=stops,
        on_tensor=lambda done, total: None,
        on_file=lambda done, total: None,
        note=note,
    )
    return folder


def settings(file):
    return {
        name: field.contents()
        for name, field in gguf.GGUFReader(file).fields.items()
        if not name.startswith(("GGUF.", "general."))
    }


def numbers(file):
    return {
        tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).ravel()
        for tensor in gguf.GGUFReader(file).tensors
    }


def check_same_numbers(file, folder, llama_cpp, scratch):
    """The folder, converted again, has the file's tensors under their names and in their order."""
    again = convert(llama_cpp, folder, scratch / "again.gguf", "f32")
    expected, found = numbers(file), numbers(again)
    assert found.keys() == expected.keys()
    for name, weights in expected.items():
        assert np.abs(found[name] - weights).max() <= 1e-6, name
    return again


@pytest.fixture(scope="module")
def f16(untrained, llama_cpp, tmp_path_factory) -> Path:
    return convert(llama_cpp, untrained, tmp_path_factory.mktemp("gguf") / "f16.gguf", "f16")


@pytest.fixture(scope="module")
@needs("compiles")
def files(f16, tools):
    """One model as a file of each type."""
    return {kind: f16 if kind == "f16" else quantize(tools, f16, kind) for kind in TYPES}


@pytest.mark.parametrize("kind", TYPES)
def test_the_weights_are_those_that_llama_cpp_computes_with(files, kind, llama_cpp, tmp_path):
    folder = model_of(files[kind], tmp_path)
    again = check_same_numbers(files[kind], folder, llama_cpp, tmp_path)
    assert json.loads((folder / "config.json").read_text())["dtype"] == TYPES[kind]
    # The vocabulary with its scores, the positions, the template: nothing is lost on the way.
    assert settings(again) == settings(files[kind])
    identity = BaseIdentity.read(tmp_path / paths.BASE_RECORD)
    assert identity.gguf.sha256 == digest_of_file(files[kind])
    assert identity.gguf.weight_type == kind.upper().removesuffix("_M")


@pytest.fixture(scope="module")
def base(f16, tmp_path_factory) -> Path:
    """The f16 file read with stops, as a server's model has them."""
    folder = tmp_path_factory.mktemp("base") / "model"
    return read_here(f16, folder, stops=["<|endoftext|>", "<|im_end|>", "FIN"])


def test_the_tokenizer_cuts_as_the_one_that_it_was(base, untrained):
    from transformers import AutoTokenizer

    own, found = (AutoTokenizer.from_pretrained(folder) for folder in (untrained, base))
    for text in ("Bonjour le monde", "  deux  espaces ", "<|im_start|>user\nÇa va ?", "日本 🎯"):
        ids = own(text, add_special_tokens=False).input_ids
        assert found(text, add_special_tokens=False).input_ids == ids
    assert found.chat_template == own.chat_template
    assert (found.bos_token, found.eos_token, found.pad_token) == (
        own.bos_token,
        own.eos_token,
        own.pad_token,
    )


def test_stops_that_are_one_token_end_answers_too(base):
    declared = json.loads((base / "generation_config.json").read_text())
    assert declared == {"eos_token_id": [4, 5]}


def test_twice_read_it_is_the_same_base(f16, base, tmp_path):
    said = []
    stops = ["<|endoftext|>", "la fin"]
    again = read_here(f16, tmp_path / "model", stops=stops, note=said.append)
    assert said == ["the stop 'la fin' is no token of the base's and is not used"]
    assert {file.name: digest_of_file(file) for file in again.iterdir()} == {
        file.name: digest_of_file(file) for file in base.iterdir()
    }


def test_another_file_than_the_one_that_was_meant_is_refused(tmp_path):
    file = gguf_files.write(tmp_path / "m.gguf")
    with pytest.raises(UserError, match=r"has the SHA-256 .* and should have 00"):
        read_here(file, tmp_path / "model", sha256="0" * 64)


def test_a_family_that_the_reader_lacks_is_refused_by_name():
    with pytest.raises(UserError) as caught:
        check_family("rwkv7")
    assert "no GGUF file of the family 'rwkv7'" in str(caught.value)
    assert "llama" in str(caught.value)
    for known in ("llama", "qwen2moe", "gpt-oss", "gemma3", "lfm2"):
        check_family(known)


@pytest.mark.parametrize("change", ["less", "more"])
def test_weights_that_are_missing_or_have_no_place_are_refused(f16, tmp_path, change):
    whole = gguf.GGUFReader(f16)
    tensors = {t.name: np.array(t.data) for t in whole.tensors}
    if change == "less":
        del tensors["blk.1.ffn_up.weight"]
    else:
        tensors["blk.0.extra.weight"] = np.ones(8, np.float32)
    file = rewritten(whole, tmp_path / "m.gguf", tensors)
    with pytest.raises(UserError, match="cannot read this GGUF file of the family 'llama'"):
        read_here(file, tmp_path / "model")


def test_positions_that_are_scaled_in_an_unknown_way_are_refused(f16, tmp_path):
    whole = gguf.GGUFReader(f16)
    tensors = {t.name: np.array(t.data) for t in whole.tensors}
    more = {"llama.rope.scaling.type": "yarn"}
    file = rewritten(whole, tmp_path / "m.gguf", tensors, more)
    with pytest.raises(UserError, match=r"scales positions \(yarn\)"):
        read_here(file, tmp_path / "model")


def rewritten(whole, file, tensors, more=None):
    """The model with other tensors or with more settings."""
    writer = gguf.GGUFWriter(file, "llama")
    for name, field in whole.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            sub_type = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type)
    for name, value in (more or {}).items():
        writer.add_string(name, value)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    gguf_files.close(writer)
    return file


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen 3 whose heads are narrower than public ones, under the real tokenizer."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder, scratch = (tmp_path_factory.mktemp(name) for name in ("qwen3", "scratch"))
    qwen.tokenizer(scratch).save_pretrained(folder)
    torch.manual_seed(5)
    config = Qwen3Config(
        vocab_size=151936,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        rope_theta=1e6,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_qwen_3_of_other_widths_comes_back_whole(qwen3, llama_cpp, tmp_path):
    file = convert(llama_cpp, qwen3, tmp_path / "q8_0.gguf", "q8_0")
    folder = model_of(file, tmp_path)
    again = check_same_numbers(file, folder, llama_cpp, tmp_path)
    # Padding of the vocabulary is no token of its own.
    expected, found = settings(file), settings(again)
    types = "tokenizer.ggml.token_type"
    unused = [n for n, kind in enumerate(expected[types]) if kind == gguf.TokenType.UNUSED]
    for number in unused:
        found[types][number] = gguf.TokenType.UNUSED
    kept = {name: value for name, value in expected.items() if not name.endswith("add_bos_token")}
    assert {name: found.get(name) for name in kept} == kept


@pytest.mark.slow
@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3s_scaled_positions_are_found_again(untrained, llama_cpp, tmp_path, factor):
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    scaled = Path(shutil.copytree(untrained, tmp_path / "scaled"))
    config = json.loads((scaled / "config.json").read_text())
    config |= {"rope_parameters": rope, "max_position_embeddings": 131072}
    (scaled / "config.json").write_text(json.dumps(config))
    file = convert(llama_cpp, scaled, tmp_path / "f16.gguf", "f16")
    assert "rope_freqs.weight" in numbers(file)
    folder = model_of(file, tmp_path / "run")
    assert json.loads((folder / "config.json").read_text())["rope_parameters"] == rope
    check_same_numbers(file, folder, llama_cpp, tmp_path)


@pytest.mark.slow
def test_the_real_model_of_the_locked_package_is_read(llama_cpp, tmp_path):
    base = find_base("smollm2-135m-instruct", None, "rtx")
    file = base.gguf.locate(Display(quiet=True))
    folder = model_of(file, tmp_path)
    again = check_same_numbers(file, folder, llama_cpp, tmp_path)
    expected, found = settings(file), settings(again)
    for name in ("model", "pre", "tokens", "merges", "eos_token_id"):
        assert found[f"tokenizer.ggml.{name}"] == expected[f"tokenizer.ggml.{name}"]
    identity = BaseIdentity.read(tmp_path / paths.BASE_RECORD)
    assert (identity.gguf.weight_type, identity.gguf.bits_per_weight) == ("Q4_1", 5.74)


def test_a_cut_file_is_refused_by_the_stage_as_well(tmp_path):
    file = gguf_files.write(tmp_path / "m.gguf")
    file.write_bytes(file.read_bytes()[:-40])
    code, events, _ = read(file, tmp_path / "run")
    assert code == 2
    assert "is cut off" in events[-1]["problems"][0]["what"]
