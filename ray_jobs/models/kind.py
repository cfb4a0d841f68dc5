"""What a stored model is for: it writes, embeds, reranks or reads.

A card says what the model is for; a model whose card does not, or that has none, is known by its files. Guaranteed: the
answer is None where neither tells, never a guess.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from ray_jobs.models.adapter import ADAPTER_CONFIG
from ray_jobs.models.card import architectures, read_card, read_object

Kind = Literal["generator", "embedder", "reranker", "reader"]
Form = Literal["adapter", "merged", "full"]

_KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
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
    if (said := _KINDS.get(str(read_card(folder).get("kind")))) is not None:
        return said
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
