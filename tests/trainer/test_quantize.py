"""K-quants by llama.cpp's own tools, compiled here: real files, and each way to fail a sentence."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from contract import paths
from contract.digest import digest_of_file
from contract.errors import UserError
from contract.recipe import Recipe
from launcher.project import ROOT
from tests.conftest import apart, stage
from trainer.convert.header import read_header
from trainer.quantize.llama_cpp import quantize_gguf
from trainer.quantize.stage import (
    _BYTES_PER_WEIGHT,
    _PROGRAM_BYTES,
    _check_disk_space,
    _check_memory,
    _context,
    _tensors,
)

Q4_K_M, Q6_K = 15, 18


def ask_for(run, **changed):
    path = run / paths.RECIPE
    path.write_text(Recipe.read(path).model_copy(update=changed).model_dump_json())


def quantize(run, tools):
    return stage("trainer.quantize", "--run", str(run), "--tools", str(tools))


def test_each_type_is_made_and_twice_the_same_bytes(run_copy, tools):
    ask_for(run_copy, quantizations=["q4_k_m", "q8_0", "q6_k"], imatrix=True)
    digests = []
    for _ in range(2):
        code, events, log = quantize(run_copy, tools)
        assert code == 0, log
        assert events[-1]["values"]["types"] == ["q4_k_m", "q6_k"]
        assert events[-1]["values"]["larger_than_asked"] == {}
        files = [paths.gguf_name("q4_k_m"), paths.gguf_name("q6_k"), paths.IMATRIX]
        digests.append([digest_of_file(run_copy / file) for file in files])
    assert digests[0] == digests[1]
    four = read_header(run_copy / paths.gguf_name("q4_k_m"))
    six = read_header(run_copy / paths.gguf_name("q6_k"))
    assert (four["general.file_type"], six["general.file_type"]) == (Q4_K_M, Q6_K)
    # What the file says of its making names no place of this machine.
    assert four["quantize.imatrix.file"] == "imatrix.gguf"
    assert four["quantize.imatrix.dataset"] == "prompts.txt"
    assert not (run_copy / paths.GGUF / "prompts.txt").exists()


def test_a_folder_of_its_own_changes_no_byte_and_the_run_stays_as_it_is(run_copy, tools, tmp_path):
    ask_for(run_copy, quantizations=["q4_k_m"], imatrix=True)
    before = {path: path.stat().st_mtime_ns for path in run_copy.rglob("*")}
    out = tmp_path / "out"
    out.mkdir()
    flags = ["--run", str(run_copy), "--out", str(out), "--tools", str(tools)]
    code, _, log = stage("trainer.quantize", *flags)
    assert code == 0, log
    assert {path: path.stat().st_mtime_ns for path in run_copy.rglob("*")} == before
    code, _, log = quantize(run_copy, tools)
    assert code == 0, log
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert files == [paths.IMATRIX, paths.gguf_name("q4_k_m")]
    for file in files:
        assert digest_of_file(out / file) == digest_of_file(run_copy / file)


def test_progress_is_said_for_both_works(run_copy, tools):
    ask_for(run_copy, quantizations=["q4_k_m"], imatrix=True)
    _, events, _ = quantize(run_copy, tools)
    doing = {event["doing"] for event in events if event["event"] == "progress"}
    assert doing == {"computing the importance matrix", "quantizing to q4_k_m"}


def test_the_matrix_changes_the_file(run_copy, tools):
    found = set()
    for imatrix in (True, False):
        ask_for(run_copy, quantizations=["q4_k_m"], imatrix=imatrix)
        code, events, log = quantize(run_copy, tools)
        assert code == 0, log
        assert events[-1]["values"]["imatrix"] is imatrix
        found.add(digest_of_file(run_copy / paths.gguf_name("q4_k_m")))
    assert len(found) == 2


def test_the_base_is_quantized_by_the_trained_models_matrix(smoke_run, run_copy, tools, tmp_path):
    ask_for(run_copy, quantizations=["q4_k_m"], imatrix=True)
    code, _, log = quantize(run_copy, tools)
    assert code == 0, log
    mounts = ["--trained", run_copy, "--base", smoke_run.base]
    mounts += ["--llama-cpp", smoke_run.llama_cpp, "--tools", tools]
    code, _, log = stage("trainer.baseline", "--run", str(tmp_path), *map(str, mounts))
    assert code == 0, log
    made = read_header(tmp_path / paths.gguf_name("q4_k_m"))
    assert made["quantize.imatrix.file"] == "imatrix.gguf"
    # It is made for this file alone.
    assert not (tmp_path / paths.IMATRIX).exists()


def test_too_few_prompts_are_said_and_no_matrix_is_made(run_copy, tools):
    train = run_copy / paths.PREPARED_TRAIN
    train.write_text("".join(train.read_text().splitlines(keepends=True)[:2]))
    ask_for(run_copy, quantizations=["q4_k_m"], imatrix=True)
    code, events, log = quantize(run_copy, tools)
    assert code == 0, log
    assert events[-1]["values"]["imatrix"] is False
    assert any("too few for an importance matrix" in event.get("text", "") for event in events)


@pytest.mark.parametrize(
    ("tokens", "context"), [(95, None), (96, 32), (1535, 256), (1536, 512), (10**6, 512)]
)
def test_a_chunk_leaves_room_for_two_and_a_margin(tokens, context):
    assert _context(tokens) == context


def test_widths_that_k_quants_do_not_take_are_counted(smoke_run, tools, tmp_path):
    """llama-quantize takes a larger type for them, on its own."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    model = tmp_path / "narrow"
    shutil.copytree(smoke_run.base, model)
    (model / "model.safetensors").unlink()
    config = json.loads((model / "config.json").read_text())
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            **{**config, "hidden_size": 192, "intermediate_size": 320, "num_attention_heads": 3},
        )
    ).save_pretrained(model)
    exact, quantized = tmp_path / "model-f16.gguf", tmp_path / "model-q4_k_m.gguf"
    apart(
        "from trainer.convert.llama_cpp import write_gguf\n"
        "write_gguf(*map(Path, sys.argv[1:4]), quantization='f16', model_name='narrow')",
        smoke_run.llama_cpp,
        model,
        exact,
    )
    larger = quantize_gguf(
        *(tools, exact, quantized),
        kind="q4_k_m",
        imatrix=None,
        on_progress=lambda done, total: None,
    )
    assert larger > 0


