"""What other trainers call our keys, and what becomes of their other keys: one table.

The names are those of transformers' `TrainingArguments`, TRL's `SFTConfig` and `ModelConfig`,
PEFT's `LoraConfig`, bitsandbytes' quantization, LLaMA-Factory, Axolotl, and scripts around them.
Every row says one of three things about a key: what it is called here, and how its value is
converted; that it changes nothing that a run makes, and why; or that only some of its values mean
what happens here anyway, and why any other is refused. So nothing that would change what is trained
is dropped in silence. `launcher.translation` applies the table to a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

# What a converter returns where a value leaves the matter to others: `bf16: auto`.
UNSAID: Any = object()


class UnknownValueError(Exception):
    """A value that has no equal here: what is wrong with it, and the remedy."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class ForeignKey:
    """One key of another trainer.

    Attributes:
        name: what it is called there.
        ours: what it is called here, or empty.
        convert: its value -> ours, or `UNSAID`; raises `UnknownValueError`.
        fallback: it counts only where no other key of the file says the same.
        unused: why it changes nothing that a run makes.
        equal: the values that mean what happens here anyway.
        changes: what any other value would do.
        remedy: what to do about that.
    """

    name: str
    ours: str = ""
    convert: Callable[[Any], Any] = _as_it_is
    fallback: bool = False
    unused: str = ""
    equal: tuple[Any, ...] = ()
    changes: str = ""
    remedy: str = "Remove it."

    def means_ours(self, value: Any) -> bool:
        """Whether the value says what happens here anyway."""
        # By type as well: 1 is not True.
        return any(value == equal and type(value) is type(equal) for equal in self.equal)


def _precision_of_switch(precision: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if value in ("auto", "full"):
            return precision if value == "full" else UNSAID
        if not isinstance(value, bool):
            raise UnknownValueError("is neither true nor false", f"Use precision: {precision}.")
        # What `false` of both switches together means is seen by `translation`.
        return precision if value else UNSAID

    return convert


_PRECISIONS = {
    "fp32": "fp32 float32 torch.float32 32 32-true no false none",
    "bf16": "bf16 bfloat16 torch.bfloat16 bf16-mixed",
    "fp16": "fp16 float16 torch.float16 half 16 16-mixed",
}


def _precision(value: Any) -> Any:
    word = str(value).lower()
    if word == "auto":
        return UNSAID
    for ours, words in _PRECISIONS.items():
        if word in words.split():
            return ours
    raise UnknownValueError("is no precision that can be trained in", "Use bf16, fp16 or fp32.")


def _device(value: Any) -> Any:
    word = str(value).lower()
    if word == "auto":
        return UNSAID
    return "cuda" if word in ("gpu", "cuda:0") else value


def _only_true(ours: Any) -> Callable[[Any], Any]:
    """`true` says this; `false` says nothing."""

    def convert(value: Any) -> Any:
        if not isinstance(value, bool):
            raise UnknownValueError("is neither true nor false", "Use true or false.")
        return ours if value else UNSAID

    return convert


def _four_bit(value: Any) -> Any:
    if not isinstance(value, bool):
        raise UnknownValueError("is neither true nor false", "Use true or false.")
    return "nf4" if value else "none"


def _quantization_bit(value: Any) -> Any:
    if value == 4:
        return "nf4"
    raise UnknownValueError(
        "is no quantization that a base can be trained in", "Use 4 (NF4), or quantize_base: none."
    )


def _adapter(value: Any) -> Any:
    kinds = {"lora": "none", "qlora": "nf4"}
    if isinstance(value, str) and value in kinds:
        return kinds[value]
    raise UnknownValueError("is no adapter that can be trained", "Use lora or qlora.")


_OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw_hf": "adamw_torch",
    # They differ in where their state lies when memory runs short, and in nothing else.
    "adamw_8bit": "paged_adamw_8bit",
    "adamw_bnb_8bit": "paged_adamw_8bit",
    "paged_adamw": "paged_adamw_32bit",
}


