"""Splits, sketches and decisions: grouped, stable, and the same whatever was seen first."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.corpus.sketch import Banding, signatures, similarity
from ray_jobs.train.data.candidates import Buckets, NumberedBands, crossing, sharing
from ray_jobs.train.data.config import SplitConfig
from ray_jobs.train.data.duplicates import first_of_same, near_duplicates
from ray_jobs.train.data.keys import Keys, keys_schema
from ray_jobs.train.data.leakage import document_overlap, strays
from ray_jobs.train.data.lengths import histogram, measure
from ray_jobs.train.data.splitting import SPLITS, split_of

HALF = SplitConfig(train=0.5, validation=0.25, test=0.25)


@given(groups=st.lists(st.text(max_size=8)), more=st.lists(st.text(max_size=8)), seed=st.integers(0, 9))
def test_adding_groups_never_moves_one_that_was_there(groups: list[str], more: list[str], seed: int) -> None:
    config = HALF.model_copy(update={"seed": seed})
    before = {group: split_of(group, config) for group in groups}
    after = {group: split_of(group, config) for group in [*more, *groups]}
    assert before.items() <= after.items()


@pytest.mark.parametrize(("group", "split"), [("a", 0), ("b", 2), ("c", 1), ("d", 0)])
def test_the_split_of_a_group_never_changes(group: str, split: int) -> None:
    assert split_of(group, HALF) == split


def test_the_shares_of_many_groups_are_those_wished() -> None:
    found = np.bincount([split_of(f"group {number}", HALF) for number in range(20_000)], minlength=3) / 20_000
    assert found == pytest.approx([0.5, 0.25, 0.25], abs=0.02)


def test_the_test_split_stays_when_the_share_of_validation_changes() -> None:
    other = SplitConfig(train=0.75, validation=0, test=0.25)
    test = SPLITS.index("test")
    for number in range(500):
        assert (split_of(str(number), HALF) == test) == (split_of(str(number), other) == test)


def test_similarity_is_that_of_the_texts() -> None:
    text = "The scheduler places a task on the node whose memory holds its arguments already, if there is one. " * 3
    found = signatures([text, text.upper().replace(" ", "  "), text + "So much for that.", "Nothing of the kind."])
    near = similarity(found, found[0])
    assert near[1] == 1
    assert near[2] > 0.7
    assert near[3] < 0.1


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
def test_a_banding_finds_most_of_what_is_at_its_threshold(threshold: float) -> None:
    banding = Banding.of(threshold)
    assert banding.bands * banding.rows <= 128
    assert banding.chance(threshold) > 0.9
    assert banding.chance(threshold / 2) < 0.5


@given(st.lists(st.integers(0, 4), max_size=30), st.data())
def test_sharing_marks_exactly_the_rows_that_share_a_key(keys: list[int], data: st.DataObject) -> None:
    alive = data.draw(st.lists(st.booleans(), min_size=len(keys), max_size=len(keys)))
    living = [key for key, lives in zip(keys, alive, strict=True) if lives]
    found = sharing(np.array(keys, np.uint64), np.array(alive, bool))
    assert found.tolist() == [lives and living.count(key) > 1 for key, lives in zip(keys, alive, strict=True)]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=30))
def test_crossing_marks_exactly_the_keys_of_several_places(rows: list[tuple[int, int]]) -> None:
    keys, places = (np.array([row[n] for row in rows], kind) for n, kind in ((0, np.uint64), (1, np.int16)))
    found = crossing(keys, places, np.ones(len(rows), bool))
    assert found.tolist() == [len({p for k, p in rows if k == key}) > 1 for key, _ in rows]


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=20), st.data())
def test_buckets_give_exactly_the_slots_that_were_added_and_share_a_band(
    keys: list[list[int]], data: st.DataObject
) -> None:
    buckets = Buckets(NumberedBands(np.array(keys, np.uint64)))
    added = [slot for slot in range(len(keys)) if data.draw(st.booleans())]
    for slot in added:
        buckets.add(slot)
    for slot, own in enumerate(keys):
        shared = {other: sum(a == b for a, b in zip(own, keys[other], strict=True)) for other in added}
        assert buckets.sharing(slot).tolist() == [other for other in added if shared[other]]
        assert buckets.size(slot) == sum(shared.values())


ROWS = 3000


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The keys of rows that share bands with one another and are no duplicates, in two files of several row groups."""
    rng, banding = np.random.default_rng(0), Banding.of(0.8)
    sketches = {}
    for side in ("asked", "rest"):
        found = np.repeat(rng.integers(0, 1 << 32, (ROWS // 2, 128), np.uint32), 2, axis=0)
        found[1::2, 48:] = rng.integers(0, 1 << 32, (ROWS // 2, 80), np.uint32)
        sketches[side] = found
    columns: dict[str, object] = {}
    for side, found in sketches.items():
        bands = banding.keys(found)
        columns |= {f"{side}_band_{band}": bands[:, band] for band in range(banding.bands)}
        columns[f"{side}_sketch"] = [sketch.tobytes() for sketch in found]
    schema = keys_schema(banding, [])
    columns |= {name: np.zeros(ROWS, np.int64) for name in schema.names if name not in {*columns, "name"}}
    table = pa.table({"name": pa.nulls(ROWS, pa.string()), **columns}).select(schema.names).cast(schema)
    files = []
    for number, part in enumerate((table.slice(0, 1000), table.slice(1000))):
        path = tmp_path_factory.mktemp("keys") / f"{number}.parquet"
        pq.write_table(part, path, row_group_size=256)
        files.append((path, part.num_rows))
    return Keys(files)


def test_sketches_are_those_of_the_positions(keys: Keys) -> None:
    _, rest = keys.sketches(np.arange(ROWS))
    assert (rest[::2, :48] == rest[1::2, :48]).all()
    positions = np.array([1, 255, 256, 998, 1000, 1001, 2999])
    assert (keys.sketches(positions)[1] == rest[positions]).all()


def test_near_duplicates_are_looked_for_in_two_kilobytes_a_row(keys: Keys) -> None:
    alive = np.ones(ROWS, bool)
    near_duplicates(keys, alive, Banding.of(0.8), 0.8)
    tracemalloc.start()
    assert near_duplicates(keys, alive, Banding.of(0.8), 0.8) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2048 * ROWS


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=20))
def test_the_first_of_equal_rows_stays(rows: list[tuple[int, int]]) -> None:
    high, low = (np.array([row[n] for row in rows], np.uint64) for n in (0, 1))
    assert first_of_same(high, low).tolist() == [rows.index(row) for row in rows]


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=50), st.integers(1, 600))
def test_lengths_count_every_row_once(lengths: list[int], limit: int) -> None:
    found = measure(np.array(lengths, np.int32), limit)
    assert found is not None
    assert found.cut is not None
    bounds = sorted({0, 1, *(bound for power in range(1, 14) for bound in (2**power, 3 * 2**power // 2))})
    for bound, count in (bins := histogram(np.array(lengths, np.int32))):
        below = max((other for other in bounds if other < bound), default=-1)
        assert count == sum(below < length <= bound for length in lengths)
    assert sum(count for _, count in bins) == len(lengths)
    assert (found.total, found.longest) == (sum(lengths), max(lengths))
    assert found.cut.rows == sum(length > limit for length in lengths)
    assert found.cut.lost == sum(max(0, length - limit) for length in lengths)
    assert found.median in lengths


def test_a_query_shares_documents_if_any_of_its_passages_is_trained_on() -> None:
    places = np.array([0, 2, 2, 2], np.int16)
    documents, queries = np.array([7, 7, 8, 9], np.uint64), np.array([1, 2, 2, 3], np.uint64)
    found = document_overlap(2, places, np.ones(4, bool), documents, queries)
    assert found is not None
    assert (found.rows, found.shared_rows, found.units, found.shared_units) == (3, 1, 2, 1)
    assert found.disjoint.tolist() == [3]


ROWS_OF_DOCUMENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.booleans()), max_size=20)


@given(ROWS_OF_DOCUMENTS)
def test_without_strays_no_document_is_in_two_splits_and_the_highest_keeps_its_rows(
    rows: list[tuple[int, int, bool]],
) -> None:
    places, alive = np.array([row[0] for row in rows], np.int16), np.array([row[2] for row in rows], bool)
    found = strays(places, alive, np.array([row[1] for row in rows], np.uint64))
    kept = alive.copy()
    kept[found] = False
    splits: dict[int, set[int]] = {}
    for (place, document, _), stays in zip(rows, kept, strict=True):
        if stays and document and place < len(SPLITS):
            splits.setdefault(document, set()).add(place)
    assert all(len(of_document) == 1 for of_document in splits.values())
    for position in found:
        place, document, lives = rows[position]
        assert lives
        assert document
        assert place < max(splits[document])
