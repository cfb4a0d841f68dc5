"""What every task of a preparation is given, as JSON: enough to stage any part on any machine."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from ray_jobs.corpus.sketch import Banding
from ray_jobs.storage import open_storage
from ray_jobs.train.data.config import PrepareConfig, SplitConfig
from ray_jobs.train.data.counting import WordCounter, counter
from ray_jobs.train.data.kinds import EVALUATION_KINDS
from ray_jobs.train.data.planning import Plan
from ray_jobs.train.data.staging import Stager
from ray_jobs.train.data.validate import Rules


class SetRules(BaseModel):
    """How the rows of one set are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    columns: tuple[tuple[str, str], ...]
    source_column: str | None
    by_query: bool


class StageTask(BaseModel):
    """What is the same for all parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str
    folder: str  # of the run, in the store
    sets: dict[str, SetRules]
    split: SplitConfig
    bands: int
    rows_a_band: int
    tokenizer: str | None

    @classmethod
    def of(cls, config: PrepareConfig, plan: Plan, banding: Banding, folder: str, tokenizer: str | None) -> StageTask:
        """The task of a plan; `tokenizer` is the model whose tokens are counted."""
        sets = {}
        for found in (plan.data, *plan.evaluation):
            rules = plan.rules(found.name, config)
            sets[found.name] = SetRules(
                kind=found.kind, columns=rules.columns, source_column=rules.source_column, by_query=rules.by_query
            )
        return cls(
            store=config.store,
            folder=folder,
            sets=sets,
            split=config.split,
            bands=banding.bands,
            rows_a_band=banding.rows,
            tokenizer=tokenizer,
        )

    def stagers(self) -> dict[str, Stager]:
        """One stager for each set. Evaluation sets are compared, not measured."""
        storage = open_storage(self.store)
        banding = Banding(self.bands, self.rows_a_band)
        counting = counter(self.tokenizer, storage)
        return {
            name: Stager(
                storage,
                self.folder,
                Rules(EVALUATION_KINDS[found.kind], found.columns, found.source_column, found.by_query),
                self.split,
                banding,
                WordCounter() if name else counting,
            )
            for name, found in self.sets.items()
        }
