"""A base's shape says how many weights it has, as its model class does."""

import json

import pytest
import torch

from contract.errors import UserError
from contract.model_shape import ModelShape
from contract.published_shapes import PUBLISHED, published_shape

# Odd and all different, so that no width stands in for another.
SIZES = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 208,
    "vocab_size": 1003,
    "head_dim": 24,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"n_embd": 96, "n_layer": 3, "n_head": 6, "vocab_size": 1003, "n_positions": 77}
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 40}


def without(*names, **more):
    return {name: value for name, value in SIZES.items() if name not in names} | more


FAMILIES = [
    ("llama", SIZES),
    ("llama", without("head_dim", attention_bias=True, mlp_bias=True)),
    ("mistral", without("head_dim")),
    ("qwen2", without("head_dim")),
    ("qwen3", SIZES),
    ("qwen3", without("head_dim")),
    ("qwen3", without(attention_bias=True)),
    ("qwen3_moe", without(**EXPERTS)),
    ("mixtral", without(num_local_experts=5)),
    ("gemma", without("head_dim")),
    ("gemma2", SIZES),
    ("gemma3_text", SIZES),
    ("phi3", without("head_dim")),
    ("smollm3", without("head_dim")),
    ("granite", without("head_dim", attention_bias=True)),
    ("olmo2", without("head_dim")),
    ("starcoder2", without("head_dim")),
    ("starcoder2", without("head_dim", use_bias=False, norm_epsilon=1e-5)),
    ("gpt_neox", without("head_dim", "num_key_value_heads")),
    ("gpt2", GPT2),
    ("gpt2", GPT2 | {"n_inner": 208}),
]


def meta_model(family, values):
    """A model without memory, and its config.json's values as a file has them."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **values)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return model, json.loads(config.to_json_string())


def counted(model):
    """Parameters by kind, looked up in the model."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    tied = head.weight is model.get_input_embeddings().weight
    linear = sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    )
    experts = sum(weight.numel() for weight in model.parameters() if weight.dim() == 3)
    embedding = sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding)
    )
    total = sum(weight.numel() for weight in model.parameters())
    return embedding, 0 if tied else head.weight.numel(), linear, experts, total


@pytest.mark.parametrize("tied", [True, False, None])
@pytest.mark.parametrize(("family", "values"), FAMILIES)
def test_a_shape_has_as_many_weights_as_the_model(family, values, tied):
    chosen = {} if tied is None else {"tie_word_embeddings": tied}
    model, config = meta_model(family, {**values, **chosen})
    shape = ModelShape.of(config)
    assert shape is not None
    of_shape = shape.parameters()
    found = (of_shape.embedding, of_shape.head, of_shape.linear, of_shape.experts, of_shape.total)
    assert found == counted(model)


@pytest.mark.parametrize(("family", "values"), FAMILIES)
def test_every_linear_layer_is_named_and_as_wide_as_it_is(family, values):
    from transformers.pytorch_utils import Conv1D

    model, config = meta_model(family, values)
    head = model.get_output_embeddings()
    expected = sorted(
        (name.rpartition(".")[2], module.weight.numel(), module.bias is not None)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    )
    shape = ModelShape.of(config)
    found = sorted((one.name, one.weights, one.bias) for one in shape.linears() * shape.layers)
    assert found == expected


# As their makers' pages and the files' own headers say.
TOTALS = {
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-2-9b": 9_241_705_984,
    "google/gemma-3-1b-pt": 999_885_952,
    "microsoft/Phi-3.5-mini-instruct": 3_821_079_552,
    "microsoft/Phi-4-mini-instruct": 3_836_021_760,
}


def test_every_published_shape_is_compared():
    assert set(PUBLISHED) == set(TOTALS)


@pytest.mark.parametrize(("repository", "parameters"), TOTALS.items())
def test_a_published_shape_has_the_published_count(repository, parameters):
    assert published_shape(repository).parameters().total == parameters


def test_a_tuned_variant_has_the_shape_of_its_base():
    for name in ("Qwen/Qwen2.5-1.5B-Instruct", "qwen/qwen2.5-1.5b"):
        assert published_shape(name) == published_shape("Qwen/Qwen2.5-1.5B")
    assert published_shape("google/gemma-3-1b-it") == published_shape("google/gemma-3-1b-pt")
    assert published_shape("Qwen/Qwen2.5-1.5B-Instruct-GGUF") is None
    assert published_shape("somebody/else") is None


def test_the_language_model_of_a_multimodal_one_is_taken():
    text = {
        "hidden_size": 2560,
        "intermediate_size": 10_240,
        "num_hidden_layers": 34,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 262_208,
    }
    shape = ModelShape.of({"model_type": "gemma3", "text_config": text, "vision_config": {}})
    assert (shape.family, shape.head_dim, shape.tied) == ("gemma3_text", 256, True)
    assert shape.parameters().total == 3_880_263_168


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "rwkv", "hidden_size": 8},
        {"model_type": "llama"},
        {"model_type": "llama", **SIZES, "hidden_size": "wide"},
        {"model_type": "llama", **SIZES, "num_hidden_layers": 0},
        {"model_type": "qwen3_moe", **SIZES, **EXPERTS, "mlp_only_layers": [0]},
    ],
)
def test_what_is_not_known_has_no_shape(config):
    assert ModelShape.of(config) is None


def test_a_window_that_is_not_used_is_none():
    values = {"model_type": "qwen2", **SIZES, "sliding_window": 4096}
    assert ModelShape.of(values | {"use_sliding_window": False}).sliding_window is None
    assert ModelShape.of(values | {"use_sliding_window": True}).sliding_window == 4096


def test_a_damaged_config_is_said_in_a_sentence(tmp_path):
    assert ModelShape.read(tmp_path) is None
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(UserError, match="is no JSON object"):
        ModelShape.read(tmp_path)
