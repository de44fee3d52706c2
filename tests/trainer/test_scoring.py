"""Scores agree with transformers' own, and greedy means greedy."""

import pytest
import torch

from trainer.entrypoint import Reporter
from trainer.generation import greedy
from trainer.prepared import labels_of, read_prepared
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
    unanswered = _report([row], Scores(2.0, None, []), Scores(1.0, None, []))
    assert (unanswered.loss.base, unanswered.loss.tuned) == (2.0, 1.0)
    assert (unanswered.answered_rows, unanswered.exact_match) == (0, None)
    answered = _report([row], Scores(2.0, 0.0, ["b"]), Scores(1.0, 1.0, ["a"]))
    assert (answered.exact_match.base, answered.exact_match.tuned) == (0.0, 1.0)
    assert [(example.base, example.tuned) for example in answered.examples] == [("b", "a")]
    assert _report([], None, None).loss is None
