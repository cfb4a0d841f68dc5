"""What the benchmarks of training learn from: a small language model made on the spot, and prepared rows.

Guaranteed: the same model and rows every time. Not guaranteed: that the model knows anything; its weights are random,
which changes no figure of speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from corpora import read

VOCABULARY = 8_000
LENGTH = 512  # tokens of a row at most
_COLUMNS = ("id", "source", "row", "input")


def language_model(folder: Path) -> Path:
    """A Llama of four layers and 256 dimensions (about 7 million weights) with a tokeniser of the instructions."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|end|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for pair in instructions() for text in pair), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=LENGTH,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def instructions() -> Iterator[tuple[str, str]]:
    """Prompts and completions as people wrote them."""
    for row in read("instruct/instruct"):
        prompt = "\n".join(str(row[part]) for part in ("instruction", "input") if row[part])
        yield prompt, str(row["output"] or "")


def short_rows(folder: Path, count: int) -> Path:
    """Instructions as they come: most are far shorter than LENGTH."""
    pairs = [pair for _, pair in zip(range(count), instructions(), strict=False)]
    return _prepared(folder, [{"prompt": prompt, "completion": answer} for prompt, answer in pairs])


def dense_rows(folder: Path, tokenizer: Path, count: int) -> Path:
    """Rows of LENGTH tokens and more, which are cut there: no place is wasted."""
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(tokenizer)
    rows: list[dict[str, Any]] = []
    text = ""
    for prompt, answer in instructions():
        text += f"{prompt} {answer} "
        # The words between are counted once more where rows are made: a margin costs nothing.
        if len(text) > 3 * LENGTH and len(tokens(text)["input_ids"]) > LENGTH + 16:
            rows.append({"prompt": "", "completion": text})
            text = ""
        if len(rows) == count:
            break
    return _prepared(folder, rows)


def question_pairs(folder: Path, count: int) -> Path:
    """Questions with the passage that answers them (squadshifts), for an embedder."""
    passages = {row["id"]: str(row["text"]) for row in read("squadshifts/passages")}
    rows = []
    for row in read("squadshifts/questions")[:count]:
        known = {"query": str(row["question"]), "positive": passages[row["passage_id"]]}
        rows.append({**known, "negatives": [], "positive_id": str(row["passage_id"]), "negative_ids": []})
    return _prepared(folder, rows)


def _prepared(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """The form in which `tandem prepare` leaves rows; the last few are for validation."""
    folder.mkdir(parents=True, exist_ok=True)
    held_out = 16
    for split, part in (("train", rows[:-held_out]), ("validation", rows[-held_out:]), ("test", [])):
        whole = [
            dict(zip(_COLUMNS, (f"{split}-{number}", split, number + 1, "made"), strict=True)) | row
            for number, row in enumerate(part)
        ]
        known = pa.Table.from_pylist(whole or [dict.fromkeys((*_COLUMNS, *rows[0]))])
        pq.write_table(known if whole else known.slice(0, 0), folder / f"{split}.parquet", compression="zstd")
    return folder
