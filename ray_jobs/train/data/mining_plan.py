"""What mining does, fixed before any work: which rows, which index, which models, and what comes out is called.

Guaranteed: the same data, snapshot, rules and reranker have the same hash, so that nothing is mined twice.
Held in memory for all rows at once: a hash of each query and of each positive, and where the positives lie; 0.7 kB a
row, 1 kB while they are read, and 1.4 kB with the blocks, measured over 20,000 rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from ray_jobs.errors import UsageError
from ray_jobs.index.filters import check, parse
from ray_jobs.index.manifest import Manifest, read, read_live
from ray_jobs.models.adapter import resolve_adapted
from ray_jobs.models.embedder import EmbedderConfig, choose_engine
from ray_jobs.models.for_queries import config_for_queries
from ray_jobs.models.reranker_config import RerankerConfig, choose_reranker_engine
from ray_jobs.storage import Storage
from ray_jobs.train.data.kind import text_hash
from ray_jobs.train.data.mine_config import MineConfig
from ray_jobs.train.data.mine_task import Block, BlockRow
from ray_jobs.train.data.positives import Place, Positive, Wanted, wanted
from ray_jobs.train.data.prepared import Prepared, open_prepared

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class MiningPlan:
    """What is mined from what."""

    data: Prepared
    manifest: Manifest
    embedder: EmbedderConfig | None
    reranker: RerankerConfig | None
    reranker_revision: str | None
    digest: str  # names what comes out

    @property
    def on_gpu(self) -> bool:
        """Whether a model runs on a GPU."""
        return any(model is not None and model.device == "cuda" for model in (self.embedder, self.reranker))


def plan(config: MineConfig, storage: Storage) -> MiningPlan:
    """The plan of `config`. Raises NotFoundError for what does not exist, UsageError for what does not fit."""
    data = open_prepared(storage, config.data)
    kind = data.card.kind
    if kind not in ("retrieval", "qa"):
        raise UsageError(
            f"data={config.data}: holds {kind} rows; expected retrieval or qa rows, which ask for passages"
        )
    if config.output_kind == "qa" and kind != "qa":
        raise UsageError(f"output_kind=qa with data={config.data}: {kind} rows have no answers; prepare qa rows")
    number = config.snapshot
    manifest = read_live(storage, config.index) if number is None else read(storage, config.index, number)
    if config.search.where is not None:
        check(parse(config.search.where), manifest.metadata)
    embedder = None
    if config.search.mode != "lexical":
        embedder = choose_engine(config_for_queries(config.embedder, manifest.embedder), storage)
    reranker, revision = _reranker(config, storage)
    snapshot = (manifest.index, manifest.number, manifest.made_by.job_id)
    return MiningPlan(
        data=data,
        manifest=manifest,
        embedder=embedder,
        reranker=reranker,
        reranker_revision=revision,
        digest=config.content_hash(data.card.hash, snapshot, revision),
    )


def _reranker(config: MineConfig, storage: Storage) -> tuple[RerankerConfig | None, str | None]:
    if config.reranker is None:
        return None, None
    folder = Path(config.reranker).expanduser()
    # Workers may stand in another folder.
    model = str(folder.absolute()) if folder.is_dir() else config.reranker
    chosen = choose_reranker_engine(RerankerConfig(model=model, **config.reranker_options.model_dump()))
    if chosen.engine == "fake":
        return chosen, "fake"
    return chosen, resolve_adapted(model, storage).revision


@dataclass
class Queries:
    """The queries of all splits and their positives: what one row asks another one may answer."""

    wanted: Wanted
    positives: int  # distinct ones
    rows: dict[str, list[tuple[str, str]]]  # (hash of the query, key of the row's own positive), by split
    keys: dict[str, dict[str, str]]  # hash of the query: key of each positive, with the hash of its text
    places: dict[str, list[Place]] = field(default_factory=dict)  # of each positive that was found

    @classmethod
    def read(cls, data: Prepared) -> Queries:
        """Read the rows of every split."""
        rows: dict[str, list[tuple[str, str]]] = {}
        keys: dict[str, dict[str, str]] = {}

        def positives() -> Iterator[Positive]:
            for split, path in data.splits().items():
                own = rows[split] = []
                for query, positive in _asked(path, data.card.kind):
                    asked = text_hash(query)
                    own.append((asked, "" if positive is None else positive.key))
                    if positive is not None:
                        keys.setdefault(asked, {})[positive.key] = text_hash(positive.text)
                        yield positive

        sought = wanted(positives())
        return cls(sought, len(sought.ids) + len(sought.whole), rows, keys)

    def found(self, pairs: Sequence[tuple[str, Place]]) -> None:
        """Remember where positives lie."""
        for key, place in pairs:
            self.places.setdefault(key, []).append(place)

    def documents(self, splits: Sequence[str]) -> list[str]:
        """The documents of the positives of some splits, sorted."""
        keys = {key for split in splits for _, key in self.rows.get(split, ())}
        return sorted({place.doc_id for key in keys for place in self.places.get(key, ())})

    def blocks(self, size: int) -> Iterator[Block]:
        """The rows of all splits, `size` at a time."""
        number, others = 0, self._others()
        for split, rows in self.rows.items():
            for start in range(0, len(rows), size):
                part = tuple(self._row(*row, others) for row in rows[start : start + size])
                yield Block(number=number, split=split, start=start, rows=part)
                number += 1

    def _others(self) -> dict[tuple[str, str], tuple[str, int]]:
        """Of queries with several positives, the first row of each: (hash of the query, key) to (split, place)."""
        found: dict[tuple[str, str], tuple[str, int]] = {}
        for split, rows in self.rows.items():
            for place, (asked, key) in enumerate(rows):
                if key and len(self.keys[asked]) > 1:
                    found.setdefault((asked, key), (split, place))
        return found

    def _row(self, asked: str, own: str, others: Mapping[tuple[str, str], tuple[str, int]]) -> BlockRow:
        known: Mapping[str, str] = self.keys.get(asked, {})
        # Its own first.
        keys = [key for key in (own,) if key] + [key for key in known if key != own]
        places = tuple(tuple(_in_order(self.places.get(key, ()))) for key in keys)
        rows = tuple(others[asked, key] for key in keys if key != own)
        return BlockRow(places=places, hashes=frozenset(known.values()), others=rows)


def _in_order(places: Sequence[Place]) -> list[Place]:
    return sorted(places, key=lambda place: (place.shard, place.first))


def _asked(path: Path, kind: str) -> Iterator[tuple[str, Positive | None]]:
    """Query and positive of each row; None for a passage that does not answer."""
    names = ["query", "positive", "positive_id"] if kind == "retrieval" else ["question", "passage", "answers"]
    for batch in pq.ParquetFile(path).iter_batches(_ROWS_AT_ONCE, columns=names):
        for row in batch.to_pylist():
            if kind == "retrieval":
                yield row["query"], Positive.of(row["positive_id"], row["positive"])
            else:
                yield row["question"], Positive.of(None, row["passage"]) if row["answers"] else None
