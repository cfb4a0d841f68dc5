"""The rows of a split, read map-style, and what is made of them, kept for the next run on the same machine.

Guaranteed: rows keep their order; what is kept belongs to this content of the data and these settings. Not guaranteed:
that the cache stays small; it can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.errors import UsageError
from ray_jobs.train import batches
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.data.parquet import shape
from ray_jobs.train.methods import KINDS, OPTIONAL, Method, Task, kind_of
from ray_jobs.train.methods.alike import alike

if TYPE_CHECKING:
    from datasets import Dataset

Rows = dict[str, list[Any]]
"""A batch of rows as columns."""
_READ = 4096  # rows looked at a time


def check_splits(config: TrainConfig, method: Method, train: Path, validation: Path) -> str:
    """The kind of rows of two splits; raises UsageError where the method cannot learn from them."""
    size = config.optimisation.global_batch
    columns, count = shape(train)
    if count < size:
        raise UsageError(
            f"data={config.data}: {count} training rows are fewer than optimisation.global_batch={size}; lower it or "
            "prepare more rows"
        )
    others, judged = shape(validation)
    if judged == 0:
        raise UsageError(
            f"data={config.data}: the validation split is empty, and checkpoints are chosen by it; prepare the data "
            "with a larger split.validation"
        )
    kind = kind_of(columns, train)
    if kind not in method.kinds:
        raise UsageError(
            f"method={method.name} with data={config.data}: the rows are of kind {kind}, expected "
            f"{' or '.join(method.kinds)}; choose other data or another method"
        )
    if (other := kind_of(others, validation)) != kind:
        raise UsageError(
            f"data={config.data}: its training rows are of kind {kind} and its validation rows of kind {other}; "
            "prepare both alike"
        )
    return kind


def read_splits(task: Task, method: Method) -> tuple[Dataset, Dataset, str]:
    """Training and validation rows, and their kind; raises UsageError where the method cannot learn from them."""
    splits = task.splits
    kind = check_splits(task.config, method, splits.train, splits.validation)
    train = _read(splits.train, splits.cache, task)
    if splits.replay is not None and task.config.replay is not None:
        train = mixed(train, _read(splits.replay, splits.cache, task), kind, task.config.replay.share, task.config.seed)
    return train, _read(splits.validation, splits.cache, task), kind


def mixed(train: Dataset, replay: Dataset, kind: str, share: float, seed: int) -> Dataset:
    """All training rows and, behind them, as many of `replay` as make up `share` of the whole, to the nearest row.

    They are drawn once, so that every epoch has the same rows and its order is fixed before the run; none comes twice
    before all have come.
    """
    from datasets import concatenate_datasets

    besides = OPTIONAL.get(kind, frozenset()) & {*train.column_names, *replay.column_names}
    columns = sorted(KINDS[kind] | besides)
    count = round(len(train) * share / (1 - share))
    own = _with(train, besides, replay).select_columns(columns)
    if not count:
        return own
    drawn = _with(replay.select(batches.order(len(replay), count, seed)), besides, train).select_columns(columns)
    return concatenate_datasets([own, drawn.cast(own.features)])


def _with(rows: Dataset, besides: frozenset[str], other: Dataset) -> Dataset:
    """The rows with nulls in those columns that only the `other` ones have."""
    for name in sorted(besides - set(rows.column_names)):
        rows = rows.add_column(name, [None] * len(rows), feature=other.features[name])
    return rows


def made_once(
    rows: Dataset, make: Callable[[Rows], Rows], task: Task, settings: dict[str, object], name: str
) -> Dataset:
    """What `make` returns for batches of rows; made by one worker of a machine, read by all.

    `settings` are all that the result depends on besides the data and the base.
    """
    kept = {**settings, "data": task.splits.hash, "base": task.base_revision, "split": name}
    fingerprint = hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=8).hexdigest()
    file = task.splits.cache / f"{name}-{fingerprint}.arrow"

    def mapped() -> Dataset:
        return rows.map(
            make,
            batched=True,
            remove_columns=rows.column_names,
            cache_file_name=str(file),
            new_fingerprint=fingerprint,
            load_from_cache_file=True,
        )

    task.place.first_on_machine(mapped)
    return mapped()


def how_many(rows: Dataset, column: str) -> int:
    """In how many of the rows that `made_once` returned a column of booleans is true."""
    import pyarrow.compute as pc

    # What is made of no row has no columns.
    return int(pc.sum(rows.data.column(column)).as_py() or 0) if len(rows) else 0


def steps_of(rows: Dataset, task: Task) -> int:
    """Steps of the whole run over these training rows, as the trainer has them.

    Raises UsageError where they are fewer than a step takes: it would learn the same ones several times.
    """
    chosen = task.config.optimisation
    if len(rows) < chosen.global_batch:
        packing = task.config.sequence.packing
        become = "are packed into" if packing else "leave"
        besides = ", leave sequence.packing out" if packing else ""
        raise UsageError(
            f"data={task.config.data}: its training rows {become} {len(rows)} to learn from, fewer than "
            f"optimisation.global_batch={chosen.global_batch}; lower it{besides} or prepare more rows"
        )
    return batches.steps(len(rows), task.batches.global_batch, chosen.epochs, chosen.max_steps)


def in_order(rows: Dataset, task: Task) -> Dataset:
    """The rows of the whole run, in the order in which they are learned: all epochs, one after the other."""
    return selected(rows, rows_of_run(rows, task), task)


def in_order_of_length(rows: Dataset, lengths: npt.NDArray[np.int64], task: Task) -> Dataset:
    """As `in_order`, but that the rows of a step are of like length; `lengths` are those of all rows."""
    places = alike(rows_of_run(rows, task), lengths, task.batches.global_batch, task.config.seed)
    return selected(rows, places, task)


def rows_of_run(rows: Dataset, task: Task) -> npt.NDArray[np.int64]:
    """Indices of the rows of the whole run, int64, in the order in which they are learned."""
    return batches.order(len(rows), steps_of(rows, task) * task.batches.global_batch, task.config.seed)


def selected(rows: Dataset, indices: npt.NDArray[np.int64], task: Task, split: str = "train") -> Dataset:
    """The rows of a split at these indices, without a copy of them."""
    # What others make of these rows and keep is found again by this name.
    places = hashlib.blake2b(indices.tobytes(), digest_size=8, key=split.encode()).hexdigest()
    return rows.select(indices, keep_in_memory=True, new_fingerprint=f"{task.splits.hash[:16]}{places}")


def list_lengths(rows: Dataset, column: str) -> npt.NDArray[np.int64]:
    """How many items the list of each row has, int64; 0 where it has null in place of a list."""
    found = [np.zeros(0, dtype=np.int64)]
    for table in rows.select_columns([column]).with_format("arrow").iter(_READ):
        lists = table[column]
        if pa.types.is_null(lists.type):
            found.append(np.zeros(len(lists), dtype=np.int64))
        else:
            found.append(pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64))
    return np.concatenate(found)


def text_hashes(rows: Dataset) -> npt.NDArray[np.int64]:
    """A hash of each text, int64 of shape (rows, columns), the same on every machine.

    No more than a few rows' texts are in memory at once.
    """
    columns = rows.column_names
    found = np.empty((len(rows), len(columns)), dtype=np.int64)
    for start, batch in zip(range(0, len(rows), _READ), rows.iter(_READ), strict=True):
        for place, column in enumerate(columns):
            hashes = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in batch[column])
            found[start : start + _READ, place] = np.frombuffer(hashes, dtype=np.int64)
    return found


def _read(path: Path, cache: Path, task: Task) -> Dataset:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    cache.mkdir(parents=True, exist_ok=True)
    found: list[Dataset] = []

    def read() -> None:
        found.append(Dataset.from_parquet(str(path), cache_dir=str(cache / "rows")))

    task.place.first_on_machine(read)
    if not found:
        read()
    return found[0]