def test_a_file_cut_short_is_a_sentence(run_copy, tools):
    ask_for(run_copy, quantizations=["q4_k_m"], imatrix=False)
    exact = run_copy / paths.gguf_name("f16")
    # The tensors' list is whole, and their bytes are not.
    exact.write_bytes(exact.read_bytes()[:-100_000])
    code, events, log = quantize(run_copy, tools)
    assert code == 2, log
    said = events[-1]["problems"][0]
    assert said["where"] == f"{paths.GGUF}/model-f16.gguf"
    assert "truncated" in said["what"]


def test_a_tool_that_fails_is_a_sentence(run_copy, tools, tmp_path):
    broken = tmp_path / "tools"
    shutil.copytree(tools, broken)
    (broken / "llama-quantize").write_text("#!/bin/sh\necho 'error: out of ideas'\nexit 3\n")
    ask_for(run_copy, quantizations=["q4_k_m"], imatrix=False)
    code, events, _ = quantize(run_copy, broken)
    assert code == 2
    assert "exited with code 3: error: out of ideas" in events[-1]["problems"][0]["what"]


def test_a_stage_that_is_stopped_stops_its_tool(run_copy, tools, tmp_path):
    slow = tmp_path / "tools"
    shutil.copytree(tools, slow)
    (slow / "llama-quantize").write_text(f"#!/bin/sh\necho $$ > '{tmp_path}/pid'\nexec sleep 99\n")
    ask_for(run_copy, quantizations=["q4_k_m"], imatrix=False)
    command = [sys.executable, "-m", "trainer.quantize", "--run", run_copy, "--tools", slow]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_no_room_and_no_memory_are_said_before(run_copy, monkeypatch):
    sources = [run_copy / paths.gguf_name("f16")]
    monkeypatch.setattr("trainer.memory.free_memory_bytes", lambda: 10**6)
    with pytest.raises(UserError, match="quantizing the largest weight needs"):
        _check_memory(sources, imatrix=False)
    largest = max(int(tensor.n_elements) for tensor in _tensors(sources[0]))
    enough = _BYTES_PER_WEIGHT * largest + _PROGRAM_BYTES
    monkeypatch.setattr("trainer.memory.free_memory_bytes", lambda: enough)
    _check_memory(sources, imatrix=False)
    with pytest.raises(UserError, match="reading the whole model"):
        _check_memory(sources, imatrix=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(UserError, match="quantized files take up to"):
        _check_disk_space(sources, ["q4_k_m"], run_copy)
