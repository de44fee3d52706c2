"""What would end a run after its training is said before it, in seconds, and all at once."""

import json
import shutil
from collections import namedtuple

import pytest

from contract import paths
from contract.recipe import PreflightSection
from launcher.configuration import resolve
from tests import bases
from tests.conftest import apart, stage
from trainer.preflight import resources
from trainer.weights import Weight

pytestmark = pytest.mark.slow

LORA_NAMES = "lora_target_modules=[q_proj,k_proj,v_proj,o_proj]"
REFUSED = [
    ("broken-config", (), "config.json: cannot be read: Expecting value"),
    ("no-model-type", (), "config.json: has no model_type"),
    ("unknown-model-type", (), "transformers does not know the architecture 'llamma'"),
    ("remote-code", (), "needs code of its own (our_own), which is not run"),
    ("encoder-decoder", (), "is an encoder-decoder model (t5)"),
    ("embedding-model", (), "its weights are those of LlamaModel"),
    ("vision", (), "it has parts for images (gemma3), and only models of text alone"),
    ("quantized", (), "its own weights are quantized (gptq)"),
    ("not-converted", (), "llama.cpp cannot convert it: it has no converter for GPTNeoForCausalLM"),
    ("unknown-pre-tokenizer", (), "llama.cpp cannot convert it: BPE pre-tokenizer was not recog"),
    ("gemma3-other-tokenizer", (), "tokenizer.model: is missing, llama.cpp's converter needs it"),
    ("no-template", (), "this base has no chat template"),
    ("no-default-template", (), "has the chat templates rag and no default one"),
    ("pad-beyond", (), "its pad_token <scenario> has the id 2048, and the embeddings end at 2047"),
    ("wrong-shape", (), "down_proj.weight has the shape (256, 256) in the files, and config.json"),
    ("mixtral", (), f"Use --set {LORA_NAMES}."),
    ("smoke", ("max_length=4096",), "Use --set max_length=1024, or less."),
    ("smoke", ("lora_target_modules=[q_porj]",), "no module 'q_porj'. Did you mean q_proj?"),
    ("smoke", ("lora_target_modules=[q_proj,lm_head]",), "lm_head has no weight of its own"),
    ("smoke", ("lora_target_modules=[embed_tokens]",), "is tied to the model's other end"),
    ("gemma2", ("lora_target_modules=[embed_tokens]",), "is tied to the model's other end"),
    ("smoke", ("lora_target_modules=[input_layernorm]",), "PEFT refuses it: Target module"),
]
PASSED = [
    ("smoke", (), ""),
    ("eos-of-text", (), ""),
    ("named-templates", (), "'default' is used (not tool_use)"),
    ("named-templates-folder", (), "'default' is used (not tool_use)"),
    ("token-beyond", (), "no row in the embeddings (<scenario>): rows with them are refused"),
    ("r1", (), ""),
    ("trim", (), ""),
    ("question-first", (), ""),
    ("no-architectures", (), ""),
    ("granite", (), ""),
    ("gemma2", (), ""),
    ("gemma3-tokenizer-json", (), ""),
    ("mixtral", (LORA_NAMES,), ""),
    ("smoke", ("serving=adapter",), ""),
    ("smoke", ("num_ctx=2048",), "num_ctx 2048 is more than this base was made for (1024 tokens)"),
    ("smoke", ("quantizations=[q4_k_m]",), ""),
]
CASES = {(variant, settings) for variant, settings, _ in [*REFUSED, *PASSED]}
CASES |= {("gpt2", ()), ("gpt2", ("serving=adapter",))}
# All of them in one process, which starts once. Apart, because llama.cpp brings its own `gguf`.
_PREFLIGHT = """
import io
from contract.errors import UserError
from contract.paths import StagePaths
from trainer.entrypoint import Reporter
from trainer.preflight.stage import preflight

for run in sorted(Path(sys.argv[2]).iterdir()):
    stream = io.StringIO()
    paths = StagePaths(run=run, base=Path((run / "base").read_text()), llama_cpp=sys.argv[1])
    reporter = Reporter(stream)
    try:
        preflight(paths, reporter)
    except UserError as error:
        reporter.failed(error)
    (run / "events.jsonl").write_text(stream.getvalue())
"""
Found = namedtuple("Found", "problems notes result")


def read(run):
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return Found(
        [
            f"{problem['where']}: {problem['what']}. {problem['remedy']}"
            for event in events
            if event["event"] == "failed"
            for problem in event["problems"]
        ],
        [event["text"] for event in events if event["event"] == "note"],
        next((event["values"] for event in events if event["event"] == "result"), None),
    )


@pytest.fixture(scope="module")
def made(untrained, tmp_path_factory):
    """Every base, by its variant."""
    folder = tmp_path_factory.mktemp("bases")
    return {variant: bases.make(variant, untrained, folder / variant) for variant in bases.VARIANTS}


@pytest.fixture(scope="module")
def found(made, llama_cpp, tmp_path_factory):
    """What preflight says of each case."""
    folder = tmp_path_factory.mktemp("runs")
    runs = {}
    for number, (variant, settings) in enumerate(sorted(CASES)):
        run = folder / str(number)
        run.mkdir()
        resolve("smoke", settings=list(settings)).write(run / paths.RECIPE)
        (run / "base").write_text(str(made[variant]))
        runs[variant, settings] = run
    apart(_PREFLIGHT, llama_cpp, folder)
    return {case: read(run) for case, run in runs.items()}


