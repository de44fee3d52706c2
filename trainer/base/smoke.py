"""Make the smoke base: a tiny Llama with its own tokenizer, from a seed and no download.

It stands in for a real base model wherever the whole pipeline is run for its own sake. It writes
one Hugging Face model folder and knows nothing of what is later trained on it.

Two runs on one machine with the same locked packages give the same bytes. PyTorch promises this
neither across machines nor across releases, so whoever pins the folder pins it where it was made.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from contract.atomic_write import atomic_write
from trainer.base.smoke_corpus import pretraining_turns, tokenizer_lines

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

SEED = 42
THREADS = 2  # sums are split by thread: another number gives other last bits
PIECES = 2_048
CONTEXT_TOKENS = 1_024
BATCH_ROWS = 16
STEPS = 260
WARMUP_STEPS = 20
PEAK_LEARNING_RATE = 4e-3
MAX_GRADIENT_NORM = 1.0
IGNORED = -100  # the label the loss skips

# Written out rather than taken from the vocabulary: these ids are the contract between the
# tokenizer, the model's configuration and the GGUF.
UNKNOWN, BOS = "<unk>", "<s>"
START_OF_TURN, END_OF_TURN, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
BOS_ID, END_OF_TURN_ID, END_OF_TEXT_ID = 1, 4, 5

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def make_smoke_base(folder: Path, *, on_step: Callable[[int, int, float], None]) -> None:
    """Write the model folder, weights last: where they stand, the folder is complete.

    `on_step(step, steps, loss)` is called after each step; steps count from 1 and the loss is the
    mean over the batch's tokens, in nats.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(folder)
    with reproducible_arithmetic():
        model = new_model()
        pretrain(model, tokenizer, on_step)
    write_model(model, folder)


def write_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Train the SentencePiece model; write it, its fast twin and their configuration."""
    import sentencepiece
    from transformers import LlamaTokenizer

    trained = io.BytesIO()  # given a path instead, the trainer would write it into the model
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=tokenizer_lines(),
        model_writer=trained,
        model_type="bpe",
        vocab_size=PIECES,
        character_coverage=1.0,
        # What llama.cpp rebuilds from the GGUF knows none of these conveniences; without them
        # both sides cut every text alike.
        byte_fallback=True,
        add_dummy_prefix=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,  # Python's indentation
        # As user-defined symbols they would reach the GGUF as ordinary tokens, and a server would
        # cut `<|im_start|>` into eight pieces.
        control_symbols=[START_OF_TURN, END_OF_TURN, END_OF_TEXT],
        unk_id=0,
        bos_id=BOS_ID,
        eos_id=2,
        num_threads=1,  # with more, the order of equal merges may change
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(trained.getvalue())
    config = json.dumps(tokenizer_config(), ensure_ascii=False, indent=2)
    atomic_write(folder / "tokenizer_config.json", config + "\n")
    tokenizer = LlamaTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    return LlamaTokenizer.from_pretrained(folder)


def tokenizer_config() -> dict[str, object]:
    """What a loader must know. Written here because `save_pretrained` drops `add_bos_token`."""
    return {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": False,  # left out, llama.cpp would put a BOS before every prompt
        "add_eos_token": False,
        "add_prefix_space": False,
        "legacy": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT_TOKENS,
        "unk_token": UNKNOWN,
        "bos_token": BOS,
        "eos_token": END_OF_TURN,
        "pad_token": END_OF_TEXT,
        "additional_special_tokens": [START_OF_TURN],
        "chat_template": CHAT_TEMPLATE,
    }


def new_model() -> LlamaForCausalLM:
    """A Llama of 1.7 million parameters, in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=PIECES,
        # Widths are multiples of 256, the K-quants' block: at 128, llama-quantize would quietly
        # fall back to other formats and a smoke run would not exercise q4_k.
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=3,  # with two, whether the task is learnt hangs on the seed
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        # One over the root of the width. At the usual 0.02, made for wider models, attention
        # starts so flat that the task is not learnt in the time there is.
        initializer_range=0.06,
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=END_OF_TURN_ID,
        pad_token_id=END_OF_TEXT_ID,
    )
    return LlamaForCausalLM(config)


def pretrain(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    on_step: Callable[[int, int, float], None],
) -> None:
    """Teach the model its chat turns: AdamW, warm-up, then half a cosine down to nothing."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor)
    model.train()
    for step, (input_ids, labels) in enumerate(islice(batches(tokenizer), STEPS), start=1):
        loss = model(input_ids=input_ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        on_step(step, STEPS, loss.item())


def learning_rate_factor(step: int) -> float:
    """The share of the peak learning rate used at a step, counted from 0."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / (STEPS - WARMUP_STEPS)
    return 0.5 * (1 + math.cos(math.pi * progress))


def batches(
    tokenizer: PreTrainedTokenizerBase,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (input_ids, labels), both (batch, seq): whole turns, padded on the right.

    Padding stands after every real token, so causal attention never looks at it and no mask is
    needed. Every other token has a label, the prompt's too: the base learns the language as well.
    """
    import torch

    turns = pretraining_turns()
    while True:
        rows = [turn_tokens(tokenizer, *turn) for turn in islice(turns, BATCH_ROWS)]
        longest = max(len(row) for row in rows)
        shape = (len(rows), longest)
        input_ids = torch.full(shape, END_OF_TEXT_ID)
        labels = torch.full(shape, IGNORED)
        for index, row in enumerate(rows):
            input_ids[index, : len(row)] = labels[index, : len(row)] = torch.tensor(row)
        yield input_ids, labels


def turn_tokens(tokenizer: PreTrainedTokenizerBase, user: str, assistant: str) -> list[int]:
    """One turn through the chat template, as token ids."""
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def write_model(model: LlamaForCausalLM, folder: Path) -> None:
    """Save in float16, so that an f16 GGUF holds the very same numbers."""
    import torch
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        bos_token_id=BOS_ID, eos_token_id=END_OF_TURN_ID, pad_token_id=END_OF_TEXT_ID
    )
    model.to(torch.float16).eval().save_pretrained(folder)


@contextmanager
def reproducible_arithmetic() -> Iterator[None]:
    """Fix the seed and the thread count for the block; give the caller's back afterwards."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            yield
    finally:
        torch.set_num_threads(threads)
