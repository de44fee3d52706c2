"""What a training is estimated to take is what torch, bitsandbytes and PEFT take for it."""

import pytest
import torch

from contract.activation_memory import MicroBatch, Widths, layer_bytes
from contract.memory_estimate import (
    HEAD_PIECE_BYTES,
    adapter_parameters,
    base_bytes,
    largest_micro_batch,
    nf4_bytes,
    optimizer_bytes,
    training_memory,
)
from contract.memory_fit import PlannedTraining, fitting_base, smallest_change
from contract.model_shape import ModelShape
from contract.precision_policy import precision_policy
from contract.published_shapes import published_shape
from contract.recipe import TrainSection
from launcher.configuration import resolve
from tests.contract.test_model_shape import FAMILIES, meta_model
from trainer.lora import lora_config
from trainer.train.chunked_head import PIECE_BYTES

QWEN = published_shape("Qwen/Qwen2.5-1.5B")


def section(*settings, profile="smoke"):
    return resolve(profile, settings=list(settings)).section(TrainSection)


def estimate(*settings, shape=QWEN, tokens=2048, longest=1024, profile="rtx"):
    recipe = section(*settings, profile=profile)
    batch = MicroBatch(tokens, longest)
    return training_memory(shape, recipe, precision_policy(recipe, None), batch)


def test_the_head_takes_as_many_positions_at_once_as_are_counted():
    assert HEAD_PIECE_BYTES == PIECE_BYTES


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 64), (576, 1536), (960, 2560), (1000, 7)])
def test_nf4_is_as_large_as_bitsandbytes_makes_it(inputs, outputs):
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(
        torch.randn(outputs, inputs), quant_type="nf4", compress_statistics=True, blocksize=64
    )
    scales = (state.absmax, state.state2.absmax)
    taken = sum(tensor.numel() * tensor.element_size() for tensor in (packed, *scales))
    # Two tables of 16 and 256 numbers beside them, and the mean of the scales.
    assert nf4_bytes(inputs * outputs) == taken


@pytest.mark.parametrize(("family", "values"), FAMILIES)
def test_the_adapter_has_as_many_weights_as_peft_gives_it(family, values):
    from peft import get_peft_model

    for targets in ("all-linear", '["q_proj", "v_proj"]'):
        recipe = section(f"lora_target_modules={targets}", "lora_rank=4")
        model, config = meta_model(family, values)
        shape = ModelShape.of(config)
        if targets != "all-linear" and "q_proj" not in [one.name for one in shape.linears()]:
            continue
        model = get_peft_model(model, lora_config(recipe))
        trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
        assert adapter_parameters(shape, recipe) == trained > 0


def test_adamw_keeps_two_numbers_for_each_weight():
    recipe = section("lora_rank=4")
    weights = [torch.zeros(4, 100, requires_grad=True)]
    optimizer = torch.optim.AdamW(weights)
    weights[0].grad = torch.ones_like(weights[0])
    optimizer.step()
    taken = sum(
        tensor.numel() * tensor.element_size()
        for tensor in optimizer.state[weights[0]].values()
        if tensor.dim()
    )
    each = optimizer_bytes(QWEN, recipe) / adapter_parameters(QWEN, recipe)
    assert taken == each * 400


@pytest.mark.parametrize(("rank", "inputs"), [(16, 1536), (4, 100), (16, 8960)])
def test_the_8_bit_optimizer_keeps_two_bytes_and_their_scales(rank, inputs):
    from bitsandbytes.optim import AdamW8bit

    weight = torch.zeros(rank, inputs, requires_grad=True)
    optimizer = AdamW8bit([weight])
    weight.grad = torch.ones_like(weight)
    optimizer.init_state(optimizer.param_groups[0], weight, 0, 0)
    taken = sum(
        tensor.numel() * tensor.element_size()
        for name, tensor in optimizer.state[weight].items()
        # The tables of the 256 numbers are shared by all weights.
        if isinstance(tensor, torch.Tensor) and not name.startswith("qmap")
    )
    # A model with one adapted matrix, whose A is this weight; its B is as large.
    shape = ModelShape(
        family="llama",
        layers=1,
        hidden=inputs,
        intermediate=8,
        heads=1,
        kv_heads=1,
        head_dim=inputs,
        vocab=8,
        tied=True,
    )
    recipe = section(
        "optim=paged_adamw_8bit", f"lora_rank={rank}", "lora_target_modules=[q_proj]", profile="rtx"
    )
    assert optimizer_bytes(shape, recipe) == 2 * taken


