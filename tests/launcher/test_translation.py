"""Files of other trainers are read key by key: translated, not used, or refused by name."""

import json
from pathlib import Path

import pytest

from contract.errors import UserError
from contract.recipe import Recipe
from launcher.configuration import resolve
from launcher.other_trainers import FOREIGN_KEYS, UNUSED_PREFIXES, foreign_key
from launcher.translation import translated

# The keys and values of the guide's own long configuration, which says three things twice.
GUIDES_LONG = {
    "model_name": "qwen3:32b-q4_K_M",
    "model_type": "causal_lm",
    "dataset_path": "data/playwright_training_data.jsonl",
    "output_dir": "models/qwen3:32b-q4_K_M-finetuned",
    "# Optimisations CPU i5 13gen": None,
    "device": "cpu",
    "num_threads": 12,
    "use_compile": True,
    "# Configuration LoRA pour économie mémoire": None,
    "use_lora": True,
    "lora_r": 32,
    "lora_alpha": 64,
    "lora_dropout": 0.1,
    "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "batch_size": 1,
    "gradient_accumulation_steps": 16,
    "learning_rate": 2e-5,
    "per_device_train_batch_size": 2,
    "num_train_epochs": 3,
    "max_seq_length": 4096,
    "warmup_ratio": 0.1,
    "weight_decay": 0.01,
    "gradient_checkpointing": True,
    "mixed_precision": "no",
    "bf16": True,
    "optim": "adamw_torch_fused",
    "tf32": False,
    "save_steps": 100,
    "eval_steps": 50,
    "save_total_limit": 3,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_loss",
    "logging_steps": 10,
    "report_to": ["tensorboard"],
    "logging_dir": "./logs",
}
LLAMA_FACTORY = """
### model
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
quantization_bit: 4
quantization_method: bitsandbytes
### method
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
### dataset
dataset: data/training/tickets.json
template: llama3
cutoff_len: 2048
max_samples: 1000
overwrite_cache: true
preprocessing_num_workers: 16
### output
output_dir: saves/llama3-8b/lora/sft
logging_steps: 10
save_steps: 500
plot_loss: true
### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
resume_from_checkpoint: null
val_size: 0.1
"""
AXOLOTL = """
base_model: Qwen/Qwen2.5-1.5B-Instruct
load_in_8bit: false
load_in_4bit: true
datasets:
  - path: data/training/tickets.jsonl
    type: chat_template
    field_messages: dialogue
    split: train
dataset_prepared_path: last_run_prepared
val_set_size: 0.05
output_dir: ./outputs/tickets
adapter: qlora
lora_model_dir:
sequence_len: 2048
sample_packing: true
eval_sample_packing: false
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
lora_target_modules:
wandb_project:
wandb_name: a
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 1
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
learning_rate: 0.0002
bf16: auto
tf32: false
gradient_checkpointing: true
flash_attention: true
warmup_ratio: 0.1
saves_per_epoch: 1
weight_decay: 0.0
special_tokens:
  pad_token: "<|end_of_text|>"
"""
SEVEN = {
    "model_to_fine_tune": "Qwen/Qwen2.5-1.5B-Instruct",
    "dataset_path": "a.jsonl",
    "output_model_name": "a",
    "epochs": 3,
    "learning_rate": 2e-4,
    "batch_size": 4,
    "lora_rank": 16,
}


@pytest.fixture
def resolved(tmp_path):
    """A function that resolves a file of this content: the recipe, and the notes."""

    def read(content, *, profile: str = "rtx", **more) -> tuple[Recipe, str]:
        notes: list[str] = []
        recipe = resolve(profile, config=written(tmp_path, content), note=notes.append, **more)
        return recipe, "\n".join(notes)

    return read


@pytest.fixture
def refused(tmp_path):
    """A function that gives the problems of a file of this content."""

    def read(content, *, profile: str = "rtx", **more) -> list[str]:
        with pytest.raises(UserError) as caught:
            resolve(profile, config=written(tmp_path, content), **more)
        return [str(problem) for problem in caught.value.problems]

    return read


