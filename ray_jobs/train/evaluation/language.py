"""A causal language model before and after: likelihood of what is learned, distance from the base, what it says.

Guaranteed: tokens and labels are those of ray_jobs.train.methods.turns, which training learns; the divergence is exact
over the whole vocabulary, at every token that is learned; a batch is as small as its logits ask for. Not guaranteed:
the very numbers of the training's own evaluation of preferences, which averages over rows; nor that a base trained in 4
bits is measured in them: it is measured in the precision of the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ray_jobs.models.sentence_model import quiet_transformers
from ray_jobs.train.evaluation.likelihood import measured
from ray_jobs.train.evaluation.scores import Columns, Sample, Scores, taken
from ray_jobs.train.evaluation.tuned import OneNetwork, Sides, TwoNetworks, is_adapter, over
from ray_jobs.train.methods import CONVERSATION, Task
from ray_jobs.train.methods.language import longest_row, tokenizer_of
from ray_jobs.train.methods.turns import IGNORED, Example, learns, of_answer, of_completion, of_messages, rendered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAID = 64
"""Tokens of a sample at most."""


class LanguageJudge:
    """A language model and what it was tuned to."""

    def __init__(self, task: Task, tuned: Path, start: Path | None = None) -> None:
        """`tuned` is a folder with an adapter over `task.base`, or a whole model; `start` has what it began as."""
        self._completion_only = task.config.sequence.completion_only
        self._length = longest_row(task)
        self._tokenizer = tokenizer_of(task)
        self._models = _models(task, tuned, start)

    def scores(self, rows: Columns, kind: str) -> list[Scores]:
        """Perplexity and token KL; of pairs those of the chosen answer, and how often it is the likelier one.

        Of labelled answers they are those of the wanted ones, and the perplexity of the unwanted ones besides.
        """
        if kind == "preference":
            return self._of_pairs(rows)
        if kind == "label":
            pairs = list(zip(self._answers(rows, "completion"), rows["label"], strict=True))
            wanted, unwanted = ([answer for answer, label in pairs if bool(label) is side] for side in (True, False))
            found = self._of_examples(wanted)
            worse = self._of_examples(unwanted)[:1]
            return found + [Scores("unwanted_ppl", s.before, s.after, s.weights, s.average) for s in worse]
        if kind == "messages":
            weights = rows.get("message_weights") or [None] * len(rows["messages"])
            told = zip(rows["messages"], weights, strict=True)
            return self._of_examples([of_messages(self._tokenizer, m, self._completion_only, w) for m, w in told])
        pairs_of = zip(rows["prompt"], rows["completion"], strict=True)
        return self._of_examples(
            [of_completion(self._tokenizer, prompt, said, self._completion_only) for prompt, said in pairs_of]
        )

    def samples(self, rows: Columns, kind: str, places: Sequence[int]) -> list[Sample]:
        """The answer to each prompt, the likeliest token at every place, `SAID` tokens at most."""
        asked = [one for one in _asked(self._tokenizer, taken(rows, places), kind) if len(one[2]) < self._length]
        said = {tuned: [self._said(ids, tuned) for _, _, ids in asked] for tuned in (False, True)}
        return [
            Sample(prompt, expected, before, after)
            for (prompt, expected, _), before, after in zip(asked, said[False], said[True], strict=True)
        ]

    def _of_pairs(self, rows: Columns) -> list[Scores]:
        pairs = zip(self._answers(rows, "chosen"), self._answers(rows, "rejected"), strict=True)
        both = [(chosen, rejected) for chosen, rejected in pairs if learns(chosen) and learns(rejected)]
        if not both:
            return []
        good, bad = (self._measured([pair[side] for pair in both]) for side in (0, 1))
        # Log-probabilities of whole answers: less loss is more of it.
        before, after = ((good[:, side] < bad[:, side]).astype(np.float64) for side in (0, 1))
        return [*_likelihoods(good), Scores("reward_accuracy", before, after)]

    def _of_examples(self, examples: Sequence[Example]) -> list[Scores]:
        cut = [(ids[: self._length], labels[: self._length]) for ids, labels in examples]
        learned = [example for example in cut if learns(example)]
        return _likelihoods(self._measured(learned)) if learned else []

    def _answers(self, rows: Columns, name: str) -> list[Example]:
        """Each row's prompt with its answer in the column `name`."""
        asked = zip(rows["prompt"], _conversations(rows), rows[name], strict=True)
        found = [of_answer(self._tokenizer, *one) for one in asked]
        return [(ids[: self._length], labels[: self._length]) for ids, labels in found]

    def _measured(self, examples: Sequence[Example]) -> Any:
        return measured(self._models, examples, int(self._tokenizer.pad_token_id))

    def _said(self, ids: Sequence[int], tuned: bool) -> str:
        import torch

        room = max(1, min(SAID, self._length - len(ids)))
        with torch.inference_mode(), quiet_transformers(), self._models.state(tuned) as network:
            given = torch.tensor([list(ids)], device=network.device)
            found = network.generate(
                input_ids=given,
                attention_mask=torch.ones_like(given),
                do_sample=False,
                max_new_tokens=room,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        said: str = self._tokenizer.decode(found[0, len(ids) :].tolist(), skip_special_tokens=True)
        return said.strip()


def _models(task: Task, tuned: Path, start: Path | None) -> Sides:
    if not is_adapter(tuned):
        return TwoNetworks(lambda: _load(task.base, task), lambda: _load(tuned, task), task.place.device)
    network = over(_load(task.base, task), tuned, start)
    return OneNetwork(network, network)


def _load(folder: Path, task: Task) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    with quiet_transformers():
        network = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, dtype=getattr(torch, task.place.precision)
        )
    return network.to(task.place.device).eval()


def _likelihoods(sums: Any) -> list[Scores]:
    tokens = sums[:, 3]
    means = sums[:, :3] / tokens[:, None]
    return [
        Scores("perplexity", means[:, 0], means[:, 1], tokens, "perplexity"),
        Scores("token_kl", np.zeros(len(sums)), means[:, 2], tokens),
    ]


def _conversations(rows: Columns) -> Sequence[Any]:
    """The messages of each row's prompt; None where it is a text."""
    return rows.get(CONVERSATION) or [None] * len(rows["prompt"])


def _asked(tokenizer: PreTrainedTokenizerBase, rows: Columns, kind: str) -> Iterator[tuple[str, str, list[int]]]:
    """What is asked as people read it, what is wanted, and the tokens that the model sees."""
    if kind == "messages":
        for messages in rows["messages"]:
            answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
            if not answers:
                continue
            last = answers[-1]
            shown = "\n".join(f"{message['role']}: {message['content']}" for message in messages[:last])
            yield shown, messages[last]["content"], rendered(tokenizer, messages[:last], True)
        return
    wanted = rows["chosen" if kind == "preference" else "completion"]
    conversations = _conversations(rows)
    for place, (prompt, said) in enumerate(zip(rows["prompt"], wanted, strict=True)):
        if kind == "label" and not rows["label"][place]:
            continue
        if conversations[place] is not None:
            yield prompt, said, rendered(tokenizer, conversations[place], True)
            continue
        ids, labels = of_completion(tokenizer, prompt, "", True)
        yield prompt, said, [token for token, label in zip(ids, labels, strict=True) if label == IGNORED]