def test_every_kind_of_base_is_looked_at():
    assert {variant for variant, _ in CASES} | {"gpt2"} == set(bases.VARIANTS)


@pytest.mark.parametrize(("variant", "settings", "said"), REFUSED)
def test_a_base_that_would_fail_later_is_refused_in_one_sentence(found, variant, settings, said):
    about = found[variant, settings]
    assert len(about.problems) == 1, about.problems
    assert said in about.problems[0]
    assert about.result is None


@pytest.mark.parametrize(("variant", "settings", "said"), PASSED)
def test_a_base_that_works_passes_and_its_peculiarity_is_said(found, variant, settings, said):
    about = found[variant, settings]
    assert about.problems == []
    assert about.result["notes"] == about.notes
    assert [said in note for note in about.notes] == ([True] if said else [])


def test_what_is_missing_in_the_configuration_is_filled_in(found):
    assert found["no-architectures", ()].result["architecture"] == "LlamaForCausalLM"


def test_gemma_2_gets_the_attention_that_it_takes(found):
    assert found["gemma2", ()].result["attention"] == "eager"
    assert found["smoke", ()].result["attention"] == "sdpa"


def test_experts_stay_as_they_are_where_attention_alone_is_adapted(found):
    assert found["mixtral", (LORA_NAMES,)].result["adapted"] == 8


def test_what_ollamas_template_language_can_write_is_known_before_training(found):
    assert found["smoke", ()].result["go_template"] is True
    assert found["question-first", ()].result["go_template"] is False


def test_an_adapter_that_cannot_be_served_is_refused_where_it_is_to_be(found):
    # Under a tokenizer that is none of GPT-2's, which the converter says as well.
    merged, adapter = (found["gpt2", settings].problems for settings in ((), ("serving=adapter",)))
    assert len(merged) == 1
    assert adapter[1:] == merged
    assert "adapter is not possible: llama.cpp's converter does not support fan_in" in adapter[0]


def test_all_problems_are_said_at_once(made, llama_cpp, tmp_path):
    settings = ["max_length=4096", "lora_target_modules=all-linear"]
    resolve("smoke", settings=settings).write(tmp_path / paths.RECIPE)
    flags = ["--run", str(tmp_path), "--base", str(made["mixtral"]), "--llama-cpp", str(llama_cpp)]
    code, events, _ = stage("trainer.preflight", *flags)
    assert code == 2
    where = [problem["where"] for problem in events[-1]["problems"]]
    assert where == ["max_length", "lora_target_modules"]


def test_qwen_is_checked_without_its_weights(llama_cpp, tmp_path):
    base = bases.qwen_without_weights(tmp_path / "Qwen2.5-1.5B-Instruct", tmp_path)
    assert not list(base.glob("*.safetensors"))
    run = tmp_path / "run"
    run.mkdir()
    resolve("rtx").write(run / paths.RECIPE)
    flags = ["--run", str(run), "--base", str(base), "--llama-cpp", str(llama_cpp)]
    code, events, log = stage("trainer.preflight", *flags)
    assert code == 0, log
    result = events[-1]["values"]
    assert result["parameters"] == 1_543_714_304
    assert result["adapted"] == 28 * 7
    assert not list(run.glob("*/"))


def recipe(*settings):
    return resolve("smoke", settings=list(settings)).section(PreflightSection)


def weight(tmp_path, *shape):
    size = 2
    for length in shape:
        size *= length
    return Weight(tmp_path, "BF16", shape, 0, size)


def test_a_disk_that_is_too_small_for_the_whole_run_is_named(tmp_path, monkeypatch):
    disk = namedtuple("disk", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(0, 0, 6 * 10**9))
    found = {"a": weight(tmp_path, 10**6, 1000)}
    # 2 GB merged, 2 GB in f16, 1.06 GB in q8_0.
    assert resources.check_disk(recipe(), found, tmp_path) == []
    problems = resources.check_disk(recipe("quantizations=[f32]"), found, tmp_path)
    assert "has 6.0 GB free, but the merged model and 2 GGUF files take 8.0 GB" in str(problems[0])


def test_what_an_earlier_run_left_counts_as_free(tmp_path, monkeypatch):
    disk = namedtuple("disk", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(0, 0, 4_900_000))
    found = {"a": weight(tmp_path, 1000, 1000)}
    assert resources.check_disk(recipe(), found, tmp_path)
    (tmp_path / paths.MERGED).mkdir()
    (tmp_path / paths.MERGED / "model.safetensors").write_bytes(bytes(2_000_000))
    assert resources.check_disk(recipe(), found, tmp_path) == []


def test_too_little_memory_for_the_model_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.memory.free_memory_bytes", lambda: 3 * 10**9)
    (problem,) = resources.check_host_memory({"a": weight(tmp_path, 10**6, 1000)})
    assert "asking the merged model for its answers needs 4.0 GB, but 3.0 GB are free" in str(
        problem
    )


@pytest.mark.parametrize(
    ("settings", "width", "said"),
    [
        ("quantizations=[q4_k_m]", 256, None),
        ("quantizations=[q4_k_m]", 640, "q5_0, q8_0 and the like"),
        ("quantizations=[q4_k_m]", 333, "larger types, up to f16,"),
        ("quantizations=[q4_0]", 640, None),
    ],
)
def test_rows_that_a_k_quant_cannot_hold_are_said(tmp_path, settings, width, said):
    notes = resources.block_notes(recipe(settings), {"a": weight(tmp_path, 8, width)})
    assert len(notes) == (said is not None)
    assert said is None or said in notes[0]