def written(folder: Path, content) -> Path:
    path = folder / ("c.yaml" if isinstance(content, str) else "c.json")
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def test_llama_factorys_file_trains_and_what_was_made_of_it_is_said(resolved):
    recipe, notes = resolved(LLAMA_FACTORY)
    expected = {
        "model_to_fine_tune": "meta-llama/Meta-Llama-3-8B-Instruct",
        "dataset_path": "data/training/tickets.json",
        "output_model_name": "sft",
        "quantize_base": "nf4",
        "lora_rank": 8,
        "lora_target_modules": "all-linear",
        "max_length": 2048,
        "max_rows": 1000,
        "batch_size": 1,
        "epochs": 3,
        "precision": "bf16",
        "held_out_fraction": 0.1,
    }
    assert {key: getattr(recipe, key) for key in expected} == expected
    assert "num_train_epochs -> epochs: 3.0" in notes
    assert "bf16: true -> precision: bf16" in notes
    assert "output_dir: saves/llama3-8b/lora/sft -> output_model_name: sft" in notes
    unused = notes.partition("not used here: ")[2]
    for name in ("save_steps", "plot_loss", "ddp_timeout", "preprocessing_num_workers", "template"):
        assert name in unused
    # What has our name and our value is no news.
    assert "learning_rate" not in notes
    # Nothing at all is left over.
    assert "resume_from_checkpoint" not in notes


def test_axolotls_file_with_its_nested_dataset_trains(resolved):
    recipe, notes = resolved(AXOLOTL)
    expected = {
        "dataset_path": "data/training/tickets.jsonl",
        "columns": {"messages": "dialogue"},
        "output_model_name": "tickets",
        "quantize_base": "nf4",
        "lora_rank": 32,
        "lora_target_modules": "all-linear",
        "max_length": 2048,
        "packing": True,
        "batch_size": 2,
        "epochs": 1,
        "optim": "paged_adamw_8bit",
        "held_out_fraction": 0.05,
        # `auto` leaves it to the profile.
        "precision": "bf16",
    }
    assert {key: getattr(recipe, key) for key in expected} == expected
    assert "datasets.field_messages: dialogue -> columns: {'messages': 'dialogue'}" in notes
    assert "optimizer: adamw_bnb_8bit -> optim: paged_adamw_8bit" in notes
    assert "special_tokens" in notes.partition("not used here: ")[2]
    # Two packed sequences would be several times as many rows.
    assert "packing: the batch counts rows here" in notes


def test_without_packing_a_batch_is_what_it_is_elsewhere(resolved):
    _, notes = resolved(AXOLOTL.replace("sample_packing: true", "sample_packing: false"))
    assert "counts rows" not in notes


def test_all_contradictions_of_the_guides_long_file_are_one_list(refused):
    problems = refused(GUIDES_LONG)
    assert len(problems) == 3
    text = "\n".join(problems)
    assert "batch_size: 1 and 2 (by per_device_train_batch_size: 2). Keep one" in text
    assert "fp32 (by mixed_precision: no) and bf16 (by bf16: true). Keep one" in text
    assert "device: cpu: profile rtx is for device cuda. Use --profile cpu" in text


def test_without_its_contradictions_the_guides_long_file_trains(resolved):
    once = {k: v for k, v in GUIDES_LONG.items() if k not in ("batch_size", "bf16")}
    recipe, notes = resolved(once, profile="auto")
    expected = {
        "profile": "cpu",
        "model_to_fine_tune": "qwen3:32b-q4_K_M",
        "output_model_name": "qwen3:32b-q4_K_M-finetuned",
        "epochs": 3,
        "batch_size": 2,
        "lora_rank": 32,
        "max_length": 4096,
        "cpu_threads": 12,
        "precision": "fp32",
        "optim": "adamw_torch_fused",
        "logging_steps": 10,
        "eval_steps": 50,
    }
    assert {key: getattr(recipe, key) for key in expected} == expected
    unused = notes.partition("not used here: ")[2]
    for name in ("logging_dir", "report_to", "use_compile", "tf32", "save_steps"):
        assert name in unused
    assert "#" not in notes


