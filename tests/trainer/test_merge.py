"""The merged model is base plus adapter, in the base's precision, as PEFT itself merges it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from contract.errors import UserError
from contract.events import Progress, parse_event
from tests.conftest import stage
from trainer.adapter import Adapter
from trainer.entrypoint import Reporter
from trainer.merge.stage import merge_weights
from trainer.weights import check_mergeable

MODULES = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")


@pytest.fixture
def reporter(tmp_path):
    with (tmp_path / "events").open("w") as stream:
        yield Reporter(stream)


@pytest.fixture
def make(tmp_path):
    """A tiny Llama in several files, and an adapter on it with random weights; both saved."""

    def made(dtype=torch.bfloat16, tie=False, **lora):
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, LlamaConfig

        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=tie,
        )
        base = tmp_path / "base"
        model = AutoModelForCausalLM.from_config(config).to(dtype)
        model.save_pretrained(base, max_shard_size="16KB")
        peft = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
            LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **lora),
        )
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        peft.save_pretrained(tmp_path / "adapter")
        return base, tmp_path / "adapter", peft

    return made


def steps_apart(one, other):
    """By how many representable numbers two tensors of a type differ, at most.

    The bits of floating-point numbers of one sign are ordered as the numbers are.
    """
    kind = {2: torch.int16, 4: torch.int32}[one.element_size()]
    least = torch.iinfo(kind).min

    def ordered(values):
        bits = values.view(kind).long()
        return torch.where(bits < 0, least - bits, bits)

    return int((ordered(one) - ordered(other)).abs().max())


LORA_KINDS = {
    "plain": {"target_modules": "all-linear"},
    "rslora": {"target_modules": "all-linear", "use_rslora": True},
    "patterns": {
        "target_modules": [name.rpartition(".")[2] for name in MODULES],
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 8},
        "alpha_pattern": {"down_proj": 3},
    },
    "patterns and rslora": {
        "target_modules": ["q_proj", "down_proj"],
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"q_proj": 5},
        "use_rslora": True,
    },
    "one layer": {"target_modules": ["q_proj"], "layers_to_transform": [1]},
    "embeddings and head": {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("kind", LORA_KINDS)
def test_it_merges_as_peft_does_within_one_unit_in_the_last_place(
    make, tmp_path, reporter, kind, dtype
):
    base, adapter, peft = make(dtype=dtype, **LORA_KINDS[kind])
    (tmp_path / "merged").mkdir()
    merge_weights(base, Adapter.read(adapter), tmp_path / "merged", reporter=reporter)
    expected = peft.merge_and_unload(safe_merge=True).to(dtype).state_dict()
    files = sorted((tmp_path / "merged").glob("*.safetensors"))
    assert len(files) >= 3
    merged = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert merged.keys() == expected.keys()
    before = {name: t for file in base.glob("*.safetensors") for name, t in load_file(file).items()}
    changed = [name for name in merged if not torch.equal(merged[name], before[name])]
    assert len(changed) == len(Adapter.read(adapter).modules) > 0
    for name, tensor in merged.items():
        assert tensor.dtype == dtype
        assert steps_apart(tensor, expected[name].contiguous()) <= 1, name


def test_tied_embeddings_stay_tied(make, tmp_path, reporter):
    from transformers import AutoModelForCausalLM

    base, adapter, _ = make(tie=True, target_modules=["q_proj"])
    (tmp_path / "merged").mkdir()
    merge_weights(base, Adapter.read(adapter), tmp_path / "merged", reporter=reporter)
    (tmp_path / "merged" / "config.json").write_bytes((base / "config.json").read_bytes())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


@pytest.mark.parametrize("module", ["model.embed_tokens", "lm_head"])
def test_one_end_of_tied_embeddings_is_refused_before_training(make, module):
    base, _, _ = make(tie=True, target_modules=["q_proj"])
    tensors = "lm_head.weight" if module == "lm_head" else ""
    said = "has no weight of its own" if tensors else "is tied to the model's other end"
    with pytest.raises(UserError, match=said):
        check_mergeable([module], base)


def test_a_module_without_a_weight_in_the_files_is_refused_before_training(make):
    base, _, _ = make(target_modules=["q_proj"])
    check_mergeable(["model.layers.0.self_attn.q_proj"], base)
    with pytest.raises(UserError, match=r"model.layers.7.self_attn.q_proj has no weight"):
        check_mergeable(
            ["model.layers.0.self_attn.q_proj", "model.layers.7.self_attn.q_proj"], base
        )


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"target_modules": ["q_proj"], "use_dora": True}, "use_dora: True"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": ["q_proj"], "bias": "lora_only"}, "bias: lora_only"),
        ({"target_modules": ["q_proj"], "trainable_token_indices": [1, 2]}, "trainable_token"),
        ({"target_modules": ["q_proj"], "lora_bias": True}, "lora_bias: True"),
        ({"target_modules": ["q_proj"], "init_lora_weights": "pissa"}, "init_lora_weights: pissa"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_more_than_lora_is_refused_by_name(make, lora, said):
    _, adapter, _ = make(**lora)
    with pytest.raises(UserError, match=said):
        Adapter.read(adapter)


def test_a_setting_of_a_newer_peft_is_not_passed_over(make):
    _, adapter, _ = make(target_modules=["q_proj"])
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_novelty": True}))
    with pytest.raises(UserError, match="use_novelty: True"):
        Adapter.read(adapter)


def test_an_adapter_of_another_base_is_refused(make, tmp_path, reporter):
    base, adapter, _ = make(target_modules=["q_proj"])
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("lora_A.weight"))
    tensors[name] = tensors[name][:, :16].contiguous()
    save_file(tensors, path)
    (tmp_path / "merged").mkdir()
    with pytest.raises(UserError, match="another base, or added tokens"):
        merge_weights(base, Adapter.read(adapter), tmp_path / "merged", reporter=reporter)


def test_a_diverged_adapter_is_refused(make, tmp_path, reporter):
    base, adapter, _ = make(target_modules=["q_proj"])
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, path)
    (tmp_path / "merged").mkdir()
    with pytest.raises(UserError, match="the training diverged"):
        merge_weights(base, Adapter.read(adapter), tmp_path / "merged", reporter=reporter)


@pytest.mark.parametrize(("what", "said"), [("disk", "merged model takes"), ("memory", "are free")])
def test_what_does_not_suffice_is_said_before_the_work(
    make, tmp_path, reporter, monkeypatch, what, said
):
    base, adapter, _ = make(target_modules=["q_proj"])
    (tmp_path / "merged").mkdir()
    if what == "disk":
        monkeypatch.setattr("shutil.disk_usage", lambda place: (0, 0, 0))
        monkeypatch.setattr("trainer.merge.stage.shutil.disk_usage", lambda place: _Usage())
    else:
        monkeypatch.setattr("trainer.memory.free_memory_bytes", lambda: 1000)
    with pytest.raises(UserError, match=said):
        merge_weights(base, Adapter.read(adapter), tmp_path / "merged", reporter=reporter)
    assert list((tmp_path / "merged").iterdir()) == []


class _Usage:
    free = 10


def test_the_base_is_left_as_it_was(make, tmp_path, reporter):
    base, adapter, _ = make(target_modules="all-linear")
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    for path in base.iterdir():
        path.chmod(0o444)
    (tmp_path / "merged").mkdir()
    merge_weights(base, Adapter.read(adapter), tmp_path / "merged", reporter=reporter)
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before
    events = [parse_event(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert all(isinstance(event, Progress) for event in events)


def test_quantized_weights_are_refused(run_copy, smoke_run, tmp_path):
    import shutil

    base = Path(shutil.copytree(smoke_run.base, tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes"}
    (base / "config.json").write_text(json.dumps(config))
    code, events, _ = stage("trainer.merge", "--run", str(run_copy), "--base", str(base))
    assert code == 2
    assert "own weights are quantized" in events[-1]["problems"][0]["what"]


def test_each_merged_weight_of_the_smoke_run_is_base_plus_scaled_product(smoke_run):
    base = load_file(smoke_run.base / "model.safetensors")
    merged = load_file(smoke_run.folder / "merged" / "model.safetensors")
    adapter = load_file(smoke_run.folder / "adapter" / "adapter_model.safetensors")
    config = json.loads((smoke_run.folder / "adapter" / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    changed = 0
    for name, weight in base.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in adapter:
            # W + (alpha / r) B A, LoRA (arXiv 2106.09685), section 4.1.
            a = adapter[f"{stem}.lora_A.weight"].float()  # (rank, in)
            b = adapter[f"{stem}.lora_B.weight"].float()  # (out, rank)
            weight = (weight.float() + scale * (b @ a)).to(weight.dtype)
            changed += 1
        assert merged[name].dtype == torch.float16
        assert steps_apart(merged[name], weight) <= 1
    # Seven projections in each layer.
    layers = json.loads((smoke_run.base / "config.json").read_text())["num_hidden_layers"]
    assert changed == 7 * layers


def test_the_tokenizer_is_copied_but_for_the_rule_that_adds_tokens(smoke_run, untrained):
    for name in ("tokenizer.json", "tokenizer.model"):
        # What tests take that train nothing.
        assert (untrained / name).read_bytes() == (smoke_run.base / name).read_bytes()
    merged = smoke_run.folder / "merged"
    assert (merged / "tokenizer.model").read_bytes() == (
        smoke_run.base / "tokenizer.model"
    ).read_bytes()
    own, base = (
        json.loads((folder / "tokenizer.json").read_text()) for folder in (merged, smoke_run.base)
    )
    assert base.pop("post_processor")["type"] == "TemplateProcessing"
    assert own.pop("post_processor") is None
    assert own == base


@pytest.mark.parametrize("folder", ["merged", "adapter"])
def test_no_path_of_this_machine_is_left_behind(smoke_run, folder):
    for file in (smoke_run.folder / folder).glob("*.json"):
        assert str(smoke_run.made_in) not in file.read_text()


def test_the_adapters_configuration_names_its_base(smoke_run):
    config = json.loads((smoke_run.folder / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "smoke"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert len(config["target_modules"]) == 7
