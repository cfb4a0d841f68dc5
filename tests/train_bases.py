"""Small bases and prepared data for the tests of fine-tuning, made on the spot with a fixed seed."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tiny_language_models
import tiny_readers
import tiny_rerankers
from tiny_rerankers import WORDS
from tiny_transformers import save, words_that_look_for_themselves

from ray_jobs.storage import Storage, sha256_of
from ray_jobs.train.data import card as cards
from ray_jobs.train.data.prepared import Prepared, publish

SUCCESSORS = dict(zip(WORDS, (*WORDS[7:], *WORDS[:7]), strict=True))
"""The toy task of language models: each word is answered by another."""


def language_model(folder: Path, chat: bool = True, **shape: Any) -> Path:
    """A Llama of two layers that knows WORDS and nothing else; returns its folder.

    Without a `shape` of its own it is as wide as an adapter needs it to learn the toy task while embeddings and head
    stay as they are.
    """
    tokenizer = tiny_language_models.word_tokenizer([*WORDS, *(f" {word}" for word in WORDS)], chat)
    wide = {"hidden_size": 128, "intermediate_size": 192, "initializer_range": 0.06}
    model = tiny_language_models.tiny_llama(tokenizer, max_position_embeddings=128, **(shape or wide))
    return tiny_language_models.save(folder, model, tokenizer)


def encoder(folder: Path, dropout: float = 0.0) -> Path:
    """A plain encoder without a head, and without dropout unless it is to have one; returns its folder."""
    network = tiny_rerankers.network(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    tiny_rerankers.tokenizer().save_pretrained(folder)
    network.bert.save_pretrained(folder)
    return folder


def as_bfloat16(folder: Path, kept: Path) -> Path:
    """The encoder of `folder` as it is stored by who saves room; returns its folder."""
    import torch
    from transformers import AutoModel

    return save(AutoModel.from_pretrained(folder, dtype=torch.bfloat16), tiny_rerankers.tokenizer(), kept)


def embedder(folder: Path, max_seq_length: int = 32, **settings: Any) -> Path:
    """A sentence-transformers model over it, with mean pooling and `settings` (prompts); returns its folder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    bare = encoder(folder / "bare")
    first = Transformer(str(bare), max_seq_length=max_seq_length)
    modules: list[Any] = [first, Pooling(48, pooling_mode="mean"), Normalize()]
    saved = folder / "model"
    SentenceTransformer(modules=modules, device="cpu", **settings).save(str(saved), create_model_card=False)
    return saved


def projecting(folder: Path) -> Path:
    """An embedder with a dense layer after the pooling; returns its folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    transformer, pooling, normalise = SentenceTransformer(str(embedder(folder / "plain")), device="cpu")
    torch.manual_seed(5)
    saved = folder / "projecting"
    modules: list[Any] = [transformer, pooling, Dense(48, 24), normalise]
    SentenceTransformer(modules=modules, device="cpu").save(str(saved), create_model_card=False)
    return saved


def prepared(folder: Path, rows: dict[str, Sequence[dict[str, Any]]], schema: pa.Schema) -> Path:
    """A folder as data preparation leaves it, one file a split; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    common = pa.schema(
        [("id", pa.string()), ("source", pa.string()), ("row", pa.int64()), ("input", pa.string()), *schema]
    )
    for split in ("train", "validation", "test"):
        whole = [
            {"id": f"{split}-{n}", "source": f"{split}-{n}", "row": n + 1, "input": "made", **row}
            for n, row in enumerate(rows.get(split, ()))
        ]
        pq.write_table(pa.Table.from_pylist(whole, common), folder / f"{split}.parquet", compression="zstd")
    return folder


def stored(data: Path, storage: Storage, kind: str, name: str = "rows", digest: str = "abc") -> Prepared:
    """Such a folder as a set of the store, with a card."""
    files = {file.name: file for file in data.glob("*.parquet")}
    splits = {
        file.stem: cards.SplitRecord(
            rows=pq.read_metadata(file).num_rows,
            groups=0,
            wished=0,
            share=0,
            sha256=sha256_of(file),
            bytes=file.stat().st_size,
            labels=None,
            lengths={},
        )
        for file in files.values()
    }
    none = cards.Duplicates(
        exact=0,
        near=None,
        near_asked=0,
        near_target=0,
        threshold=0,
        bands=0,
        rows_a_band=0,
        found_at_threshold=0,
        examples=(),
    )
    rows = sum(split.rows for split in splits.values())
    card = cards.DataCard(
        name=name,
        hash=digest,
        kind=kind,
        config={},
        inputs=(),
        ignored=(),
        read=rows,
        rejected=0,
        reasons={},
        first_rejected=(),
        cleaned=0,
        rows=rows,
        grouped_by={},
        duplicates=none,
        leaks=(),
        leaked=0,
        shared_documents=(),
        evaluation_sets={},
        unit="words",
        tokenizer=None,
        tokenizer_revision=None,
        splits=splits,
        warnings=(),
    )
    return publish(storage, card, files)