def test_contradictions_stand_among_all_other_problems(refused):
    problems = refused({**GUIDES_LONG, "epochs": 0, "lern": 1, "use_dora": True})
    assert len(problems) == 6
    text = "\n".join(problems)
    assert "epochs: is said twice, and not the same: 3 (by num_train_epochs: 3)" in text
    assert "lern: unknown key" in text
    assert "use_dora: true: makes another adapter" in text


def test_everything_that_a_cpu_cannot_do_is_said_at_once(refused):
    (problem,) = refused({**SEVEN, "fp16": True, "optimizer": "adamw_bnb_8bit"}, profile="cpu")
    assert "precision fp16 needs device cuda; use fp32 or bf16 on a CPU" in problem
    assert "Optim paged_adamw_8bit needs device cuda; use adamw_torch on a CPU" in problem


def test_our_key_and_its_foreign_name_with_one_value_are_no_contradiction(resolved):
    recipe, _ = resolved({**SEVEN, "num_train_epochs": 3.0, "lora_r": 16})
    assert (recipe.epochs, recipe.lora_rank) == (3, 16)


def test_a_later_source_settles_what_a_file_leaves_open(resolved):
    twice = {**SEVEN, "num_train_epochs": 2, "dataset_path": None, "dataset": "alpaca_en_demo"}
    recipe, notes = resolved(twice, data="mine.jsonl", settings=["epochs=1"])
    assert (recipe.epochs, recipe.dataset_path) == (1, "mine.jsonl")
    assert "epochs" not in notes


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ({"lora_target": "q_proj, v_proj"}, {"lora_target_modules": ["q_proj", "v_proj"]}),
        ({"load_in_4bit": False}, {"quantize_base": "none"}),
        ({"adapter": "lora"}, {"quantize_base": "none"}),
        ({"adapter": "lora", "load_in_4bit": True}, {"quantize_base": "nf4"}),
        ({"fp16": True, "bf16": False}, {"precision": "fp16"}),
        ({"bf16": False, "fp16": False}, {"precision": "fp32"}),
        ({"mixed_precision": "fp16"}, {"precision": "fp16"}),
        ({"optim": "paged_adamw_8bit"}, {"optim": "paged_adamw_8bit"}),
        ({"optimizer": "adamw_hf"}, {"optim": "adamw_torch"}),
        ({"lr_scheduler": "linear"}, {"lr_scheduler_type": "linear"}),
        ({"warmup_steps": 0, "warmup_ratio": 0.2}, {"warmup_ratio": 0.2}),
        ({"warmup_steps": 0}, {"warmup_ratio": 0}),
        ({"warmup_steps": 0.1}, {"warmup_ratio": 0.1}),
        ({"use_gradient_checkpointing": "unsloth"}, {"gradient_checkpointing": True}),
        ({"disable_gradient_checkpointing": True}, {"gradient_checkpointing": False}),
        ({"lora": {"r": 16, "lora_alpha": 8}}, {"lora_rank": 16, "lora_alpha": 8}),
        ({"lora": {"rank": 16, "alpha": 8, "# wide": None}}, {"lora_rank": 16, "lora_alpha": 8}),
        ({"enable_thinking": False}, {"thinking": "off"}),
        ({"default_system": "Sois bref."}, {"system_prompt": "Sois bref."}),
        ({"datasets": ["b.jsonl"], "dataset_path": None}, {"dataset_path": "b.jsonl"}),
        ({"output_dir": "out/b"}, {"output_model_name": "a"}),
        ({"eval_strategy": "steps", "eval_steps": 500}, {"eval_steps": 500}),
        ({"eval_strategy": "epoch"}, {"eval_steps": 0.3333}),
        ({"eval_strategy": "no"}, {"eval_steps": None}),
        ({"eval_strategy": "no", "eval_steps": 500}, {"eval_steps": None}),
        ({"evals_per_epoch": 4}, {"eval_steps": 0.0833}),
        ({"evals_per_epoch": 1, "epochs": 1}, {"eval_steps": None}),
        ({"load_best_model_at_end": True, "eval_steps": 50}, {"eval_steps": 50}),
        ({"early_stopping_steps": 3}, {"early_stopping_patience": 3}),
    ],
)
def test_a_value_is_converted_where_the_meaning_is_equal(resolved, given, ours):
    recipe, _ = resolved({key: value for key, value in {**SEVEN, **given}.items() if value != []})
    assert {key: getattr(recipe, key) for key in ours} == ours


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"neftune_noise_alpha": 5}, "neftune_noise_alpha: 5: adds noise"),
        ({"use_dora": True}, "use_dora: true: makes another adapter"),
        ({"train_on_inputs": True}, "train_on_inputs: true: learns questions"),
        ({"template": "llama3"}, "template: llama3: by its name it is not the base's own"),
        ({"chat_template": "chatml"}, "chat_template: chatml: by its name"),
        ({"loss_type": "dft"}, "loss_type: dft: is another loss"),
        ({"stage": "dpo"}, "stage: dpo: is another kind of training"),
        ({"rl": "dpo"}, "rl: dpo: is another kind of training"),
        ({"finetuning_type": "full"}, "finetuning_type: full: trains something other than a LoRA"),
        ({"use_peft": False}, "use_peft: false: trains all weights"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save: ['lm_head']: trains whole modules"),
        ({"resume_from_checkpoint": "out/1"}, "resume_from_checkpoint: out/1: goes on with"),
        ({"deepspeed": "ds.json"}, "deepspeed: ds.json: spreads the training over several devices"),
        ({"load_in_8bit": True}, "Use load_in_4bit: true (NF4) or false"),
        ({"max_steps": 100}, "max_steps: 100: bounds the steps. Use epochs"),
        ({"warmup_steps": 10}, "Use warmup_ratio: these steps divided by all steps"),
        ({"adam_beta2": 0.95}, "adam_beta2: 0.95: is another optimizer"),
        ({"val_size": 100}, "val_size: 100: is a number of rows. Use held_out_fraction"),
        ({"dataset": "alpaca_en_demo"}, "is the name of a dataset, not a file"),
        ({"datasets": [{"path": "a/b"}]}, "datasets.path: a/b: is no file of rows"),
        ({"datasets": ["a.jsonl", "b.jsonl"]}, "datasets: are 2 datasets. Join them"),
        (
            {"datasets": [{"path": "a.jsonl", "type": "completion"}]},
            "datasets.type: completion: is a form of prompts that is not written here",
        ),
        (
            {"datasets": [{"path": "a.jsonl", "type": {"format": "Q: {instruction} A:"}}]},
            "datasets.type.format: Q: {instruction} A:: is a form of prompts",
        ),
        ({"datasets": [{"path": "a.jsonl", "split": "train[:1%]"}]}, "takes a part of the dataset"),
        ({"datasets": [{"path": "a.jsonl", "tpye": "alpaca"}]}, "datasets.tpye: unknown key"),
        (
            {"load_best_model_at_end": True, "eval_strategy": "no"},
            "load_best_model_at_end: true: keeps the best adapter, and nothing evaluates "
            "(eval_strategy: no)",
        ),
        ({"bf16": False}, "bf16: false: profile rtx computes in bf16"),
        ({"lora_r": "8", "lora_rank": 8}, "lora_rank: is said twice"),
        ({"sequence_len": 512, "num_epochs": 3}, "adapter: is not set: Axolotl trains all weights"),
        ({"lora": {"rr": 3}}, "lora.rr: unknown key"),
        ({"nested": {"r": 3}}, "nested: unknown key"),
        ({"adapter": []}, "adapter: []: is no adapter that can be trained"),
        ({"num_train_epoch": 3}, "num_train_epoch: unknown key. Did you mean num_train_epochs?"),
    ],
)
def test_what_would_change_the_training_is_refused_by_name(refused, given, said):
    problems = refused({**SEVEN, **given})
    assert len(problems) == 1, problems
    assert said in problems[0]


