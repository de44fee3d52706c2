"""Scores agree with transformers' own, greedy means greedy, and scoring leaves no trace."""

import pytest
import torch

from trainer.entrypoint import Reporter
from trainer.generation import greedy
from trainer.prepared import labels_of, read_prepared
from trainer.train import chunked_head
from trainer.train.scoring import Scores, answer_of, exact_match, expected_answer, held_out_loss
from trainer.train.stage import _report


@pytest.fixture(scope="module")
def model(smoke_run):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        smoke_run.folder / "merged", dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module")
def rows(smoke_run):
    return read_prepared(smoke_run.folder / "prepared" / "held_out.jsonl")[:12]


@pytest.fixture
def reporter(tmp_path):
    with (tmp_path / "events").open("w") as stream:
        yield Reporter(stream)


def test_the_loss_is_the_mean_over_completion_tokens(model, rows, reporter):
    # transformers' own loss, one row at a time, weighted by the tokens it counts.
    total, tokens = 0.0, 0
    for row in rows:
        labels = torch.tensor([labels_of(row)])
        counted = int((labels[:, 1:] != -100).sum())
        loss = model(input_ids=torch.tensor([row["input_ids"]]), labels=labels).loss
        total += loss.item() * counted
        tokens += counted
    found = held_out_loss(model, rows, who="tuned", reporter=reporter)
    assert found == pytest.approx(total / tokens, rel=1e-5)


