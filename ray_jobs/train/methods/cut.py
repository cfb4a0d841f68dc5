"""How many retrieval rows a model of sentence-transformers does not read to their end.

Guaranteed: counted by the base's own tokeniser, with its special tokens and the model's prompts, over the texts that a
step reads. Not guaranteed: a count for a base without a fast tokeniser; its rows are not counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray_jobs.train.methods import Task
from ray_jobs.train.methods.rows import Rows, how_many, made_once
from ray_jobs.train.methods.tally import Tally

if TYPE_CHECKING:
    from datasets import Dataset

_CUT = "cut"


def tally_of(
    rows: Dataset,
    model: Any,
    task: Task,
    split: str,
    negatives: int,
    *,
    together: bool,
    prompts: tuple[str, str] = ("", ""),
    left_out: int = 0,
) -> Tally:
    """What becomes of retrieval rows of a split, of each of which `negatives` are read at most.

    `together` says that a query is read with each passage, as by a reranker, and not by itself; `prompts` stand before
    a query and before a passage. `left_out` rows have no negative.
    """
    from tokenizers import Tokenizer

    why = "no negative"
    backend, limit = getattr(model.tokenizer, "backend_tokenizer", None), model.max_seq_length
    if backend is None or limit is None:
        return Tally(len(rows), left_out, why)
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def columns(batch: Rows) -> Rows:
        read: list[Any] = []
        owners: list[int] = []
        rights = zip(batch["query"], batch["positive"], batch["negatives"], strict=True)
        for row, (query, positive, wrong) in enumerate(rights):
            passages = [prompts[1] + text for text in (positive, *list(wrong or ())[:negatives])]
            asked = prompts[0] + query
            inputs = [(asked, passage) for passage in passages] if together else [asked, *passages]
            read += inputs
            owners += [row] * len(inputs)
        cut = [False] * len(batch["query"])
        for row, encoding in zip(owners, tokenizer.encode_batch_fast(read), strict=True):
            cut[row] = cut[row] or len(encoding.ids) > limit
        return {_CUT: cut}

    settings = {"length": limit, "negatives": negatives, "together": together, "prompts": list(prompts)}
    found = made_once(rows, columns, task, settings, f"{split}-cut")
    return Tally(len(rows), left_out, why, how_many(found, _CUT), limit)