@pytest.mark.parametrize(
    "given",
    [
        {"neftune_noise_alpha": None},
        {"use_dora": False},
        {"stage": "sft", "finetuning_type": "lora", "do_train": True},
        {"template": "qwen"},
        {"chat_template": "tokenizer_default"},
        {"loss_type": "nll"},
        {"bias": "none", "task_type": "CAUSAL_LM", "peft_type": "LORA"},
        {"modules_to_save": None, "rank_pattern": {}},
        {"max_steps": -1},
        {"train_on_inputs": False},
        {"resume_from_checkpoint": False},
        {"fp16": False},
    ],
)
def test_values_that_mean_what_happens_here_change_nothing(resolved, given):
    assert resolved({**SEVEN, **given})[0] == resolved(SEVEN)[0]


def test_a_dataset_in_alpacas_form_is_read_and_what_differs_is_said(resolved):
    content = {**SEVEN, "datasets": [{"path": "a.jsonl", "type": "alpaca", "ds_type": "json"}]}
    _, notes = resolved(content)
    assert "written in the base's chat template, not in Alpaca's prompt" in notes


def test_the_last_adapter_is_not_what_is_kept_and_that_is_said(resolved):
    _, notes = resolved({**SEVEN, "load_best_model_at_end": False})
    assert "load_best_model_at_end: false: the adapter of least held-out loss is kept" in notes
    _, notes = resolved({**SEVEN, "load_best_model_at_end": False, "eval_strategy": "no"})
    assert "load_best_model_at_end" not in notes


