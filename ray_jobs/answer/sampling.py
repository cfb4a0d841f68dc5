"""How a language model's next token is chosen, with randomness of the request's own.

Guaranteed: temperature 0 takes the most likely token; the same seed draws the same tokens for the same scores, whatever
other requests draw meanwhile. Not guaranteed: the same scores on another machine, or in another batch.
"""

from __future__ import annotations

from typing import Any

from ray_jobs.answer.engine import Sampling

_LEAST_TEMPERATURE = 1e-3  # below it scores divided by it overflow


def is_greedy(sampling: Sampling) -> bool:
    """Whether the most likely token is taken always."""
    return sampling.temperature < _LEAST_TEMPERATURE


class Draw:
    """A logits processor of transformers that draws a token and leaves only it possible.

    `generate` itself would draw from the one random state of the process.
    """

    def __init__(self, sampling: Sampling) -> None:
        import torch
        from transformers import TemperatureLogitsWarper, TopPLogitsWarper

        self._torch = torch
        self._temper = TemperatureLogitsWarper(float(sampling.temperature))
        self._cut = TopPLogitsWarper(sampling.top_p) if sampling.top_p < 1 else None
        self._random = torch.Generator(device="cpu")
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores (1, vocabulary) that are minus infinity but for the token drawn."""
        scores = self._temper(input_ids, scores)
        if self._cut is not None:
            scores = self._cut(input_ids, scores)
        likely = self._torch.softmax(scores.float(), dim=-1).cpu()
        drawn = self._torch.multinomial(likely, 1, generator=self._random).to(scores.device)
        return self._torch.full_like(scores, -float("inf")).scatter(-1, drawn, 0.0)