COMPLETION = pa.schema([("prompt", pa.string()), ("completion", pa.string())])
MESSAGES = pa.schema([("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))])
PREFERENCE = pa.schema([("prompt", pa.string()), ("chosen", pa.string()), ("rejected", pa.string())])
LABEL = pa.schema([("prompt", pa.string()), ("completion", pa.string()), ("label", pa.bool_())])
_ASKED = ("prompt_messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))
ASKED_PREFERENCE = pa.schema([*PREFERENCE, _ASKED])
ASKED_LABEL = pa.schema([*LABEL, _ASKED])
RETRIEVAL = pa.schema(
    [
        ("query", pa.string()),
        ("positive", pa.string()),
        ("negatives", pa.list_(pa.string())),
        ("positive_id", pa.string()),
        ("negative_ids", pa.list_(pa.string())),
    ]
)


def conversations(folder: Path, train: int = 64, validation: int = 8) -> Path:
    """Three words asked, their three successors answered."""

    def row(chance: random.Random) -> dict[str, Any]:
        asked = chance.sample(WORDS, 3)
        answer = " ".join(SUCCESSORS[word] for word in asked)
        return {
            "messages": [{"role": "user", "content": " ".join(asked)}, {"role": "assistant", "content": answer}],
        }

    return prepared(folder, _splits(row, train, validation), MESSAGES)


def completions(folder: Path, train: int = 64, validation: int = 8, longest: int | None = None) -> Path:
    """The toy task as prompts with completions, all of one length, or of one to `longest` words."""

    def row(chance: random.Random) -> dict[str, Any]:
        asked = chance.sample(WORDS, chance.randint(1, longest) if longest else 3)
        return {"prompt": " ".join(asked), "completion": "".join(f" {SUCCESSORS[word]}" for word in asked)}

    return prepared(folder, _splits(row, train, validation), COMPLETION)


def preferences(folder: Path, train: int = 32, validation: int = 8) -> Path:
    """The successor is chosen over another word."""

    def row(chance: random.Random) -> dict[str, Any]:
        word, wrong = chance.sample(WORDS, 2)
        return {"prompt": word, "chosen": f" {SUCCESSORS[word]}", "rejected": f" {wrong}"}

    return prepared(folder, _splits(row, train, validation), PREFERENCE)


def labelled(folder: Path, train: int = 32, validation: int = 8) -> Path:
    """The successor is wanted, another word is not."""

    def row(chance: random.Random) -> dict[str, Any]:
        word, wrong = chance.sample(WORDS, 2)
        label = chance.random() < 0.5
        return {"prompt": word, "completion": f" {SUCCESSORS[word] if label else wrong}", "label": label}

    return prepared(folder, _splits(row, train, validation), LABEL)


def retrieval(folder: Path, train: int = 96, validation: int = 16) -> Path:
    """A passage that holds the query's words, and two that do not."""

    def row(chance: random.Random) -> dict[str, Any]:
        words = chance.sample(WORDS, 14)
        return {
            "query": " ".join(words[:2]),
            "positive": " ".join(chance.sample(words[:6], 6)),
            "negatives": [" ".join(words[6:10]), " ".join(words[10:])],
            "positive_id": None,
            "negative_ids": [],
        }

    return prepared(folder, _splits(row, train, validation), RETRIEVAL)


QA = pa.schema(
    [
        ("question", pa.string()),
        ("passage", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("starts", pa.list_(pa.int32())),
    ]
)


def questions(folder: Path, train: int = 2000, validation: int = 100) -> Path:
    """Passages that hold the one known word of their question, or not."""

    def row(chance: random.Random) -> dict[str, Any]:
        ((question, passage),), (place,) = tiny_readers.examples(chance, 1)
        words = passage.split()
        first = place - 2 - len(question.split())
        found = {"answers": [words[first]], "starts": [len(" ".join(words[:first])) + bool(first)]} if place else {}
        return {"question": question, "passage": passage, "answers": [], "starts": [], **found}

    return prepared(folder, _splits(row, train, validation), QA)


def knowing(folder: Path, shared: Path) -> Path:
    """The encoder, without its head, of a reader that was fitted to find words; returns its folder."""
    from transformers import AutoModel

    return save(AutoModel.from_pretrained(tiny_readers.fitted_to_find(shared)), tiny_readers.tokenizer(), folder)


def looking(folder: Path) -> Path:
    """An encoder without a head in which words already look for themselves; returns its folder."""
    quiet = {"initializer_range": 0.1, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    network = words_that_look_for_themselves(tiny_readers.network(**quiet))
    return save(network.bert, tiny_readers.tokenizer(), folder)


def _splits(row: Any, train: int, validation: int) -> dict[str, list[dict[str, Any]]]:
    chance = random.Random(3)
    return {
        "train": [row(chance) for _ in range(train)],
        "validation": [row(chance) for _ in range(validation)],
        "test": [row(chance) for _ in range(4)],
    }


def of_methods(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """A base and prepared rows for each method."""
    chat = language_model(folder / "chat")
    pairs = retrieval(folder / "retrieval")
    bases = {
        **dict.fromkeys(("sft", "dpo", "kto"), chat),
        "embedder": embedder(folder / "embedder"),
        "reranker": encoder(folder / "encoder"),
        "reader": looking(folder / "looking"),
    }
    rows = {
        "sft": conversations(folder / "conversations"),
        "dpo": preferences(folder / "preferences"),
        "kto": labelled(folder / "labelled"),
        "embedder": pairs,
        "reranker": pairs,
        "reader": questions(folder / "questions", train=64, validation=8),
    }
    return bases, rows


def as_json_lines(folder: Path, file: Path, split: str = "train") -> Path:
    """The conversations of a split as a user would bring them; returns the file."""
    rows = pq.read_table(folder / f"{split}.parquet").to_pylist()
    file.write_text("".join(json.dumps({"messages": row["messages"]}) + "\n" for row in rows))
    return file
