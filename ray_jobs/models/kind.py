"""What a stored model is for: it writes, embeds, reranks or reads.

A card says by which method the model was trained; a model without one is known by its files. Guaranteed: the answer is
None where neither tells, never a guess.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ray_jobs.models.adapter import ADAPTER_CONFIG
from ray_jobs.models.card import architectures, read_card, read_object

Kind = Literal["generator", "embedder", "reranker", "reader"]
Form = Literal["adapter", "merged", "full"]

OF_METHOD: dict[str, Kind] = {
    "sft": "generator",
    "dpo": "generator",
    "kto": "generator",
    "embedder": "embedder",
    "reranker": "reranker",
    "reader": "reader",
}
_OF_TASK: dict[str, Kind] = {
    "CAUSAL_LM": "generator",
    "FEATURE_EXTRACTION": "embedder",
    "SEQ_CLS": "reranker",
    "QUESTION_ANS": "reader",
}
_OF_HEAD: dict[str, Kind] = {
    "ForCausalLM": "generator",
    "ForSequenceClassification": "reranker",
    "ForQuestionAnswering": "reader",
}
_OF_SENTENCES: dict[str, Kind] = {"SentenceTransformer": "embedder", "CrossEncoder": "reranker"}


def kind_of(folder: Path) -> Kind | None:
    """What the model in `folder` is for; None where its files do not tell. Raises ModelError for a damaged file."""
    method = read_card(folder).get("method")
    if isinstance(method, str) and method in OF_METHOD:
        return OF_METHOD[method]
    if (folder / ADAPTER_CONFIG).is_file():
        return _OF_TASK.get(str(read_object(folder / ADAPTER_CONFIG).get("task_type")))
    if (folder / "modules.json").is_file():
        saved = read_object(folder / "config_sentence_transformers.json").get("model_type", "SentenceTransformer")
        return _OF_SENTENCES.get(str(saved))
    for name in architectures(folder):
        for head, kind in _OF_HEAD.items():
            if name.endswith(head):
                return kind
    return None
