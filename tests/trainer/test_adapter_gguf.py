"""The adapter's GGUF adds to each weight what the merge adds, or is not made at all."""

import json
import shutil

import numpy
import pytest
import torch
from gguf import GGUFReader
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from contract import paths
from contract.recipe import Recipe
from tests.conftest import apart, stage
from trainer.adapter import CONFIG, Adapter
from trainer.convert.adapter import refusal

_IN_GGUF = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


KINDS = {
    "plain": {"target_modules": "all-linear"},
    "rslora": {"target_modules": "all-linear", "use_rslora": True},
    "patterns": {
        "target_modules": ["o_proj", "down_proj"],
        "rank_pattern": {"down_proj": 4},
        "alpha_pattern": {"layers.1.self_attn.o_proj": 3},
    },
}


def make(base, folder, **settings):
    """An adapter on a base of the smoke base's shape, with B's that are not zero."""
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(**{"r": 8, "lora_alpha": 24, **settings}))
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder)
    return Adapter.read(folder)


@pytest.fixture
def adapter_of(untrained, tmp_path):
    return lambda **settings: make(untrained, tmp_path / "adapter", **settings)


@pytest.fixture(scope="module")
def converted(untrained, llama_cpp, tmp_path_factory):
    """An adapter of each kind and its GGUF, all made in one process: its start takes longest."""
    folder = tmp_path_factory.mktemp("adapters")
    adapters = {kind: make(untrained, folder / kind, **of) for kind, of in KINDS.items()}
    apart(
        "from trainer.adapter import Adapter\n"
        "from trainer.convert.adapter import write_adapter\n"
        "tree, base, *folders = map(Path, sys.argv[1:])\n"
        "for folder in folders:\n"
        "    write_adapter(tree, base=base, adapter=Adapter.read(folder),"
        " gguf=folder.with_suffix('.gguf'))",
        llama_cpp,
        untrained,
        *(adapter.folder for adapter in adapters.values()),
    )
    return adapters


def added_by_llama_cpp(gguf):
    """What llama.cpp adds: alpha / rank B A, or B A where alpha is 0."""
    reader = GGUFReader(gguf)
    alpha = float(reader.fields["adapter.lora.alpha"].contents())
    tensors = {tensor.name: torch.tensor(numpy.array(tensor.data)) for tensor in reader.tensors}
    found = {}
    for name, a in tensors.items():
        if name.endswith(".lora_a"):
            scale = alpha / a.shape[0] if alpha else 1.0
            stem = name.removesuffix(".lora_a")
            found[stem] = scale * (tensors[f"{stem}.lora_b"] @ a)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_it_adds_what_the_merge_adds(converted, kind):
    adapter = converted[kind]
    gguf = adapter.folder.with_suffix(".gguf")
    added = added_by_llama_cpp(gguf)
    compared = 0
    for module in adapter.modules:
        _, _, layer, name = module.split(".", 3)
        found = added[f"blk.{layer}.{_IN_GGUF[name]}.weight"]
        expected = adapter.delta(module)
        if name in ("self_attn.q_proj", "self_attn.k_proj"):
            # llama.cpp keeps the rows of these two in another order.
            found, expected = found.sort(0).values, expected.sort(0).values
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        compared += 1
    assert compared == len(added) > 1


def test_one_on_an_embedding_is_refused(adapter_of):
    adapter = adapter_of(target_modules=["embed_tokens", "q_proj"])
    assert "cannot load an adapter on model.embed_tokens" in refusal(adapter)
    assert refusal(adapter_of(target_modules=["q_proj"])) == ""


def test_the_stage_says_why_there_is_none_or_fails_where_it_is_served(
    smoke_run, run_copy, adapter_of
):
    shutil.rmtree(run_copy / paths.ADAPTER)
    adapter = adapter_of(target_modules=["q_proj"])
    shutil.copytree(adapter.folder, run_copy / paths.ADAPTER)
    config = run_copy / paths.ADAPTER / CONFIG
    config.write_text(json.dumps({**json.loads(config.read_text()), "fan_in_fan_out": True}))
    (run_copy / paths.ADAPTER_GGUF).unlink()
    words = ["--run", run_copy, "--base", smoke_run.base, "--llama-cpp", smoke_run.llama_cpp]
    code, events, log = stage("trainer.convert", *map(str, words))
    assert code == 0, log
    assert events[-1]["values"]["adapter"] is False
    assert any("skipping the adapter GGUF" in event.get("text", "") for event in events)
    assert not (run_copy / paths.ADAPTER_GGUF).exists()
    path = run_copy / paths.RECIPE
    path.write_text(Recipe.read(path).model_copy(update={"serving": "adapter"}).model_dump_json())
    code, events, log = stage("trainer.convert", *map(str, words))
    assert code == 2, log
    assert "Use merged." in events[-1]["problems"][0]["remedy"]
