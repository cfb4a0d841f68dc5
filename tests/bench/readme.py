"""Puts the chief figures of results.json into the README: it shows what was measured and nothing else.

A figure is named as `{title of its table > first cell of its row > its column}`, each by its beginning. A part that has
not been measured yet has no line.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- results -->", "<!-- /results -->"

# Part, what was measured, Tandem's figure, what stands beside it.
LINES: tuple[tuple[str, str, str, str], ...] = (
    (
        "ingest",
        "Ingest, the whole job",
        "{Ingest of > `tandem ingest` > chunks/s} chunks/s",
        "bare forward pass {Ingest of > (d) > chunks/s}; sentence-transformers + FAISS as it comes "
        "{Ingest of > (a) > chunks/s}, tuned {Ingest of > (b) > chunks/s}",
    ),
    (
        "ingest_once",
        "What exactly-once costs an ingest, interleaved pairs",
        "{Exactly once > the carried > cost}",
        "where nothing but the bookkeeping takes time (a made-up embedder): {Exactly once > the fake > cost}",
    ),
    (
        "ingest_growth",
        "Ingest of 1,000,000 documents, microseconds a document (made-up embedder)",
        "{Growth: synthetic > 1,000,000 > us a document}",
        "of 10,000 {Growth: synthetic > 10,000 > us a document}; peak of the driver "
        "{Growth: synthetic > 1,000,000 > peak of the driver} MB, of a worker "
        "{Growth: synthetic > 1,000,000 > peak of a worker} MB (to those of 10,000)",
    ),
    (
        "ingest_forecast",
        "What `--dry-run` says of 1,600 documents: seconds of the run",
        "{Forecast of 1,600 > time of the run > forecast}",
        "came to {Forecast of 1,600 > time of the run > came to}, {Forecast of 1,600 > time of the run > error}; "
        "chunks {Forecast of 1,600 > chunks > error}, disk {Forecast of 1,600 > disk > error}, memory of the "
        "largest worker {Forecast of 1,600 > memory of > error}",
    ),
    (
        "search",
        "Dense search in batches, 200,000 vectors, recall@10 at least 0.95",
        "{Dense search > Tandem, IVF1789,PQ192x4fs, 1 > in batches, 2 threads} queries/s",
        "hnswlib {Dense search > hnswlib > in batches, 2 threads}, usearch "
        "{Dense search > usearch > in batches, 2 threads}, FAISS HNSW "
        "{Dense search > FAISS, HNSW32 > in batches, 2 threads}, LanceDB "
        "{Dense search > LanceDB > in batches, 2 threads}",
    ),
    (
        "search",
        "The same, one query at a time",
        "{Dense search > Tandem, IVF1789,PQ192x4fs, 1 > one at a time} queries/s",
        "hnswlib {Dense search > hnswlib > one at a time}, usearch {Dense search > usearch > one at a time}, FAISS "
        "HNSW {Dense search > FAISS, HNSW32 > one at a time}, LanceDB {Dense search > LanceDB > one at a time}",
    ),
    (
        "quality",
        "SciFact test, nDCG@10",
        "hybrid {Quality of > SciFact > hybrid}",
        "dense {Quality of > SciFact > dense}, BM25 {Quality of > SciFact > lexical}",
    ),
    (
        "quality",
        "SQuAD v1 dev, hit@1",
        "hybrid {Quality of > SQuAD v1 dev > hybrid}",
        "dense {Quality of > SQuAD v1 dev > dense}, BM25 {Quality of > SQuAD v1 dev > lexical}",
    ),
    (
        "serving",
        "Searches at saturation",
        "{At saturation > Tandem > answers/s} /s",
        "FastAPI in one process {At saturation > FastAPI, one > answers/s}, Haystack behind hayhooks "
        "{At saturation > Haystack > answers/s}",
    ),
    (
        "serving",
        "Searches at twice that load",
        "{Beyond saturation > 2 x > answers/s} /s, {Beyond saturation > 2 x > failed} failed",
        "{Beyond saturation > 2 x > refused} refused at once",
    ),
    (
        "serving",
        "Cited answers at saturation",
        "{At saturation > Tandem: cited > answers/s} /s",
        "FastAPI in one process {At saturation > FastAPI: cited > answers/s}",
    ),
    (
        "serving",
        "A search by one caller",
        "{What the hops > search, two > p50} ms",
        "without a server {What the hops > the same > p50} ms",
    ),
    (
        "trained",
        "SciFact test, nDCG@10, reranked by the reranker that Tandem carries",
        "{The carried reranker > SciFact > reranked}",
        "hybrid alone {The carried reranker > SciFact > hybrid}; difference "
        "{The carried reranker > SciFact > difference}",
    ),
    (
        "trained",
        "SQuAD v1 dev, hit@1, reranked (every fifth question)",
        "{The carried reranker > SQuAD > reranked}",
        "hybrid alone {The carried reranker > SQuAD > hybrid}; difference {The carried reranker > SQuAD > difference}",
    ),
    (
        "trained",
        "SQuAD v1 dev, F1 of the reader that Tandem carries, on the gold passage",
        "{The carried reader > F1 > value}",
        "best-ranked wrong passages refused, 90 % of right answers kept: "
        "{The carried reader > wrong passages refused, 90 > value}",
    ),
    (
        "embedder",
        "An embedder fine-tuned on SciFact train, SciFact test, nDCG@10",
        "{The embedder fine-tuned > SciFact test, target > after}",
        "before {The embedder fine-tuned > SciFact test, target > before}; forgotten on SQuAD, hit@10 "
        "{The embedder fine-tuned > SQuAD > difference}",
    ),
    (
        "training",
        "Fine-tuning on Ray, overhead over the plain trainer",
        "language model {Training on Ray > language model (sft), full, 1 > overhead}, embedder "
        "{Training on Ray > embedder (MiniLM), full, 1 > overhead}",
        "where the worker has every CPU of the machine, Ray's own processes too: "
        "{Training on Ray > language model (sft), full, 2 > overhead} and "
        "{Training on Ray > embedder (MiniLM), full, 2 > overhead}",
    ),
    (
        "training_batches",
        "Packed rows, tokens of text a second",
        "{Tokens of text > packed > tokens/s}",
        "fully dense {Tokens of text > fully > tokens/s}, length-grouped {Tokens of text > length > tokens/s}, padded "
        "{Tokens of text > padded > tokens/s}",
    ),
    (
        "training_workers",
        "From the kill of a worker to the first new step, ZeRO 2",
        "{Checkpoints and > full, ZeRO 2 > from the kill} s",
        "a step {Checkpoints and > full, ZeRO 2 > a step} ms, a checkpoint {Checkpoints and > full, ZeRO 2 > pause} ms",
    ),
)
_FIGURE = re.compile(r"\{([^{}]+)\}")


def show(readme: Path, results: Path) -> None:
    """Replace what stands between the two marks of the README by the summary of `results` (results.json)."""
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    known = json.loads(results.read_text(encoding="utf-8"))
    readme.write_text(f"{before}{BEGIN}\n{summary(known)}\n{END}{after}", encoding="utf-8")


def summary(results: dict[str, Any]) -> str:
    """One Markdown table; raises LookupError for a figure that is named here and was not measured."""
    lines = ["| measured | Tandem | beside it |", "|---|---|---|"]
    for part, what, own, beside in LINES:
        if part in results:
            lines.append(f"| {what} | {_filled(own, results[part])} | {_filled(beside, results[part])} |")
    return "\n".join(lines)


def _filled(text: str, part: dict[str, Any]) -> str:
    return _FIGURE.sub(lambda found: _figure(part, found[1]), text)


def _figure(part: dict[str, Any], name: str) -> str:
    title, first, column = (word.strip() for word in name.split(">"))
    for table in part["tables"]:
        if not table["title"].startswith(title):
            continue
        places = [place for place, head in enumerate(table["columns"]) if head.startswith(column)]
        for row in table["rows"]:
            if places and str(row[0]).startswith(first):
                value = row[places[0]]
                if isinstance(value, float):
                    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.4g}"
                return f"{value:,}" if isinstance(value, int) else str(value)
    raise LookupError(f"{name}: no such figure among those of {part['name']}")