VOCABULARY = 97
TINY = {
    **{"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48},
    **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
    **{"head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
# Each with something of its own behind the head that changes the loss.
SCALED = {
    "llama": {},
    "gemma2": {"final_logit_softcapping": 0.5},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
}


def tiny(kind):
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    set_seed(5)
    config = AutoConfig.for_model(kind, **TINY, **SCALED[kind])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.get_output_embeddings().parameters():
            parameter.normal_(std=0.5)
    return model


def tiny_rows():
    """Rows of several lengths, in batches that need padding; one without a learned token."""
    draw = torch.Generator().manual_seed(7)
    rows = []
    for length, prompt in ((19, 4), (9, 8), (3, 3), (23, 1), (12, 5)):
        ids = torch.randint(3, VOCABULARY, (length,), generator=draw).tolist()
        mask = [int(index >= prompt) for index in range(length)]
        rows.append({"input_ids": ids, "completion_mask": mask})
    return rows


def loss_of_whole_logits(model, rows):
    """As it stands in every textbook: all logits of a row, softmax, the learned tokens."""
    total, tokens = 0.0, 0
    with torch.no_grad():
        for row in rows:
            logprobs = model(torch.tensor([row["input_ids"]])).logits[0].double().log_softmax(-1)
            for position, (token, learned) in enumerate(
                zip(row["input_ids"], row["completion_mask"], strict=True)
            ):
                if learned:
                    total -= logprobs[position - 1, token].item()
                    tokens += 1
    return total / tokens


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("kind", SCALED)
def test_in_pieces_the_loss_is_the_same_whatever_stands_behind_the_head(
    kind, adapted, reporter, monkeypatch
):
    monkeypatch.setattr(chunked_head, "PIECE_BYTES", 7 * 4 * VOCABULARY)
    model = tiny(kind)
    if adapted:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            model, LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
        )
    model.eval()
    heads = []
    causal = model.get_base_model() if adapted else model
    head = causal.get_output_embeddings()
    head.register_forward_hook(lambda *call: heads.append(call[-1].shape[:-1].numel()))
    found = held_out_loss(model, tiny_rows(), who="tuned", reporter=reporter)
    # One position for each batch of four rows, and the learned tokens seven by seven.
    assert max(heads) == 7
    assert sum(heads) == 2 * 4 - 3 + sum(sum(row["completion_mask"]) for row in tiny_rows())
    assert found == pytest.approx(loss_of_whole_logits(model, tiny_rows()), rel=1e-6)


def test_scoring_leaves_a_4_bit_model_fit_for_training(untrained, reporter):
    from bitsandbytes.nn import Linear4bit
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    base = AutoModelForCausalLM.from_pretrained(
        untrained, dtype=torch.float32, quantization_config=quantization, device_map={"": "cpu"}
    )
    lora = LoraConfig(target_modules="all-linear", lora_dropout=0.5, init_lora_weights=False)
    model = get_peft_model(base, lora).train()
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert layers
    for layer in layers:
        # As on a CPU that has AVX512-BF16, whatever this one has.
        layer.support_avx512bf16_for_cpu = True
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    drawn = torch.get_rng_state()
    losses = [held_out_loss(model, tiny_rows(), who="step 1", reporter=reporter) for _ in range(2)]

    # Dropout is off, no random number was drawn, and the mode is what it was.
    assert losses[0] == losses[1]
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(weights[name], value) for name, value in model.named_parameters())
    assert not any(getattr(m.weight.quant_state, "packing_format_for_cpu", False) for m in layers)
    ids = torch.tensor([tiny_rows()[0]["input_ids"]])
    model(input_ids=ids, labels=ids).loss.backward()
    assert any(value.grad is not None and value.grad.any() for value in model.parameters())


def test_a_batch_answers_as_each_row_alone(model, tokenizer, rows):
    prompts = [row["prompt_ids"] for row in rows]
    together = greedy(model, [tokenizer.eos_token_id], prompts, max_new_tokens=24)
    alone = [greedy(model, [tokenizer.eos_token_id], [p], max_new_tokens=24)[0] for p in prompts]
    assert together == alone


def test_greedy_ignores_the_bases_own_sampling(model, tokenizer, rows):
    prompts = [row["prompt_ids"] for row in rows[:3]]
    expected = greedy(model, [tokenizer.eos_token_id], prompts, max_new_tokens=24)
    model.generation_config.do_sample = True
    model.generation_config.temperature = 5.0
    model.generation_config.repetition_penalty = 3.0
    assert greedy(model, [tokenizer.eos_token_id], prompts, max_new_tokens=24) == expected


def test_an_answer_is_bounded_and_comes_without_its_stop(model, tokenizer, rows):
    short = greedy(model, [tokenizer.eos_token_id], [rows[0]["prompt_ids"]], max_new_tokens=3)
    whole = greedy(model, [tokenizer.eos_token_id], [rows[0]["prompt_ids"]], max_new_tokens=100)
    assert len(short[0]) == 3
    assert tokenizer.eos_token_id not in whole[0]


def test_exact_match_counts_letters():
    assert exact_match(["a", "b "], ["a", "b"]) == 0.5
    assert exact_match([], []) is None
    # Nothing said is nothing right.
    assert exact_match([""], [""]) == 0


def test_reasoning_is_no_answer():
    asked = "<|im_start|>assistant\n"
    assert answer_of("<think>\n5?\n</think>\n\n4\n", prompt=asked) == "4"
    assert answer_of("<think>\n4", prompt=asked) == ""
    assert answer_of("5?\n</think>\n\n4", prompt=f"{asked}<think>\n") == "4"
    assert answer_of("4", prompt=f"{asked}<think>\n") == ""
    assert answer_of("4", prompt=f"{asked}<think>\n\n</think>\n\n") == "4"
    turn = {"role": "assistant", "content": "<think>5?</think>\n\n4 "}
    assert expected_answer({"messages": [turn]}) == "4"
    turn = {"role": "assistant", "content": "4", "reasoning_content": "5?"}
    assert expected_answer({"messages": [turn]}) == "4"


def test_what_was_not_measured_is_none_and_not_zero():
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    unanswered = _report(
        [row],
        Scores(loss=2.0, exact_match=None, answers=[]),
        Scores(loss=1.0, exact_match=None, answers=[]),
    )
    assert (unanswered.loss.base, unanswered.loss.tuned) == (2.0, 1.0)
    assert (unanswered.answered_rows, unanswered.exact_match) == (0, None)
    answered = _report(
        [row],
        Scores(loss=2.0, exact_match=0.0, answers=["b"]),
        Scores(loss=1.0, exact_match=1.0, answers=["a"]),
    )
    assert (answered.exact_match.base, answered.exact_match.tuned) == (0.0, 1.0)
    assert [(example.base, example.tuned) for example in answered.examples] == [("b", "a")]
    assert _report([], None, None).loss is None
