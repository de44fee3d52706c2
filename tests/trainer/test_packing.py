"""Packed rows know nothing of each other: their logits are those of each row alone."""

from contextlib import nullcontext

import pytest
import torch
import transformers

from trainer.prepared import IGNORED
from trainer.train import packed_attention
from trainer.train.micro_batches import (
    MicroBatchLimits,
    fitted,
    grouped,
    joined_rows,
    micro_batches,
    packed,
    padded,
    split_rows,
)
from trainer.train.packed_attention import keeps_rows_apart, rows_apart

LENGTHS = (20, 33, 12, 50, 7, 41)
# What all of the small models have; each family's own settings stand in `FAMILIES`.
SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}
# Windows that are shorter than some rows, and longer than others.
FAMILIES = {
    "llama": {},
    "qwen2": {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    "qwen3": {},
    "mistral": {"sliding_window": 16},
    "gemma": {},
    "gemma2": {"sliding_window": 16, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 16, "query_pre_attn_scalar": 8},
    "phi3": {"sliding_window": 16},
    "granite": {},
    "olmo2": {},
    "smollm3": {"use_sliding_window": True, "sliding_window": 16},
    "cohere2": {"sliding_window": 16},
    "stablelm": {},
    "gpt_neox": {},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
}
# Their layers hand on a state from token to token, or count positions themselves.
MIXING = {
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8, "expand": 2},
    "bloom": {"n_layer": 3, "n_head": 4},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 3},
}


def tiny(kind, settings):
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(kind, **{**SMALL, **settings})
    own = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    attention = "sdpa" if own._supports_sdpa else "eager"
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    for parameter in model.parameters():
        # As large as those of a trained model: what leaks is to be seen.
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def rows(lengths=LENGTHS, vocabulary=300):
    """Of random tokens; the second half of each is its completion."""
    drawn = torch.manual_seed(1)
    for length in lengths:
        ids = torch.randint(5, vocabulary, (length,), generator=drawn)
        yield ids, torch.cat([torch.full((length // 2,), IGNORED), ids[length // 2 :]])


def logits(model, inputs, lengths=()):
    given = {name: value for name, value in inputs.items() if name != "labels"}
    with torch.no_grad(), rows_apart(model, lengths):
        return model(**given, use_cache=False).logits[0]


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_logits_are_those_of_each_row_alone(kind):
    model = tiny(kind, FAMILIES[kind])
    assert keeps_rows_apart(model)
    batch = packed(list(rows()))
    together = logits(model, batch.inputs, batch.packed).split(LENGTHS)
    for (ids, _), found in zip(rows(), together, strict=True):
        alone = model(input_ids=ids[None], use_cache=False).logits[0]
        scale = alone.abs().max()
        assert (found - alone).abs().max() < 1e-5 * max(scale, 1)


def test_without_a_kernel_for_groups_of_heads_keys_are_repeated(monkeypatch):
    model = tiny("llama", {})
    batch = packed(list(rows()))
    expected = logits(model, batch.inputs, batch.packed)
    # As on a T4, and in fp32 on any card.
    monkeypatch.setattr(packed_attention, "_has_grouped_kernel", lambda query: False)
    torch.testing.assert_close(logits(model, batch.inputs, batch.packed), expected)


def test_what_torchs_attention_cannot_compute_is_not_left_out():
    states = torch.zeros(1, 4, 3, 8)
    with rows_apart(tiny("llama", {}), [3]), pytest.raises(ValueError, match="takes no softcap"):
        packed_attention._by_row(torch.nn.Module(), states, states, states, None, softcap=30.0)


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_so_are_the_gradients(kind, checkpointing):
    model = tiny(kind, FAMILIES[kind]).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    found = []
    for batch in (packed(list(rows())), padded(list(rows()))):
        model.zero_grad()
        given = {name: value for name, value in batch.inputs.items() if name != "labels"}
        with rows_apart(model, batch.packed) if batch.packed else nullcontext():
            scores = model(**given, use_cache=False).logits[:, :-1]
            torch.nn.functional.cross_entropy(
                scores.flatten(0, 1), batch.inputs["labels"][:, 1:].flatten()
            ).backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("kind", FAMILIES)
def test_rows_that_see_each_other_would_be_noticed(kind, monkeypatch):
    model = tiny(kind, FAMILIES[kind])
    # One row of all of them, as far as the attention knows; and no positions that begin anew.
    monkeypatch.setattr(
        packed_attention, "positions_of", lambda lengths: torch.arange(sum(lengths))[None]
    )
    monkeypatch.setattr(packed_attention, "_NAME", "sdpa")
    assert not keeps_rows_apart(model)


@pytest.mark.parametrize("kind", MIXING)
def test_a_base_that_hands_on_a_state_is_padded(kind):
    assert not keeps_rows_apart(tiny(kind, MIXING[kind]))


def test_the_attention_is_its_own_again_afterwards():
    model = tiny("llama", {})
    with pytest.raises(RuntimeError), rows_apart(model, [3, 4]):
        raise RuntimeError
    assert model.config._attn_implementation == "sdpa"
    assert keeps_rows_apart(model)


def test_no_completion_loses_a_token():
    labels = packed(list(rows())).inputs["labels"]
    # The first token of a row has no one to say it; here it belongs to the prompt.
    assert (labels != IGNORED).sum() == sum(n - n // 2 for n in LENGTHS)


def test_the_first_token_of_a_row_is_predicted_by_no_other():
    ids = torch.tensor([7, 8, 9])
    assert packed([(ids, ids), (ids, ids)]).inputs["labels"].tolist() == [
        [IGNORED, 8, 9, IGNORED, 8, 9]
    ]


def test_every_row_is_in_one_micro_batch():
    given = list(rows())
    for packing_length in (None, 10, 51, 64, 1000):
        found = micro_batches(given, MicroBatchLimits(4, packing_length))
        kept = sorted(int((batch.inputs["labels"] != IGNORED).sum()) for batch in found)
        assert sum(kept) == sum(n - n // 2 for n in LENGTHS)
    assert [batch.inputs["input_ids"].shape for batch in found] == [(1, sum(LENGTHS))]


def test_rows_that_are_padded_stand_beside_rows_of_their_length():
    assert grouped([5, 90, 7, 80, 6], 2) == [[1, 3], [2, 4], [0]]


def test_rows_fit_as_they_fit_best():
    assert fitted([60, 40, 50, 50, 30], 100) == [[0, 1], [2, 3], [4]]
    # What is longer stands alone.
    assert fitted([300, 10], 100) == [[0], [1]]


def test_what_a_data_loader_joins_is_taken_apart_again():
    given = [{"input_ids": ids.tolist(), "labels": labels.tolist()} for ids, labels in rows()]
    for (ids, labels), (own_ids, own_labels) in zip(
        rows(), split_rows(joined_rows(given)), strict=True
    ):
        assert ids.equal(own_ids)
        assert labels.equal(own_labels)
