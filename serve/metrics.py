"""What the deployments count, exported to Prometheus by Ray itself beside Ray Serve's own figures.

    tandem_stage_seconds      histogram   stage                    time of each stage of a search or an answer
    tandem_batch_queries      histogram                            queries searched together
    tandem_searches           counter     index, degraded          queries answered
    tandem_coverage           gauge       index                    share of the documents that the last search covered
    tandem_snapshot           gauge       index                    number of the snapshot that answers
    tandem_answers            counter     model, grounded          answers finished; not grounded: mostly abstentions
    tandem_tokens             counter     model, kind              tokens read (prompt) and written (completion)

Requests, errors, latencies and queue lengths of each deployment are Ray Serve's (`ray_serve_*`). Ray puts `ray_` before
every name. Guaranteed: nothing that a user wrote is a label. Not guaranteed: figures of a replica that was killed.
"""

from __future__ import annotations

from collections.abc import Sequence

from ray.util.metrics import Counter, Gauge, Histogram

from ray_jobs.answer.protocol import Answer
from ray_jobs.errors import TandemError
from serve.messages import SearchReply

_SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30]
_QUERIES = [1, 2, 4, 8, 16, 32, 64, 128]


class RetrieverMetrics:
    """Figures of searches."""

    def __init__(self) -> None:
        self._stages = Histogram("tandem_stage_seconds", "Time of a stage", boundaries=_SECONDS, tag_keys=("stage",))
        self._batch = Histogram("tandem_batch_queries", "Queries searched together", boundaries=_QUERIES)
        self._searches = Counter("tandem_searches", "Queries answered", tag_keys=("index", "degraded"))
        self._coverage = Gauge("tandem_coverage", "Share of the documents searched", tag_keys=("index",))
        self._snapshot = Gauge("tandem_snapshot", "Snapshot that answers", tag_keys=("index",))

    def searched(self, replies: Sequence[SearchReply | TandemError]) -> None:
        """Count the replies to one batch."""
        self._batch.observe(len(replies))
        answered = [reply for reply in replies if isinstance(reply, SearchReply)]
        for stage, seconds in (answered[0].timings if answered else {}).items():
            self._stages.observe(seconds, tags={"stage": stage})
        for reply in answered:
            degraded = str(reply.coverage.degraded).lower()
            self._searches.inc(tags={"index": reply.index, "degraded": degraded})
            self._coverage.set(reply.coverage.documents, tags={"index": reply.index})
            self._snapshot.set(reply.snapshot, tags={"index": reply.index})


class GeneratorMetrics:
    """Figures of answers."""

    def __init__(self) -> None:
        self._stages = Histogram("tandem_stage_seconds", "Time of a stage", boundaries=_SECONDS, tag_keys=("stage",))
        self._answers = Counter("tandem_answers", "Answers finished", tag_keys=("model", "grounded"))
        self._tokens = Counter("tandem_tokens", "Tokens read and written", tag_keys=("model", "kind"))

    def first_event(self, seconds: float) -> None:
        """Something of an answer has been said."""
        self._stages.observe(seconds, tags={"stage": "first_token"})

    def answered(self, model: str, answer: Answer, seconds: float) -> None:
        """An answer is finished; `model` is one that the engine has."""
        self._stages.observe(seconds, tags={"stage": "generate"})
        self._answers.inc(tags={"model": model, "grounded": str(answer.grounded).lower()})
        if answer.usage is not None:
            for kind, count in (("prompt", answer.usage.prompt_tokens), ("completion", answer.usage.completion_tokens)):
                if count:
                    self._tokens.inc(count, tags={"model": model, "kind": kind})


class RerankerMetrics:
    """Figures of reranking."""

    def __init__(self) -> None:
        self._stages = Histogram("tandem_stage_seconds", "Time of a stage", boundaries=_SECONDS, tag_keys=("stage",))

    def reranked(self, seconds: float) -> None:
        """One batch was scored."""
        self._stages.observe(seconds, tags={"stage": "rerank"})
