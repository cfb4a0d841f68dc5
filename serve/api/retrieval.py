"""What a request asks to be retrieved, made complete and held within what its tenant may see."""

from __future__ import annotations

from dataclasses import dataclass

from ray_jobs.errors import UsageError
from ray_jobs.index.filter_ast import And
from ray_jobs.index.filters import parse
from ray_jobs.index.search import SearchConfig
from serve.api.config import ApiConfig, RetrievalConfig
from serve.api.errors import FieldError
from serve.api.keys import Tenant
from serve.api.shapes.shared import RetrievalFields


@dataclass(frozen=True)
class Retrieval:
    """A search that its tenant may make."""

    index: str
    config: SearchConfig
    rerank: bool
    min_coverage: float
    # The fields in which the caller asks for it, if it is the caller who asks:
    rerank_param: str | None = None
    where_param: str | None = None


@dataclass(frozen=True)
class Planner:
    """Completes what requests to one route say."""

    defaults: RetrievalConfig
    config: ApiConfig
    prefix: str = ""  # of the fields' names in errors

    def plan(
        self, fields: RetrievalFields, index: str, tenant: Tenant, reranker: str | None, nprobe: int | None = None
    ) -> Retrieval:
        """The search to make in `index`; `reranker` is the one that is known.

        Raises FieldError.
        """
        k = fields.k or self.defaults.k
        if k > self.config.max_hits:
            raise self._wrong("k", f"={k}: expected at most {self.config.max_hits} here")
        # What a caller asks for is tried even if no reranker is known: it may just not have answered yet.
        rerank = (self.defaults.rerank and reranker is not None) if fields.rerank is None else fields.rerank
        if rerank and k > (depth := self.config.rerank.depth):
            raise self._wrong("k", f"={k}: expected at most {depth} where hits are reranked; or ask with rerank=false")
        search = SearchConfig(
            mode=fields.mode or self.defaults.mode,
            k=k,
            by=fields.by or self.defaults.by,
            where=self._where(fields, tenant),
            nprobe=nprobe,
        )
        min_coverage = self.config.min_coverage if fields.min_coverage is None else fields.min_coverage
        return Retrieval(
            index=index,
            config=search,
            rerank=rerank,
            min_coverage=min_coverage,
            rerank_param=f"{self.prefix}rerank" if fields.rerank else None,
            where_param=None if fields.where is None else f"{self.prefix}where",
        )

    def _where(self, fields: RetrievalFields, tenant: Tenant) -> str | None:
        """The caller's filter and the tenant's: both must let a hit through."""
        filters = [] if tenant.where is None else [tenant.where]
        if fields.where is not None:
            try:
                filters.append(parse(fields.where))
            except UsageError as error:
                raise FieldError(str(error), f"{self.prefix}where") from None
        return None if not filters else str(filters[0] if len(filters) == 1 else And(tuple(filters)))

    def _wrong(self, name: str, problem: str) -> FieldError:
        param = f"{self.prefix}{name}"
        return FieldError(f"{param}{problem}", param)
