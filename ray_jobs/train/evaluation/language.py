"""A causal language model before and after: likelihood of what is learned, distance from the base, what it says.

Guaranteed: tokens and labels are those that ray_jobs.train.methods.sft learns; the divergence is exact over the whole
vocabulary, at every token that is learned; a batch is as small as its logits ask for. Not guaranteed: the very numbers
of the training's own evaluation, which averages over batches; nor that a base trained in 4 bits is measured in them: it
is measured in the precision of the run.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ray_jobs.models.sentence_model import quiet_transformers
from ray_jobs.train.evaluation.scores import Columns, Sample, Scores, taken
from ray_jobs.train.evaluation.tuned import is_adapter, over
from ray_jobs.train.methods import Task
from ray_jobs.train.methods.language import longest_row, tokenizer_of
from ray_jobs.train.methods.sft import IGNORED, Example, of_completion, of_messages

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

SAID = 64
"""Tokens of a sample at most."""
_LOGIT_BYTES = 1 << 28  # of one model's logits in a batch
_ROWS = 64  # of a batch at most
_POSITIONS = 1 << 25  # logits compared at a time, in float32


class LanguageJudge:
    """A language model and what it was tuned to; with an adapter one network, switched."""

    def __init__(self, task: Task, tuned: Path) -> None:
        """`tuned` is a folder with an adapter over `task.base`, or a whole model."""
        self._completion_only = task.config.sequence.completion_only
        self._length = longest_row(task)
        self._tokenizer = tokenizer_of(task)
        self._base = _load(task.base, task)
        if is_adapter(tuned):
            self._base = self._tuned = over(self._base, tuned)
        else:
            self._tuned = _load(tuned, task)

    def scores(self, rows: Columns, kind: str) -> list[Scores]:
        """Perplexity and token KL; of pairs those of the chosen answer, and how often it is the likelier one.

        Of labelled answers they are those of the wanted ones, and the perplexity of the unwanted ones besides.
        """
        if kind == "preference":
            return self._of_pairs(rows)
        if kind == "label":
            pairs = list(zip(rows["prompt"], rows["completion"], rows["label"], strict=True))
            wanted, unwanted = (
                [self._pair(p, c) for p, c, label in pairs if bool(label) is side] for side in (True, False)
            )
            found = self._of_examples(wanted)
            worse = self._of_examples(unwanted)[:1]
            return found + [Scores("unwanted_ppl", s.before, s.after, s.weights, s.average) for s in worse]
        if kind == "messages":
            return self._of_examples(
                [of_messages(self._tokenizer, messages, self._completion_only) for messages in rows["messages"]]
            )
        pairs_of = zip(rows["prompt"], rows["completion"], strict=True)
        return self._of_examples(
            [of_completion(self._tokenizer, prompt, said, self._completion_only) for prompt, said in pairs_of]
        )

    def samples(self, rows: Columns, kind: str, places: Sequence[int]) -> list[Sample]:
        """The answer to each prompt, the likeliest token at every place, `SAID` tokens at most."""
        found = []
        for prompt, expected, ids in _asked(self._tokenizer, taken(rows, places), kind):
            if len(ids) < self._length:
                before, after = self._said(ids, tuned=False), self._said(ids, tuned=True)
                found.append(Sample(prompt, expected, before, after))
        return found

    def _of_pairs(self, rows: Columns) -> list[Scores]:
        chosen = [self._pair(*pair) for pair in zip(rows["prompt"], rows["chosen"], strict=True)]
        rejected = [self._pair(*pair) for pair in zip(rows["prompt"], rows["rejected"], strict=True)]
        both = [(c, r) for c, r in zip(chosen, rejected, strict=True) if _learns(c) and _learns(r)]
        if not both:
            return []
        good, bad = (self._measured([pair[side] for pair in both]) for side in (0, 1))
        # Log-probabilities of whole answers: less loss is more of it.
        before, after = ((good[:, side] < bad[:, side]).astype(np.float64) for side in (0, 1))
        return [*_likelihoods(good), Scores("reward_accuracy", before, after)]

    def _of_examples(self, examples: Sequence[Example]) -> list[Scores]:
        cut = [(ids[: self._length], labels[: self._length]) for ids, labels in examples]
        learned = [example for example in cut if _learns(example)]
        return _likelihoods(self._measured(learned)) if learned else []

    def _pair(self, prompt: str, said: str) -> Example:
        ids, labels = of_completion(self._tokenizer, prompt, said, True)
        return ids[: self._length], labels[: self._length]

    def _measured(self, examples: Sequence[Example]) -> Any:
        """Sums over the learned tokens of each example: loss before, loss after, KL, tokens; (examples, 4)."""
        import torch

        found = np.zeros((len(examples), 4))
        vocabulary = int(self._base.config.get_text_config().vocab_size)
        with torch.inference_mode():
            for places in _batches([len(ids) for ids, _ in examples], vocabulary, self._base.dtype.itemsize):
                found[places] = self._batch([examples[place] for place in places])
        return found

    def _batch(self, examples: Sequence[Example]) -> Any:
        import torch

        length = max(len(ids) for ids, _ in examples)
        device = self._base.device
        pad = int(self._tokenizer.pad_token_id)
        ids, labels = (
            torch.tensor([part + [fill] * (length - len(part)) for part in parts], device=device)
            for parts, fill in (([ids for ids, _ in examples], pad), ([labels for _, labels in examples], IGNORED))
        )
        lengths = torch.tensor([len(ids) for ids, _ in examples], device=device)
        attended = (torch.arange(length, device=device) < lengths[:, None]).long()
        targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
        first = int((targets != IGNORED).any(0).nonzero()[0])
        kept = length - first
        with self._switched_off():
            before = _logits(self._base, ids, attended, kept)
        after = _logits(self._tuned, ids, attended, kept)
        row, column = (targets[:, -kept:] != IGNORED).nonzero(as_tuple=True)
        wanted = targets[:, -kept:][row, column]
        found = torch.zeros((len(examples), 4), dtype=torch.float64, device=device)
        step = max(1, _POSITIONS // before.shape[-1])
        for start in range(0, len(row), step):
            part = slice(start, start + step)
            old, new = (torch.log_softmax(logits[row[part], column[part]].float(), -1) for logits in (before, after))
            likelihoods = [-part_of.gather(1, wanted[part, None])[:, 0] for part_of in (old, new)]
            divergence = (old.exp() * (old - new)).sum(-1).clamp(min=0)
            values = torch.stack([*likelihoods, divergence, torch.ones_like(divergence)], 1).double()
            found.index_add_(0, row[part], values)
        return found.cpu().numpy()

    def _said(self, ids: Sequence[int], tuned: bool) -> str:
        import torch

        network = self._tuned if tuned else self._base
        given = torch.tensor([list(ids)], device=network.device)
        room = max(1, min(SAID, self._length - len(ids)))
        with torch.inference_mode(), quiet_transformers(), nullcontext() if tuned else self._switched_off():
            found = network.generate(
                input_ids=given,
                attention_mask=torch.ones_like(given),
                do_sample=False,
                max_new_tokens=room,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        said: str = self._tokenizer.decode(found[0, len(ids) :].tolist(), skip_special_tokens=True)
        return said.strip()

    def _switched_off(self) -> AbstractContextManager[Any]:
        if self._base is not self._tuned:
            return nullcontext()
        switched: AbstractContextManager[Any] = self._tuned.disable_adapter()
        return switched


def _load(folder: Path, task: Task) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    with quiet_transformers():
        network = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, dtype=getattr(torch, task.place.precision)
        )
    return network.to(task.place.device).eval()


def _logits(network: Any, ids: torch.Tensor, attended: torch.Tensor, kept: int) -> torch.Tensor:
    """Logits of the last `kept` places, (rows, kept, vocabulary)."""
    inner = network.get_base_model() if hasattr(network, "get_base_model") else network
    takes = "logits_to_keep" in inspect.signature(inner.forward).parameters
    found: torch.Tensor = network(
        input_ids=ids, attention_mask=attended, use_cache=False, **({"logits_to_keep": kept} if takes else {})
    ).logits
    return found[:, -kept:]


def _likelihoods(sums: Any) -> list[Scores]:
    tokens = sums[:, 3]
    means = sums[:, :3] / tokens[:, None]
    return [
        Scores("perplexity", means[:, 0], means[:, 1], tokens, "perplexity"),
        Scores("token_kl", np.zeros(len(sums)), means[:, 2], tokens),
    ]


def _learns(example: Example) -> bool:
    """Whether anything is learned: the first token of a row is never predicted."""
    return any(label != IGNORED for label in example[1][1:])


def _batches(lengths: Sequence[int], vocabulary: int, width: int) -> Iterator[list[int]]:
    """Places of rows of like length, as many as their logits leave room for."""
    ranked = sorted(range(len(lengths)), key=lambda place: lengths[place])
    batch: list[int] = []
    for place in ranked:
        cells = (len(batch) + 1) * lengths[place] * vocabulary * width
        if batch and (cells > _LOGIT_BYTES or len(batch) == _ROWS):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _asked(tokenizer: PreTrainedTokenizerBase, rows: Columns, kind: str) -> Iterator[tuple[str, str, list[int]]]:
    """What is asked as people read it, what is wanted, and the tokens that the model sees."""
    if kind == "messages":
        for messages in rows["messages"]:
            last = max(place for place, message in enumerate(messages) if message["role"] == "assistant")
            text = tokenizer.apply_chat_template(list(messages[:last]), tokenize=False, add_generation_prompt=True)
            shown = "\n".join(f"{message['role']}: {message['content']}" for message in messages[:last])
            yield shown, messages[last]["content"], list(tokenizer(text, add_special_tokens=False)["input_ids"])
        return
    wanted = rows["chosen" if kind == "preference" else "completion"]
    for place, (prompt, said) in enumerate(zip(rows["prompt"], wanted, strict=True)):
        if kind == "label" and not rows["label"][place]:
            continue
        ids, labels = of_completion(tokenizer, prompt, "", True)
        yield prompt, said, [token for token, label in zip(ids, labels, strict=True) if label == IGNORED]
