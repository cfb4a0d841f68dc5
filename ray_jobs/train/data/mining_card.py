"""Make the files and the card of a mined set out of the blocks; refuse a set without negatives.

Guaranteed: rows stay in the order of the prepared set; rows that came out the same (two equal questions given the same
wrong passage) stay once, and rather in test than in validation than in training. Memory: a table of all ids (80 to 180
bytes a row, measured: it is more full or less), a block, and one row group of a split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.errors import RejectedError
from ray_jobs.storage import Storage, sha256_of
from ray_jobs.train.data.card import DataCard, SharedDocuments, SplitRecord
from ray_jobs.train.data.keys import LENGTH
from ray_jobs.train.data.kind import Kind, schema_of
from ray_jobs.train.data.lengths import Lengths, measure
from ray_jobs.train.data.mine_config import MineConfig
from ray_jobs.train.data.mine_task import MinedBlock
from ray_jobs.train.data.mined_rows import BEFORE
from ray_jobs.train.data.mining_plan import MiningPlan
from ray_jobs.train.data.mining_record import MinedSplit, MiningRecord
from ray_jobs.train.data.splitting import SPLITS
from ray_jobs.train.data.writing import SplitWriter

FEW = 0.8  # share of the rows with negatives below which the card warns


class WrittenSplit:
    """One split's file, and what was counted while it was written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self.groups: set[str] = set()
        self.ids: dict[str, str] = {}  # by the id that the row had; of those that the card lists
        self.lengths: dict[str, list[npt.NDArray[np.int32]]] = {}
        self.record = MinedSplit()


def write(
    storage: Storage, blocks: Sequence[MinedBlock], kind: Kind, folder: Path, before: DataCard
) -> dict[str, WrittenSplit]:
    """Join the blocks, which are in order, to one file a split; `before` is the card of the rows that were mined."""
    listed = {identity for found in before.shared_documents if found.place in SPLITS for identity in found.disjoint}
    written = {name: WrittenSplit(folder / f"{name}.parquet") for name in SPLITS}
    seen: set[bytes] = set()
    for name in reversed(SPLITS):
        split = written[name]
        with SplitWriter(split.path, schema_of(kind)) as writer:
            for block in (block for block in blocks if block.split == name):
                _append(split, writer, pq.read_table(storage.local(block.key)), seen, listed)
                split.record += block.record
                storage.delete(block.key)
    return written


def _append(
    split: WrittenSplit, writer: SplitWriter, table: pa.Table, seen: set[bytes], listed: AbstractSet[str]
) -> None:
    fresh = []
    for identity in map(bytes.fromhex, table.column("id").to_pylist()):
        fresh.append(identity not in seen)
        seen.add(identity)
    kept = table.filter(pa.array(fresh, pa.bool_()))
    split.record += MinedSplit(repeated=table.num_rows - kept.num_rows)
    split.rows += kept.num_rows
    split.groups.update(kept.column("source").to_pylist())
    names = [name for name in kept.column_names if name.startswith(LENGTH)]
    for name in names:
        split.lengths.setdefault(name.removeprefix(LENGTH), []).append(kept.column(name).to_numpy())
    pairs = zip(kept.column(BEFORE).to_pylist(), kept.column("id").to_pylist(), strict=True)
    split.ids |= {old: new for old, new in pairs if old in listed}
    writer.add(kept.drop_columns([*names, BEFORE]))


def make_card(
    config: MineConfig, plan: MiningPlan, written: Mapping[str, WrittenSplit], positives: int, indexed: int
) -> DataCard:
    """The card: that of the prepared set, with what is new. Raises RejectedError where no row to train on has any."""
    record = MiningRecord(
        data=plan.data.reference,
        data_kind=plan.data.card.kind,
        index=plan.manifest.index,
        snapshot=plan.manifest.number,
        reranker=config.reranker,
        reranker_revision=plan.reranker_revision,
        positives=positives,
        indexed=indexed,
        splits={name: split.record for name, split in written.items()},
    )
    before = plan.data.card
    train = record.splits["train"]
    if not train.negatives:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in train.without.items()) or "there are no rows"
        raise RejectedError(
            f"name={config.name}: no row to train on got a negative ({reasons}); {indexed:,} of {positives:,} "
            f"positives are in index={config.index!r}; name the index of these passages, raise range_max or lower the "
            f"margins"
        )
    total = sum(split.rows for split in written.values())
    return before.model_copy(
        update={
            "name": config.name,
            "hash": plan.digest,
            "kind": config.output_kind,
            "config": {**before.config, "mining": config.deciding()},
            "splits": {
                name: _split(before.splits[name], split, total, before.config) for name, split in written.items()
            },
            "shared_documents": tuple(_shared(found, written) for found in before.shared_documents),
            "warnings": (*before.warnings, *_warnings(record)),
            "mining": record,
        }
    )


def _shared(found: SharedDocuments, written: Mapping[str, WrittenSplit]) -> SharedDocuments:
    """What a split shares with training, by the ids that its rows have now; those that were left out are not listed."""
    if found.place not in written:
        return found
    ids = written[found.place].ids
    return found.model_copy(update={"disjoint": tuple(ids[old] for old in found.disjoint if old in ids)})


def _split(before: SplitRecord, split: WrittenSplit, total: int, config: Mapping[str, object]) -> SplitRecord:
    limit = config.get("max_length")
    lengths: dict[str, Lengths] = {}
    for name, parts in split.lengths.items():
        measured = measure(np.concatenate(parts), limit if isinstance(limit, int) else None)
        if measured is not None:
            lengths[name] = measured
    return before.model_copy(
        update={
            "rows": split.rows,
            "groups": len(split.groups),
            "share": round(split.rows / total, 6) if total else 0.0,
            "sha256": sha256_of(split.path),
            "bytes": split.path.stat().st_size,
            "lengths": lengths,
        }
    )


def _warnings(record: MiningRecord) -> list[str]:
    warnings = []
    if record.indexed < record.positives:
        missing = record.positives - record.indexed
        warnings.append(f"{missing:,} of {record.positives:,} positives are not in index {record.index}")
    for name, split in record.splits.items():
        if split.rows and split.mined < FEW * split.rows:
            warnings.append(f"{name}: {split.rows - split.mined:,} of {split.rows:,} rows got no negatives")
    return warnings