def test_a_part_of_a_name_is_no_template_of_another_family(refused):
    # No base is named: nothing to compare with.
    content = {key: value for key, value in SEVEN.items() if key != "model_to_fine_tune"}
    assert any("template: qwen" in problem for problem in refused({**content, "template": "qwen"}))


def test_the_table_is_sound():
    for name, key in FOREIGN_KEYS.items():
        ways = [bool(key.ours), bool(key.unused), bool(key.changes)]
        assert ways.count(True) == 1, name
        assert key.remedy.endswith((".", "json.", "default.")), name
    prefixes = [prefix for group in UNUSED_PREFIXES.values() for prefix in group]
    # A key of ours is never taken for another trainer's that has no meaning.
    for name in Recipe.model_fields:
        assert not name.startswith(tuple(prefixes)), name
    assert foreign_key("epochz") is None


@pytest.fixture(scope="module")
def peers():
    """The classes whose keys people have in their files; importing them takes seconds."""
    import peft
    import transformers
    import trl

    return [
        transformers.TrainingArguments,
        trl.SFTConfig,
        trl.ModelConfig,
        trl.ScriptArguments,
        peft.LoraConfig,
    ]


@pytest.mark.slow
def test_every_key_of_the_locked_libraries_is_known(peers):
    unknown = {
        f"{peer.__name__}.{name}"
        for peer in peers
        for name in peer.__dataclass_fields__
        if translated({name: None}, "f").unknown
    }
    assert unknown == set()


@pytest.mark.slow
def test_what_the_locked_libraries_write_with_their_defaults_is_read(peers):
    _, sft, _, _, lora = peers
    for written_by_it in (
        sft(output_dir="out/tickets", use_cpu=True, bf16=False).to_dict(),
        {**lora(task_type="CAUSAL_LM").to_dict(), "target_modules": ["q_proj"]},
    ):
        read = translated(json.loads(json.dumps(written_by_it, default=str)), "f")
        assert (read.problems, read.unknown) == ([], [])