def _optimizer(value: Any) -> Any:
    return _OPTIMIZERS.get(str(value), value)


def _modules(value: Any) -> Any:
    if isinstance(value, str):
        if value in ("all", "all-linear"):
            return "all-linear"
        names = [name.strip() for name in value.split(",")]
        if not all(re.fullmatch(r"[\w.]+", name) for name in names):
            raise UnknownValueError("is a pattern", "List the names of the modules, or all-linear.")
        return names
    return sorted(value) if isinstance(value, set) else value


def _fraction(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or value >= 1:
        raise UnknownValueError(
            "is a number of rows", "Use held_out_fraction, such as 0.1, or evaluation_path."
        )
    return value


def _warmup(value: Any) -> Any:
    # transformers 5 takes a number below 1 for a ratio.
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1:
        return value
    raise UnknownValueError(
        "is a number of steps, and how many there are is only known from the data",
        "Use warmup_ratio: these steps divided by all steps.",
    )


DATASET_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


def _dataset(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and value.lower().endswith(DATASET_SUFFIXES) and "," not in value:
        return value
    if isinstance(value, list) or "," in str(value):
        raise UnknownValueError("is several datasets", "Join them in one file: dataset_path.")
    raise UnknownValueError(
        "is the name of a dataset, not a file",
        "Save it as .jsonl, and give that file: dataset_path.",
    )


def _model_name_of_folder(value: Any) -> Any:
    name = PurePosixPath(str(value).replace("\\", "/")).name
    return name if re.fullmatch(r"[A-Za-z0-9][\w.-]*(:[\w.-]+)?", name, re.ASCII) else UNSAID


def _text_column(value: Any) -> Any:
    return UNSAID if value == "text" else {"text": value}


def _checkpointing(value: Any) -> Any:
    # Axolotl's "offload" and "legacy", Unsloth's "unsloth": where to, and how fast.
    return value if isinstance(value, bool) else isinstance(value, str) or value


def _inverted(value: Any) -> Any:
    return not value if isinstance(value, bool) else value


_TRANSLATED = (
    *(
        ForeignKey(name, ours)
        for ours, names in {
            "model_to_fine_tune": "base_model model_name model_name_or_path model model_id "
            "pretrained_model_name_or_path base_model_name_or_path",
            "model_revision": "revision revision_of_model",
            "output_model_name": "new_model new_model_name finetuned_model_name",
            "epochs": "num_train_epochs num_epochs n_epochs",
            "learning_rate": "lr",
            "batch_size": "per_device_train_batch_size micro_batch_size train_batch_size",
            "gradient_accumulation_steps": "grad_accumulation_steps gradient_accumulation",
            "lora_rank": "lora_r r rank",
            "lora_alpha": "alpha",
            "lora_dropout": "dropout",
            "max_length": "max_seq_length cutoff_len sequence_len max_seq_len model_max_length",
            "use_rslora": "peft_use_rslora",
            "packing": "sample_packing neat_packing",
            "lr_scheduler_type": "lr_scheduler scheduler",
            "max_rows": "max_samples max_train_samples",
            "system_prompt": "default_system default_system_message",
            "cpu_threads": "num_threads",
            "seed": "random_seed random_state",
            "early_stopping_patience": "early_stopping_steps",
        }.items()
        for name in names.split()
    ),
    *(
        ForeignKey(name, "dataset_path", _dataset)
        for name in ("dataset", "dataset_name", "data_path", "data_files", "train_file")
    ),
    *(
        ForeignKey(name, "evaluation_path", _dataset)
        for name in ("eval_dataset", "eval_file", "validation_file", "test_file")
    ),
    *(ForeignKey(n, "held_out_fraction", _fraction) for n in ("val_size", "val_set_size")),
    *(
        ForeignKey(name, "lora_target_modules", _modules)
        for name in ("lora_target", "target_modules", "lora_target_modules")
    ),
    ForeignKey("lora_target_linear", "lora_target_modules", _only_true("all-linear")),
    ForeignKey("warmup_steps", "warmup_ratio", _warmup, fallback=True),
    ForeignKey("num_warmup_steps", "warmup_ratio", _warmup, fallback=True),
    ForeignKey("optim", "optim", _optimizer),
    ForeignKey("optimizer", "optim", _optimizer),
    ForeignKey("bf16", "precision", _precision_of_switch("bf16")),
    ForeignKey("fp16", "precision", _precision_of_switch("fp16")),
    ForeignKey("bfloat16", "precision", _precision_of_switch("bf16")),
    ForeignKey("float16", "precision", _precision_of_switch("fp16")),
    ForeignKey("mixed_precision", "precision", _precision),
    ForeignKey("precision", "precision", _precision),
    ForeignKey("bnb_4bit_compute_dtype", "precision", _precision, fallback=True),
    ForeignKey("compute_dtype", "precision", _precision, fallback=True),
    ForeignKey("device", "device", _device),
    ForeignKey("use_cpu", "device", _only_true("cpu")),
    ForeignKey("no_cuda", "device", _only_true("cpu")),
    ForeignKey("load_in_4bit", "quantize_base", _four_bit),
    ForeignKey("use_qlora", "quantize_base", _four_bit),
    ForeignKey("quantization_bit", "quantize_base", _quantization_bit),
    ForeignKey("adapter", "quantize_base", _adapter, fallback=True),
    ForeignKey("gradient_checkpointing", "gradient_checkpointing", _checkpointing),
    ForeignKey("activation_offloading", "activation_offloading", _checkpointing),
    ForeignKey("use_gradient_checkpointing", "gradient_checkpointing", _checkpointing),
    ForeignKey("disable_gradient_checkpointing", "gradient_checkpointing", _inverted),
    ForeignKey("enable_thinking", "thinking", lambda on: UNSAID if on is True else "off"),
    ForeignKey("dataset_text_field", "columns", _text_column),
    # A folder, and the only name that these files have for what they make.
    ForeignKey("output_dir", "output_model_name", _model_name_of_folder, fallback=True),
)

_TRACKED = "losses are in metrics.jsonl and in the summary; trackers names who else gets them"
_SAVED = "checkpoint_steps, checkpoint_minutes and checkpoints_kept say when a training is saved"
_FAST = "speed and memory alone"
_ONE_DEVICE = "one process on one device"
_EVALUATED = "the held-out loss is measured every eval_steps, and before and after"
_HUB = "the result stays here and in Ollama"
_OF_THE_BASE = "the base says it itself"
_ONE_FILE = "a dataset is one file, and read whole"
_METHODS = "of a method that is not used"
_IN_ORDER = "rows come in a random order, by the seed"

_UNUSED = {
    _TRACKED: "logging_dir report_to run_name log_level log_level_replica log_on_each_node "
    "logging_strategy logging_first_step logging_nan_inf_filter disable_tqdm project "
    "trackio_space_id trackio_bucket_id trackio_static_space_id plot_loss "
    "include_num_input_tokens_seen include_tokens_per_second include_effective_tokens_per_second "
    "include_for_metrics "
    "hf_mlflow_log_artifacts use_tensorboard report ray_run_name "
    "print_param_status profiler_steps skip_memory_metrics debug "
    "strict verbose logging",
    _SAVED: "save_steps save_strategy save_total_limit save_only_model save_on_each_node "
    "save_safetensors saves_per_epoch save_first_step overwrite_output_dir enable_jit_checkpoint "
    "ignore_data_skip restore_callback_states_from_checkpoint output_path export_dir save_merged "
    "auto_resume_from_checkpoints",
    _FAST: "use_compile torch_compile torch_compile_backend torch_compile_mode compile tf32 "
    "dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers "
    "dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order "
    "preprocessing_num_workers preprocessing_batch_size dataset_num_proc dataset_processes "
    "dataset_keep_in_memory num_workers "
    "use_liger_kernel liger_kernel_config enable_liger_kernel use_unsloth use_unsloth_gc "
    "flash_attention flash_attn sdp_attention xformers_attention attn_implementation "
    "flash_attn_cross_entropy flash_attn_rms_norm flash_attn_fuse_qkv flash_attn_fuse_mlp "
    "flash_optimum lora_mlp_kernel lora_qkv_kernel lora_o_kernel low_cpu_mem_usage lora_on_cpu "
    "use_cache use_kv_cache torch_empty_cache_steps torch_dtype dtype device_map max_memory "
    "gpu_memory_limit quantization_device_map gradient_checkpointing_kwargs "
    "activation_checkpointing activation_checkpointing_kwargs "
    "use_reentrant_gc padding_free pad_to_sequence_len pad_to_multiple_of batch_flattening "
    "sample_packing_eff_est total_num_tokens sample_packing_group_size sample_packing_bin_size "
    "auto_find_batch_size bnb_4bit_quant_storage llm_int8_threshold "
    "llm_int8_skip_modules llm_int8_enable_fp32_cpu_offload llm_int8_has_fp16_weight "
    "average_tokens_across_devices runtime_config length_column_name infer_dtype infer_backend "
    "skip_prepare_dataset use_kernels cut_cross_entropy quantize_moe_experts torchdistx_path "
    "use_scattermoe use_sonicmoe fused_attn_kernel experts_implementation flex_attention "
    "flex_attn_compile_kwargs eager_attention sage_attention sdpa_varlen large_head_attention "
    "gemma4_hybrid_attn_impl chunked_cross_entropy chunked_cross_entropy_num_chunks tiled_mlp "
    "tiled_mlp_num_shards gc_steps gc_collect_steps layer_offloading selective_checkpointing "
    "experimental_skip_move_to_device offload_folder use_v1_kernels embeddings_skip_upcast "
    "lora_embedding_kernel block_diag_attn",
    _ONE_DEVICE: "local_rank ddp_timeout ddp_find_unused_parameters ddp_bucket_cap_mb "
    "ddp_broadcast_buffers ddp_static_graph ddp_backend fsdp_config accelerator_config "
    "megatron_core heads_k_stride ring_attn_func fsdp_version fsdp_final_state_dict_type use_ray "
    "resources_per_worker",
    _EVALUATED: "eval_delay "
    "per_device_eval_batch_size eval_batch_size eval_on_start eval_accumulation_steps "
    "eval_do_concat_batches eval_use_gather_object batch_eval_metrics prediction_loss_only "
    "bf16_full_eval fp16_full_eval eval_packing eval_sample_packing eval_table_size "
    "eval_max_new_tokens do_causal_lm_eval eval_causal_lm_metrics do_train do_eval do_predict "
    "predict_with_generate compute_accuracy eval_num_beams dataset_test_split do_bench_eval "
    "bench_dataset bench_split eval_on_each_dataset generate_samples",
    _HUB: "push_to_hub hub_model_id hub_token hub_strategy hub_private_repo hub_always_push "
    "hub_revision hf_use_auth_token hf_hub_token push_dataset_to_hub",
    _OF_THE_BASE: "model_type tokenizer_type tokenizer_use_fast use_fast_tokenizer "
    "tokenizer_legacy is_falcon_derived_model is_llama_derived_model is_qwen_derived_model "
    "is_mistral_derived_model pad_token ds_type dataset_config dataset_train_split label_names "
    "auto_mapping peft_version inference_mode processor_type processor_kwargs type_of_model "
    "tokenizer_use_mistral_common base_model_config freeze_mm_modules _load_in_4bit _load_in_8bit",
    "no code of a model's is run": "trust_remote_code trust_remote_code_model",
    _ONE_FILE: "dataset_prepared_path tokenized_path overwrite_cache cache_dir dataset_dir "
    "dataset_kwargs remove_unused_columns buffer_size streaming dataset_streaming",
    _IN_ORDER: "group_by_length train_sampling_strategy data_seed shuffle_dataset "
    "dataloader_drop_last shuffle_merged_datasets",
    "a NaN ends a training, nothing else": "loss_watchdog_threshold loss_watchdog_patience",
    _METHODS: "qalora_group_size pissa_iter pissa_convert "
    "loraplus_lr_embedding megatron_config ignore_bias_buffers freeze_vision_tower "
    "freeze_multi_modal_projector",
    "the constants of NF4 are always quantized as well": "bnb_4bit_use_double_quant "
    "use_bnb_nested_quant double_quantization",
    "the loss is on the answers and their ends alone": "assistant_only_loss eot_tokens",
}

# The keys of a tool or a method, by how they begin.
UNUSED_PREFIXES = {
    _TRACKED: ("wandb_", "mlflow_", "comet_", "use_comet", "swanlab_", "trackio_", "otel_"),
    _FAST: ("liger_", "vllm_", "sglang_", "gradio_"),
    _METHODS: (
        *("ppo_", "dpo_", "kto_", "simpo_", "orpo_", "cpo_", "pref_", "reward_model_"),
        *("ref_model_", "galore_", "qgalore_", "apollo_", "badam_", "dion_", "oft_", "kt_"),
    ),
}

_LORA_ALONE = "Only LoRA adapters are trained here, on every layer, merged exactly."
_ADAMW = "The optimizers are AdamW's, with the usual constants."
_ANSWERS = "The loss is on the answers alone: remove it."
_OWN_TEMPLATE = (
    "The base's own chat template is trained and served: remove it, or put the template into the "
    "base's tokenizer_config.json."
)
_SFT_ALONE = "Only supervised fine-tuning is done here."


def _rows(
    names: str, *equal: Any, changes: str, remedy: str = "Remove it."
) -> tuple[ForeignKey, ...]:
    return tuple(
        ForeignKey(name, equal=equal, changes=changes, remedy=remedy) for name in names.split()
    )


_CHANGES = (
    *_rows("stage", "sft", changes="is another kind of training", remedy=_SFT_ALONE),
    *_rows(
        "rl reward_model process_reward_model pretraining_dataset ref_model",
        False,
        changes="is another kind of training",
        remedy=_SFT_ALONE,
    ),
    *_rows(
        "finetuning_type training_type train_type peft_type",
        "lora",
        "LORA",
        changes="trains something other than a LoRA adapter",
        remedy="Use lora.",
    ),
    *_rows("use_lora use_peft", True, changes="trains all weights", remedy=_LORA_ALONE),
    *_rows("task_type lora_task_type", "CAUSAL_LM", changes="is another task", remedy=_SFT_ALONE),
    *_rows(
        "relora use_pose use_kt use_mca use_onebitllms upcast_lmhead_output freeze_language_model "
        "split_special_tokens use_dora peft_use_dora use_qalora use_bdlora pissa_init lora_bias "
        "fan_in_fan_out lora_fan_in_fan_out create_new_adapter use_llama_pro ensure_weight_tying",
        False,
        changes="makes another adapter",
        remedy=_LORA_ALONE,
    ),
    *_rows(
        "rank_pattern alpha_pattern loftq_config eva_config corda_config lora_ga_config "
        "velora_config monteclora_config arrow_config kasa_config peft_layers_to_transform "
        "layers_to_transform layers_pattern layer_replication peft_layer_replication "
        "exclude_modules target_parameters lora_target_parameters trainable_token_indices "
        "alora_invocation_tokens loraplus_lr_ratio freeze_trainable_layers relora_steps "
        "relora_warmup_steps relora_anneal_steps relora_prune_ratio relora_cpu_offload "
        "jagged_restart_steps unfrozen_parameters adapter_folder lora_rank_pattern "
        "lora_alpha_pattern peft_layers_pattern peft_trainable_token_indices lisa_n_layers",
        {},
        [],
        changes="makes another adapter",
        remedy=_LORA_ALONE,
    ),
    *_rows(
        "init_lora_weights peft_init_lora_weights",
        True,
        changes="starts from other weights",
        remedy=_LORA_ALONE,
    ),
    *_rows("bias", "none", changes="trains biases", remedy=_LORA_ALONE),
    *_rows(
        "modules_to_save lora_modules_to_save additional_target",
        [],
        changes="trains whole modules beside the adapter",
        remedy="An adapter with whole modules cannot be merged exactly: remove it, or name linear "
        "modules in lora_target_modules.",
    ),
    *_rows(
        "adapter_name_or_path lora_model_dir",
        "",
        changes="goes on with an adapter that was trained before",
        remedy="Merge it first, and name the merged folder as model_to_fine_tune.",
    ),
    *_rows(
        "resume_from_checkpoint",
        False,
        "",
        "false",
        changes="goes on with a training that was cut off elsewhere",
        remedy="Remove it: the same command resumes by itself, from the last checkpoint.",
    ),
    *_rows(
        "load_in_8bit",
        False,
        changes="quantizes the base to 8 bits",
        remedy="Use load_in_4bit: true (NF4) or false.",
    ),
    *_rows(
        "bnb_4bit_quant_type quantization_type",
        "nf4",
        changes="quantizes the base otherwise",
        remedy="Use nf4.",
    ),
    *_rows(
        "quantization_method quant_method",
        "bnb",
        "bitsandbytes",
        changes="quantizes the base otherwise",
        remedy="Use bitsandbytes.",
    ),
    *_rows("gptq fp8 qat quantization", False, changes="quantizes the base otherwise"),
    *_rows(
        "pure_bf16",
        False,
        changes="trains the adapter's weights in bf16",
        remedy="Use bf16: true; the adapter's weights are fp32.",
    ),
    *_rows(
        "neftune_noise_alpha noisy_embedding_alpha",
        0,
        0.0,
        changes="adds noise to the embeddings (NEFTune)",
    ),
    *_rows("label_smoothing_factor", 0, 0.0, changes="smooths the labels"),
    *_rows("loss_type", "nll", changes="is another loss", remedy="The loss is cross-entropy."),
    *_rows(
        "use_dft_loss use_asft_loss use_eaft_loss use_eaft",
        False,
        changes="is another loss",
        remedy="The loss is cross-entropy.",
    ),
    *_rows("router_aux_loss_coef moe_aux_loss_coef", 0, 0.0, changes="adds to the loss"),
    *_rows("train_on_inputs train_on_prompt", False, changes="learns questions", remedy=_ANSWERS),
    *_rows("completion_only_loss", True, changes="learns questions as well", remedy=_ANSWERS),
    *_rows(
        "mask_history",
        False,
        changes="learns the last answer of a conversation alone",
        remedy="Remove it, and give the other turns weight 0 in the dataset.",
    ),
    *_rows("roles_to_train", ["assistant"], changes="learns other turns", remedy=_ANSWERS),
    *_rows("train_on_eos train_on_eot", "turn", changes="learns other ends", remedy=_ANSWERS),
    *_rows("truncation_mode", "keep_start", changes="cuts rows at their start"),
    *_rows("packing_strategy", "bfd", "bfd-requeue", changes="packs across the ends of rows"),
    *_rows(
        "chat_template_jinja chat_template_path chat_template_kwargs tool_format eos_token",
        {},
        # What `SFTConfig.to_dict` writes for any, and for none.
        "<EOS_TOKEN>",
        changes="is another form of a conversation",
        remedy=_OWN_TEMPLATE,
    ),
    *_rows(
        "tokens add_tokens add_special_tokens added_tokens_overrides",
        [],
        {},
        changes="adds tokens that the base does not have",
    ),
    *_rows(
        "resize_vocab resize_token_embeddings_to_32x shrink_embeddings",
        False,
        changes="changes the base's vocabulary",
    ),
    *_rows(
        "rope_scaling mixture_of_depths overrides_of_model_config",
        {},
        changes="changes the base's architecture",
    ),
    *_rows(
        "shift_attn s2_attention train_from_scratch random_init_weights upcast_layernorm",
        False,
        changes="trains another model than the base",
    ),
    *_rows(
        "max_steps",
        -1,
        0,
        changes="bounds the steps",
        remedy="Use epochs, which may be fractional: 0.5.",
    ),
    *_rows("adam_beta1", 0.9, changes="is another optimizer", remedy=_ADAMW),
    *_rows("adam_beta2", 0.999, changes="is another optimizer", remedy=_ADAMW),
    *_rows("adam_epsilon adam_eps", 1e-8, changes="is another optimizer", remedy=_ADAMW),
    *_rows(
        "use_galore use_apollo use_badam use_adam_mini use_muon",
        False,
        changes="is another optimizer",
        remedy=_ADAMW,
    ),
    *_rows(
        "optim_args optim_target_modules",
        {},
        [],
        "",
        changes="is another optimizer",
        remedy=_ADAMW,
    ),
    *_rows(
        "lr_scheduler_kwargs cosine_min_lr_ratio cosine_constant_lr_ratio lr_quadratic_warmup "
        "lr_groups embedding_lr embedding_lr_scale",
        {},
        changes="is another course of the learning rate",
        remedy="Use lr_scheduler_type and warmup_ratio alone.",
    ),
    *_rows(
        "deepspeed fsdp parallelism_config",
        "",
        [],
        {},
        False,
        changes="spreads the training over several devices",
        remedy="One device trains here; remove it, and see that batch_size times "
        "gradient_accumulation_steps is what you had over all of them.",
    ),
    *_rows(
        "num_gpus n_gpu nproc_per_node num_processes world_size sequence_parallel_degree "
        "dp_shard_size dp_replicate_size expert_parallel_size "
        "context_parallel_size tensor_parallel_size",
        1,
        changes="spreads the training over several devices",
        remedy="One device trains here: raise gradient_accumulation_steps instead.",
    ),
    *_rows(
        "metric_for_best_model",
        "eval_loss",
        "loss",
        changes="chooses the adapter by another metric",
        remedy="Adapters are chosen by their held-out loss: eval_loss.",
    ),
    *_rows(
        "greater_is_better",
        False,
        changes="chooses the adapter with the greatest loss",
        remedy="Use false.",
    ),
    *_rows(
        "early_stopping_threshold",
        0,
        0.0,
        changes="stops where the loss falls by less",
        remedy="Use early_stopping_patience alone.",
    ),
    *_rows(
        "excess_length_strategy",
        "truncate",
        changes="drops rows that are too long",
        remedy="They are cut at max_length and counted: ./invoke data shows how many.",
    ),
    *_rows(
        "dataset_exact_deduplication",
        False,
        changes="drops rows that occur twice",
        remedy="Drop them in the file: ./invoke data names them.",
    ),
    *_rows(
        "tokenizer_config new_special_tokens_config bos_token unk_token",
        changes="is another tokenizer than the base's",
    ),
    *_rows("mix_strategy interleave_probs", "concat", changes="mixes several datasets by shares"),
    *_rows(
        "disable_shuffling curriculum_sampling sample_pack_sequentially",
        False,
        changes="keeps the rows' order",
        remedy="Rows come in a random order, by the seed.",
    ),
)


def _by_name(*rows: ForeignKey) -> Mapping[str, ForeignKey]:
    names = [row.name for row in rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two rows of one name: {', '.join(twice)}")
    return dict(zip(names, rows, strict=True))


FOREIGN_KEYS = _by_name(
    *_TRANSLATED,
    *(ForeignKey(name, unused=why) for why, names in _UNUSED.items() for name in names.split()),
    *_CHANGES,
)


def foreign_key(name: str) -> ForeignKey | None:
    """The row of this name, or of how it begins."""
    if name in FOREIGN_KEYS:
        return FOREIGN_KEYS[name]
    for reason, prefixes in UNUSED_PREFIXES.items():
        if name.startswith(prefixes):
            return ForeignKey(name, unused=reason)
    return None


# Groups of keys that files of these trainers put into a mapping of their own.
SECTIONS = (
    "training",
    "training_args",
    "training_arguments",
    "train",
    "trainer",
    "sft_config",
    "lora",
    "lora_config",
    "peft",
    "peft_config",
    "quantization_config",
    "bnb_config",
    "bnb_config_kwargs",
    "model_init_kwargs",
    "hyperparameters",
)
