"""What the served model must say, as it is written down where the model was made."""

import shutil

import numpy
import pytest
import torch

from contract import paths
from contract.reference import Reference
from trainer.entrypoint import Reporter
from trainer.prepared import read_prepared
from trainer.reference.agreement import agreement
from trainer.reference.stage import decided_tokens


@pytest.fixture
def reporter(tmp_path):
    with (tmp_path / "events").open("w") as stream:
        yield Reporter(stream)


@pytest.fixture(scope="module")
def rows(smoke_run):
    return read_prepared(smoke_run.folder / paths.PREPARED_HELD_OUT)


def compare(run, one, other, rows, reporter):
    return agreement(
        *(run / paths.gguf_name(kind) for kind in (one, other)), rows, name=other, reporter=reporter
    )


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
        assert question.prompt == tokenizer.decode(ids)
    assert reference.agreements.keys() == {"q8_0"}


def test_a_file_agrees_with_itself(smoke_run, rows, reporter):
    found = compare(smoke_run.folder, "f16", "f16", rows, reporter)
    assert found.mean_kl < 1e-6
    assert found.same_top == 1.0
    assert found.tokens >= 512


def test_eight_bits_are_close_and_not_the_same(smoke_run, rows, reporter):
    found = compare(smoke_run.folder, "f16", "q8_0", rows, reporter)
    assert 0 < found.mean_kl < 0.01
    assert found.same_top > 0.99


def test_a_spoiled_file_is_far(run_copy, rows, reporter):
    from gguf import GGUFReader

    spoiled = run_copy / paths.gguf_name("spoiled")
    shutil.copyfile(run_copy / paths.gguf_name("f16"), spoiled)
    reader = GGUFReader(spoiled, "r+")
    matrix = next(tensor for tensor in reader.tensors if tensor.name == "blk.0.attn_q.weight")
    matrix.data[:] = numpy.negative(matrix.data)
    reader.data.flush()
    found = compare(run_copy, "f16", "spoiled", rows, reporter)
    assert found.mean_kl > 0.05


def test_an_answer_is_decided_up_to_its_first_near_tie():
    class Scripted:
        """Says these logits whatever it is asked: (tokens, vocabulary)."""

        def __init__(self, *rows):
            self.logits = torch.tensor([rows])

        def __call__(self, input_ids):
            assert input_ids.shape[1] == self.logits.shape[1]
            return self

    sure, tie = [9.0, 0.0, 0.0, 0.0], [0.0, 5.0, 4.99, 0.0]
    prompt, stops = [1, 2], [0, 3]

    def decided(*rows, ended=False):
        answer = [1] * (len(rows) - 1 if ended else len(rows))
        # The prompt's first token predicts its second; a cut-off answer's last predicts nothing.
        given = [sure, *rows, *([] if ended else [sure])]
        return decided_tokens(Scripted(*given), prompt, answer, ended=ended, stops=stops)

    assert decided(sure, sure) is None
    assert decided(sure, tie, sure) == 1
    assert decided(tie, sure) == 0
    assert decided(sure, sure, tie, ended=True) == 2
    # Two stops that are alike end it alike.
    assert decided(sure, [5.0, 0.0, 0.0, 5.0], ended=True) is None
