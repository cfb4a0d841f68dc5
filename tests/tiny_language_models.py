"""Small causal language models made on the spot, with a fixed seed: no download, seconds of CPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

PLAIN_TEXTS = (
    "User: Assistant: System: Question: Title: Answer the question from the numbered sources alone, briefly [1] [2][3]",
    "Ray runs tasks. Each task reserves one CPU. Actors keep state between calls. Tea is brewed hot; naïve café 日本語",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")


def byte_tokenizer(chat: bool = True) -> Any:
    """A byte-level BPE tokeniser of some 300 tokens: any text, and characters of several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(PLAIN_TEXTS, trainer)
    return _fast(tokenizer, chat)


def word_tokenizer(words: Sequence[str], chat: bool = True) -> Any:
    """A tokeniser with one token a word or sign; words that it does not know are all the same."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    known = {word: number for number, word in enumerate([*SPECIAL, "<|unknown|>", *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<|unknown|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?\w+| ?[^\w\s]|\s"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return _fast(tokenizer, chat)


def words_of(*texts: str) -> list[str]:
    """The words and signs of texts as `word_tokenizer` cuts them."""
    import re

    return [word for text in texts for word in re.findall(r" ?\w+| ?[^\w\s]|\s", text)]


def tiny_llama(tokenizer: Any, seed: int = 0, **settings: Any) -> Any:
    """A Llama of two layers and 32 dimensions, untrained."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.5,
        **settings,
    }
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **shape,
        )
    ).eval()


def save(folder: Path, model: Any, tokenizer: Any) -> Path:
    """Save as transformers does; returns the folder."""
    from ray_jobs.models.sentence_model import quiet_transformers

    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def save_adapter(folder: Path, base: Path, seed: int, **settings: Any) -> Path:
    """Save a LoRA adapter with random weights for the model in `base`; returns its folder."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from ray_jobs.models.sentence_model import quiet_transformers

    torch.manual_seed(seed)
    chosen = {"r": 4, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, **settings}
    with quiet_transformers(), warnings.catch_warnings():
        # PEFT asks the model by a name that transformers has given up.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model = AutoModelForCausalLM.from_pretrained(base)
        get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **chosen)).save_pretrained(folder)
    return folder


def _fast(tokenizer: Any, chat: bool) -> Any:
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        bos_token="<|begin|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE if chat else None
    return fast


def fit(model: Any, batches: Iterable[Sequence[tuple[Sequence[int], Sequence[int]]]], rate: float) -> list[float]:
    """Train `model` on batches of (prompt, answer) tokens, the loss on the answers alone; the loss of each step."""
    import torch

    steps = list(batches)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=len(steps), pct_start=0.1)
    losses = []
    model.train()
    for batch in steps:
        length = max(len(prompt) + len(answer) for prompt, answer in batch)
        ids = torch.zeros((len(batch), length), dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for row, (prompt, answer) in enumerate(batch):
            end = len(prompt) + len(answer)
            ids[row, :end] = torch.tensor([*prompt, *answer])
            labels[row, len(prompt) : end] = torch.tensor(answer)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    model.eval()
    return losses