def saved_bytes(layers, family, values, recipe, *, rows, masked):
    """What autograd keeps of the forward pass of a real model with LoRA, weights apart."""
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    names = {"num_hidden_layers": layers, "n_layer": layers}
    values = {**values, **{name: layers for name in names if name in values}}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **values))
    model = get_peft_model(model, lora_config(recipe)).train()
    ids = torch.randint(3, 900, (rows, 64))
    mask = torch.ones_like(ids)
    if masked:
        mask[-1, 32:] = 0
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            # Held, so that no other tensor gets its address.
            kept[storage.data_ptr()] = storage
        return tensor

    rounds = recipe.precision == "bf16"
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=rounds),
    ):
        backbone = model.get_base_model().base_model
        output = backbone(input_ids=ids, attention_mask=mask, use_cache=False)
    found = sum(storage.nbytes() for storage in kept.values())
    del output
    return found


PLAIN = ["quantize_base=none", "lora_rank=8"]
KEEPING = [
    ("llama", [*PLAIN, "precision=fp32"]),
    ("llama", [*PLAIN, "precision=fp32", "lora_dropout=0.1"]),
    ("llama", [*PLAIN, "precision=bf16"]),
    ("llama", [*PLAIN, "precision=bf16", "lora_dropout=0.1"]),
    *(
        (family, [*PLAIN, "precision=fp32"])
        for family in ("qwen3", "gemma2", "gemma3_text", "olmo2", "starcoder2", "gpt_neox", "gpt2")
    ),
    ("phi3", [*PLAIN, "precision=fp32"]),
    ("phi3", [*PLAIN, "precision=bf16"]),
]


