"""A GGUF that says something else than the merged model does not pass."""

import json
import shutil

import pytest

from contract.errors import UserError
from contract.results.convert import ReadBack
from tests.conftest import stage
from trainer.convert.header import check_header, read_header


def convert(run, smoke_run, llama_cpp=None, tools=None):
    mounts = ["--run", run, "--base", smoke_run.base]
    mounts += ["--llama-cpp", llama_cpp or smoke_run.llama_cpp]
    mounts += ["--tools", tools] if tools else []
    return stage("trainer.convert", *map(str, mounts))


def spoiling(tree, smoke_run, statement):
    """The real converter, given a model whose weights were changed on the way.

    It writes a sound file that loads and talks, and only reading it back tells.
    """
    shutil.copytree(smoke_run.llama_cpp, tree)
    (tree / "convert_hf_to_gguf.py").rename(tree / "real.py")
    (tree / "convert_hf_to_gguf.py").write_text(
        "import pathlib, runpy, shutil, sys, tempfile\n"
        "from safetensors.torch import load_file, save_file\n"
        "spoiled = pathlib.Path(tempfile.mkdtemp()) / 'merged'\n"
        "shutil.copytree(sys.argv[1], spoiled)\n"
        "weights = load_file(spoiled / 'model.safetensors')\n"
        f"{statement}\n"
        "save_file(weights, spoiled / 'model.safetensors', metadata={'format': 'pt'})\n"
        "sys.argv[1] = str(spoiled)\n"
        "here = pathlib.Path(__file__).parent\n"
        "runpy.run_path(str(here / 'real.py'), run_name='__main__')\n"
    )


def test_the_header_holds_the_trained_models_settings(smoke_run):
    header = read_header(smoke_run.folder / "gguf" / "model-f16.gguf")
    assert header["general.architecture"] == "llama"
    assert header["general.name"] == "affineur-smoke"
    assert header["tokenizer.ggml.add_bos_token"] is False
    assert "<|im_start|>" in header["tokenizer.chat_template"]


def test_a_lost_template_or_another_bos_is_named(smoke_run, run_copy):
    merged = run_copy / "merged"
    config = json.loads((merged / "tokenizer_config.json").read_text())
    config["add_bos_token"] = True
    (merged / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
        check_header(smoke_run.folder / "gguf" / "model-f16.gguf", merged)
    assert "tokenizer.ggml.add_bos_token is False, and the merged model's is True" in str(
        caught.value
    )


def test_a_converter_that_writes_other_weights_fails_the_stage(smoke_run, run_copy, tmp_path):
    tree = tmp_path / "llama.cpp"
    spoiling(tree, smoke_run, "weights['model.layers.0.self_attn.q_proj.weight'] *= -1")
    code, events, log = convert(run_copy, smoke_run, tree)
    assert code == 2, log
    said = events[-1]["problems"][0]
    assert "held-out prompts differ from the merged model" in said["what"]
    # The same folder with the converter as it is passes.
    code, events, log = convert(run_copy, smoke_run)
    assert code == 0, log
    found = ReadBack(**events[-1]["values"]["read_back"])
    assert (found.by, found.prompts, found.equal) == ("transformers", 10, 10)
    assert found.agreement.mean_kl < 1e-9


def test_a_scale_that_only_predictions_show_fails_the_stage(smoke_run, run_copy, tmp_path):
    """Answers that were learned by heart stay the same, while all that is less sure moves."""
    tree = tmp_path / "llama.cpp"
    spoiling(tree, smoke_run, "weights['model.norm.weight'] *= 0.8")
    code, events, log = convert(run_copy, smoke_run, tree)
    assert code == 2, log
    assert "nats per token away from the merged model's" in events[-1]["problems"][0]["what"]


def test_llama_cpp_s_own_server_reads_the_file_where_it_is_there(
    smoke_run, run_copy, tmp_path, tools
):
    code, events, log = convert(run_copy, smoke_run, tools=tools)
    assert code == 0, log
    found = ReadBack(**events[-1]["values"]["read_back"])
    assert (found.by, found.prompts, found.equal) == ("llama-server", 10, 10)
    assert 0 < found.agreement.mean_kl < 1e-4
    assert found.agreement.tokens == 256
    tree = tmp_path / "llama.cpp"
    spoiling(tree, smoke_run, "weights['model.layers.0.self_attn.q_proj.weight'] *= -1")
    code, events, log = convert(run_copy, smoke_run, tree, tools)
    assert code == 2, log
    assert "read back by llama-server, its answers to" in events[-1]["problems"][0]["what"]


def test_an_architecture_that_llama_cpp_does_not_know_is_said(smoke_run, run_copy):
    config = json.loads((run_copy / "merged" / "config.json").read_text())
    config["architectures"] = ["NobodysForCausalLM"]
    (run_copy / "merged" / "config.json").write_text(json.dumps(config))
    code, events, log = convert(run_copy, smoke_run)
    assert code == 2, log
    assert "llama.cpp cannot convert it" in events[-1]["problems"][0]["what"]


def test_a_rope_base_that_was_lost_is_named(smoke_run, run_copy):
    """Older importers ignore transformers 5's `rope_parameters` and say success all the same."""
    path = run_copy / "merged" / "config.json"
    config = json.loads(path.read_text())
    config["rope_parameters"]["rope_theta"] = 500000.0
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"llama\.rope\.freq_base is 10000\.0, .* is 500000\.0"):
        check_header(smoke_run.folder / "gguf" / "model-f16.gguf", run_copy / "merged")


def test_a_tokenizer_that_llama_cpp_does_not_know_is_said(smoke_run, run_copy):
    """A home-made byte-level BPE, which transformers loads and llama.cpp cannot place."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    made = ByteLevelBPETokenizer()
    made.train_from_iterator(["Classe l'exigence en JSON."] * 9, vocab_size=300)
    merged = run_copy / "merged"
    (merged / "tokenizer.model").unlink(missing_ok=True)
    PreTrainedTokenizerFast(tokenizer_object=made._tokenizer).save_pretrained(merged)
    config = json.loads((merged / "config.json").read_text())
    config |= {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
    (merged / "config.json").write_text(json.dumps(config))
    code, events, log = convert(run_copy, smoke_run)
    assert code == 2, log
    assert "BPE pre-tokenizer was not recognized" in events[-1]["problems"][0]["what"]
