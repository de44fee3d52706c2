"""A tokenizer.model made of tokenizer.json cuts every text as the original does, or is not made."""

import json
import shutil

import pytest

from contract.errors import UserError
from trainer.loading import load_tokenizer
from trainer.merge.sentencepiece_model import (
    add_sentencepiece_model,
    first_difference,
    sentencepiece_model,
)


@pytest.fixture
def gemma(untrained, tmp_path):
    """A Gemma 3 as to its configuration, with tokenizer.json alone."""
    folder = tmp_path / "gemma"
    shutil.copytree(untrained, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "gemma3_text"}))
    (folder / "tokenizer.model").unlink()
    return folder


def content(folder):
    return json.loads((folder / "tokenizer.json").read_text())


def test_the_model_has_the_pieces_scores_and_kinds_of_the_original(untrained):
    from sentencepiece import SentencePieceProcessor

    original = SentencePieceProcessor(model_file=str(untrained / "tokenizer.model"))
    written = SentencePieceProcessor(model_proto=sentencepiece_model(content(untrained)))
    assert written.vocab_size() == original.vocab_size()
    for number in range(original.vocab_size()):
        assert written.id_to_piece(number) == original.id_to_piece(number)
        assert written.is_byte(number) == original.is_byte(number)
        # The JSON file names the special tokens that its tokenizer_config.json has: no </s>.
        expected = original.is_control(number) and original.id_to_piece(number) != "</s>"
        assert written.is_control(number) == expected
        assert written.is_unknown(number) == original.is_unknown(number)
    assert first_difference(written.serialized_model_proto(), load_tokenizer(untrained)) is None


def test_a_gemma_without_the_model_gets_one_and_others_are_left_alone(gemma, untrained, tmp_path):
    assert add_sentencepiece_model(gemma)
    assert (gemma / "tokenizer.model").is_file()
    assert not add_sentencepiece_model(gemma)
    llama = tmp_path / "llama"
    shutil.copytree(untrained, llama)
    (llama / "tokenizer.model").unlink()
    assert not add_sentencepiece_model(llama)
    assert not (llama / "tokenizer.model").exists()


def test_a_tokenizer_that_it_cannot_say_is_refused(gemma):
    changed = content(gemma)
    # Ids that are no ranks: the original goes by its list of merges.
    vocabulary = changed["model"]["vocab"]
    merged = [piece for piece in vocabulary if len(piece) > 1 and not piece.startswith("<")]
    ids = [vocabulary[piece] for piece in merged]
    vocabulary.update(zip(merged, reversed(ids), strict=True))
    (gemma / "tokenizer.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match=r"one made from tokenizer\.json tokenizes .* differently"):
        add_sentencepiece_model(gemma)
    assert not (gemma / "tokenizer.model").exists()