@pytest.mark.parametrize(("family", "settings"), KEEPING)
def test_a_layer_keeps_what_autograd_keeps_of_it(family, settings):
    values = next(values for name, values in FAMILIES if name == family)
    if family == "gpt2":
        values = values | {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
    recipe = section(*settings)
    _, config = meta_model(family, values)
    shape = ModelShape.of(config)
    attention = "eager" if shape.family_traits.eager else "sdpa"
    policy = precision_policy(recipe, None, attention)
    widths = Widths.of(recipe, policy)
    # The copies of the adapter's weights are counted with the adapter.
    cast = 2 * adapter_parameters(shape, recipe) / shape.layers if policy.autocast else 0
    for rows, masked in ((1, False), (2, True)):
        found = [
            saved_bytes(layers, family, values, recipe, rows=rows, masked=masked)
            for layers in (2, 4)
        ]
        batch = MicroBatch(rows * 64, 64)
        counted = layer_bytes(shape, recipe, widths, batch, attention=attention) + cast
        assert counted == pytest.approx((found[1] - found[0]) / 2, rel=0.03)


def test_the_parts_are_the_total():
    for settings in ([], ["gradient_checkpointing=false"], ["quantize_base=none"]):
        memory = estimate(*settings)
        assert memory.total_bytes == sum(part.size_bytes for part in memory.parts())


@pytest.mark.parametrize("profile", ["rtx", "t4", "smoke", "cpu"])
def test_more_takes_no_less(profile):
    def total(*settings, tokens=2048, longest=1024):
        return estimate(*settings, tokens=tokens, longest=longest, profile=profile).total_bytes

    base = [*(["batch_size=2"] if profile != "smoke" else []), "gradient_checkpointing=false"]
    for first, second in (
        (total(*base, tokens=1024), total(*base, tokens=4096)),
        (total(*base, longest=512), total(*base, longest=1024)),
        (total(*base, "lora_rank=8"), total(*base, "lora_rank=64")),
        (total(*base, "lora_dropout=0"), total(*base, "lora_dropout=0.1")),
        (total(*base[:-1], "gradient_checkpointing=true"), total(*base)),
        (total(*base, "quantize_base=nf4"), total(*base, "quantize_base=none")),
    ):
        assert first <= second


def test_the_largest_micro_batch_is_of_the_longest_rows():
    padded = section("batch_size=3", "packing=false")
    assert largest_micro_batch(padded, 100) == MicroBatch(300, 100)
    packed = section("packing_length=1000", "batch_size=24")
    assert largest_micro_batch(packed, 100) == MicroBatch(1000, 100, flattened=True)
    # An update that is shorter; a row that stands alone.
    for batch_size, longest, tokens in ((3, 100, 300), (3, 3000, 3000)):
        found = section("packing_length=1000", f"batch_size={batch_size}")
        assert largest_micro_batch(found, longest).tokens == tokens


def test_half_the_bits_are_quantized_and_the_rest_is_not():
    recipe = section(profile="rtx")
    policy = precision_policy(recipe, None)
    counts = QWEN.parameters()
    found = base_bytes(QWEN, policy)
    assert found == pytest.approx(
        0.516 * counts.linear + 2 * (counts.total - counts.linear), rel=1e-3
    )


def test_an_estimate_is_what_a_card_measured():
    """Qwen2.5-1.5B's shape by profile rtx, batch 2, rows of 1,024 tokens: an H200 had 1.98 GB
    allocated at the peak (CONTRIBUTING.md); CUDA's context is not torch's."""
    memory = estimate("batch_size=2")
    assert memory.total_bytes - memory.runtime.size_bytes == pytest.approx(1.98e9, rel=0.1)


# What a training at the profile's values takes is known well enough to say this.
FITS = {
    "Qwen/Qwen2.5-0.5B": (True, True, True, True),
    "Qwen/Qwen2.5-1.5B": (True, True, True, True),
    "Qwen/Qwen2.5-3B": (True, True, True, True),
    "Qwen/Qwen2.5-7B": (True, True, True, True),
    "Qwen/Qwen3-8B": (False, True, True, True),
    "google/gemma-2-9b": (False, True, True, True),
}


def planned(name, *settings, longest=1024):
    recipe = section(*settings, profile="rtx")
    shape = published_shape(name)
    attention = "eager" if shape.family_traits.eager else "sdpa"
    return PlannedTraining(shape, recipe, precision_policy(recipe, None, attention), longest)


@pytest.mark.parametrize(("name", "fits"), FITS.items())
def test_which_cards_a_published_base_fits(name, fits):
    training = planned(name)
    assert tuple(training.fits(size << 30) for size in (8, 12, 16, 24)) == fits


def test_the_smallest_change_keeps_the_rows_of_an_update_first():
    training = planned("Qwen/Qwen3-8B", "packing=false")
    assert smallest_change(training, 12 << 30) == {}
    assert smallest_change(training, 8 << 30) == {
        "batch_size": 1,
        "gradient_accumulation_steps": 16,
    }


def test_activations_are_given_up_before_the_length_of_rows():
    training = planned("Qwen/Qwen2.5-3B", "gradient_checkpointing=false")
    changed = smallest_change(training, 8 << 30)
    assert changed["gradient_checkpointing"] is True
    assert "max_length" not in changed


def test_the_longest_rows_that_fit_are_found():
    training = planned("Qwen/Qwen3-8B", longest=8192)
    changed = smallest_change(training, 8 << 30)
    longest = changed["max_length"]
    assert longest % 64 == 0
    assert 256 <= longest < 8192
    usable = 0.95 * (8 << 30)
    assert training.memory(**changed).total_bytes <= usable
    assert training.memory(**changed | {"max_length": longest + 64}).total_bytes > usable


def test_where_no_setting_helps_a_smaller_base_is_named():
    training = planned("Qwen/Qwen2.5-7B")
    assert smallest_change(training, 4 << 30) is None
    base = fitting_base(training, 4 << 30)
    assert base == "Qwen/Qwen2.5-3B"
    assert fitting_base(training, 1 << 29) is None


def test_a_packed_batch_is_made_shorter_and_not_the_rows():
    training = planned("Qwen/Qwen3-8B", longest=500)
    assert smallest_change(training, 8 << 30) == {"packing_length": 1024}
