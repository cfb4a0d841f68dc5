"""TRL's trainer of language models with a validation loss in which every token weighs the same.

transformers takes the mean over batches, however many tokens each has. Guaranteed: `eval_loss` is the mean over all
tokens that are learned, in nats, so that `exp(eval_loss)` is the perplexity; it is the same for every micro-batch,
number of workers, and packing, up to rounding. Not guaranteed: any of it for a mixture of experts, to whose loss TRL
adds that of its router, one a batch; the same of TRL's other metrics, such as `eval_mean_token_accuracy`, which are
means over batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from trl import SFTTrainer

from ray_jobs.train.methods.packed_batch import tokens_in
from ray_jobs.train.methods.turns import IGNORED

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers.trainer_utils import EvalLoopOutput


class TokenMeanTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer, but for the validation loss and the number of packed tokens."""

    _total_train_tokens: float

    def compute_loss(self, model: Any, inputs: dict[str, Any], *given: Any, **named: Any) -> Any:
        """As TRL's, which counts the tokens of one sequence of a packed batch; these are those of all."""
        before = self._total_train_tokens
        found = super().compute_loss(model, inputs, *given, **named)
        if self.model.training and "attention_mask" not in inputs:
            own = tokens_in(inputs["position_ids"])
            self._total_train_tokens = before + self.accelerator.reduce(own, reduction="sum").item()
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return found

    def evaluation_loop(self, *given: Any, metric_key_prefix: str = "eval", **named: Any) -> EvalLoopOutput:
        """Evaluate; every worker has the same result."""
        self._measured = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        found = super().evaluation_loop(*given, metric_key_prefix=metric_key_prefix, **named)
        loss, tokens = self.accelerator.reduce(self._measured, reduction="sum").tolist()
        found.metrics[f"{metric_key_prefix}_loss"] = loss / tokens
        return found

    def prediction_step(self, model: Any, inputs: dict[str, Any], *given: Any, **named: Any) -> Any:
        """Run one micro-batch, and add up its loss."""
        found = super().prediction_step(model, inputs, *given, **named)
        # The first token of a row follows none; those of packed rows have the label IGNORED.
        tokens = (inputs["labels"][..., 1:] != IGNORED).sum().to(self._measured)
        self._measured += torch.stack([found[0].to(self._measured) * tokens, tokens])
        return found


def evened(rows: Dataset, multiple: int) -> Dataset:
    """The rows and, behind them, some that count nothing: else workers repeat rows, to have as many as the others."""
    from datasets import Dataset, concatenate_datasets

    missing = -len(rows) % multiple
    if not missing:
        return rows
    row = rows[0]
    row["labels"] = [IGNORED] * len(row["labels"])
    return concatenate_datasets([rows, Dataset.from_list([row] * missing, features=rows.features)])
