"""What the served model must say, as it is written down where the model was made."""

import shutil

import numpy
import pytest
import torch

from contract import paths
from contract.recipe import Recipe
from contract.reference import Reference
from contract.results.reference import ReferenceResult
from tests.conftest import stage
from trainer.distributions import Divergence, TopTokens
from trainer.judging import judge


def reference(run, tools=None):
    words = ["--run", run, *(["--tools", tools] if tools else [])]
    code, events, log = stage("trainer.reference", *map(str, words))
    assert code == 0, log
    return ReferenceResult(**events[-1]["values"])


def spoil(gguf):
    """Turn one matrix of the file's round, in place."""
    from gguf import GGUFReader

    reader = GGUFReader(gguf, "r+")
    matrix = next(tensor for tensor in reader.tensors if tensor.name == "blk.0.attn_q.weight")
    matrix.data[:] = numpy.negative(matrix.data)
    reader.data.flush()


def test_prompts_answers_and_agreements_are_written_down(smoke_run, tokenizer):
    reference = Reference.read(smoke_run.folder / paths.REFERENCE)
    held_out = [question for question in reference.questions if question.held_out]
    assert len(held_out) == 24
    assert len(reference.questions) > len(held_out)
    for question in reference.questions:
        ids = tokenizer.apply_chat_template(
            question.messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        assert question.prompt_tokens == len(ids)
        assert question.prompt_ids == ids
        assert question.prompt == tokenizer.decode(ids)
    assert reference.agreements.keys() == {"q8_0"}
    # NF4 rounded what was trained on, and the merged model has the base's own weights.
    assert 0 < reference.merge.mean_kl < smoke_run.manifest.recipe.max_merge_kl
    assert reference.merge.tokens == 256


def test_llama_cpp_and_transformers_find_the_same(smoke_run, run_copy, tools):
    before = Reference.read(smoke_run.folder / paths.REFERENCE)
    found = reference(run_copy, tools)
    after = Reference.read(run_copy / paths.REFERENCE)
    for own, other in zip(before.questions, after.questions, strict=True):
        # Where two tokens are too close, each program may go its own way, and says so.
        free = {"answer": own.answer, "decided": own.decided}
        assert other.model_copy(update=free) == own
        if other.answer != own.answer:
            decided = [one.decided for one in (own, other) if one.decided is not None]
            assert decided
            assert all(one.answer.startswith(min(decided, key=len)) for one in (own, other))
    kept = [one for one in before.questions if one in after.questions]
    assert len(kept) > 0.9 * len(before.questions)
    # llama.cpp rounds what it multiplies as well, and not the weights alone.
    assert 0 < before.agreements["q8_0"].mean_kl < found.agreements["q8_0"].mean_kl < 1e-3
    assert found.agreements["q8_0"].same_top > 0.99
    assert found.agreements["q8_0"].tokens == 512
    assert found.merge == before.merge


def test_a_spoiled_file_is_far(run_copy, tools):
    recipe = Recipe.read(run_copy / paths.RECIPE)
    recipe.model_copy(update={"quantizations": ["f16", "q4_0"]}).write(run_copy / paths.RECIPE)
    spoiled = run_copy / paths.gguf_name("q4_0")
    shutil.copyfile(run_copy / paths.gguf_name("f16"), spoiled)
    assert reference(run_copy, tools).agreements["q4_0"].mean_kl < 1e-3
    spoil(spoiled)
    assert reference(run_copy, tools).agreements["q4_0"].mean_kl > 0.05


def test_a_merge_that_lost_the_adapter_is_far_from_what_was_trained(smoke_run, run_copy):
    """Every file is as the merged model is: nothing else would show it."""
    shutil.copy(smoke_run.base / "model.safetensors", run_copy / paths.MERGED)
    found = reference(run_copy)
    assert found.merge.mean_kl > 10 * smoke_run.manifest.recipe.max_merge_kl
    assert found.merge.same_top < 0.99


def test_an_answer_of_another_model_is_not_taken_for_its_own(smoke_run, run_copy):
    """The merged model's greedy answers are written down, whatever the file says."""
    spoil(run_copy / paths.gguf_name("f16"))
    before = Reference.read(smoke_run.folder / paths.REFERENCE).questions
    reference(run_copy)
    after = Reference.read(run_copy / paths.REFERENCE).questions
    left = [pair for pair in zip(before, after, strict=True) if pair[0].answer != pair[1].answer]
    assert left
    for own, found in left:
        assert own.answer.startswith(found.answer) or found.decided is not None


def test_all_others_count_as_one_outcome():
    """The divergence over the most likely tokens and all others, in nats, worked out by hand."""
    expected = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    found = torch.tensor([[0.25, 0.5, 0.2, 0.05]]).log()
    by_hand = 0.5 * numpy.log(0.5 / 0.25) + 0.25 * numpy.log(0.25 / 0.5)  # the others are equal
    for add in ("add", "add_reversed"):
        divergence = Divergence()
        if add == "add":
            divergence.add(expected, TopTokens.of(found, 2))
        else:
            divergence.add_reversed(TopTokens.of(expected, 2), found)
        agreement = divergence.agreement()
        assert agreement.mean_kl == pytest.approx(by_hand, abs=1e-6)
        assert agreement.same_top == 0.0
        assert agreement.tokens == 1


class Scripted:
    """Says these logits whatever it is asked: (tokens, vocabulary)."""

    device = "cpu"

    def __init__(self, *rows):
        self.logits = torch.tensor([rows])

    def forward(self, input_ids, use_cache):
        raise NotImplementedError

    def __call__(self, input_ids, use_cache):
        assert input_ids.shape[1] == self.logits.shape[1]
        return self


SURE, TIE, OTHER = [0.0, 9.0, 0.0, 0.0], [0.0, 5.0, 4.99, 0.0], [0.0, 0.0, 9.0, 0.0]
END, EITHER_END = [9.0, 0.0, 0.0, 0.0], [5.0, 0.0, 0.0, 5.0]


@pytest.mark.parametrize(
    ("rows", "answer", "own", "decided", "right"),
    [
        ([SURE, SURE], [1, 1], [1, 1], None, True),
        ([SURE, TIE, SURE], [1, 1, 1], [1, 1, 1], 1, True),
        ([TIE, SURE], [1, 1], [1, 1], 0, True),
        # It ended: by the one stop or by the other.
        ([SURE, END], [1, 0], [1], None, True),
        ([SURE, EITHER_END], [1, 3], [1], None, True),
        # Another token, and nothing near.
        ([SURE, OTHER, SURE], [1, 1, 1], [1, 2], None, False),
        ([SURE, END], [1, 1], [1], None, False),
        ([SURE, SURE], [1, 0], [1, 1], None, False),
        # Another token at a near tie, after one, and before one.
        ([SURE, TIE], [1, 2], [1, 1], 1, True),
        ([TIE, OTHER], [2, 1], [1], 0, True),
        ([OTHER, TIE], [1, 1], [2], 1, False),
    ],
)
def test_an_answer_is_judged_by_what_was_most_likely(rows, answer, own, decided, right):
    # The prompt's first token predicts its second.
    judged = judge(Scripted(SURE, *rows), [1, 2], answer, stops=[0, 3])
    assert (judged.answer, judged.decided, judged.right) == (own, decided, right)
    assert judged.same == (judged.differs_at is None)
