"""What a run has used: utilisation, the stage that is worth a change, cost; in memory that does not grow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.ingest.stage_record import MOST_WORKERS, OTHERS, SLOWEST, Content, Piece, Places, StageRecord
from ray_jobs.ingest.usage import StageUsage, Used, bottleneck_of, cost_of


def usage(**values: Any) -> StageUsage:
    usual = {"seconds": 10.0, "slots": 2, "cpus": 1.0, "gpus": 0.0, "pieces": 8, "found": 0, "documents": 0}
    rest = {"chunks": 0, "bytes": 0, "busy_seconds": 19.0, "engine_seconds": 0.0, "retries": 0}
    return StageUsage(**{**usual, **rest, **values})


def test_utilisation_is_the_busy_share_of_the_places() -> None:
    assert usage(seconds=10.0, slots=4, busy_seconds=30.0).utilisation == 0.75


def test_the_stage_that_took_longest_is_named_with_its_share() -> None:
    found = bottleneck_of({"read": usage(seconds=5.0), "embed": usage(seconds=15.0, busy_seconds=29.0)})
    assert found is not None
    assert (found.stage, found.share, found.utilisation) == ("embed", 0.75, 0.9667)
    assert found.line().startswith("embed: 75% of the time, its places 97% busy; ")


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("embed", {"engine_seconds": 18.0}, "or a GPU"),
        ("embed", {"engine_seconds": 18.0, "gpus": 1.0}, "more GPUs"),
        ("embed", {"engine_seconds": 4.0}, "--resources.embed-cpus"),
        ("embed", {"busy_seconds": 6.0, "engine_seconds": 6.0}, "--group-bytes"),
        ("read", {}, "more CPUs or machines"),
        ("read", {"busy_seconds": 6.0}, "--group-bytes"),
        ("build", {"pieces": 1, "busy_seconds": 9.0}, "--shards"),
        ("train", {}, "--index-type"),
    ],
)
def test_what_makes_it_faster_depends_on_what_it_waits_for(name: str, values: dict[str, Any], told: str) -> None:
    found = bottleneck_of({name: usage(**values)})
    assert found is not None
    assert told in found.advice


def test_a_run_that_took_no_time_has_no_bottleneck() -> None:
    assert bottleneck_of({}) is None
    assert bottleneck_of({"read": usage(seconds=0.0, busy_seconds=0.0)}) is None


def test_cost_counts_what_was_held_and_what_was_busy() -> None:
    stages = {
        "read": usage(busy_seconds=1800.0, cpus=2.0),
        "embed": usage(busy_seconds=3600.0, cpus=4.0, gpus=1.0, engine_seconds=900.0),
    }
    cost = cost_of(stages, seconds=7200.0, cpus=8, gpus=2)
    assert (cost.core_hours, cost.core_hours_busy, cost.gpu_hours, cost.gpu_hours_busy) == (16.0, 5.0, 4.0, 0.25)
    assert cost.line() == "16 core-hours (5 busy), 4 GPU-hours (0.25 busy)"
    assert Used.of(stages, 7200.0, 8, 2).cost == cost


made = st.lists(
    st.tuples(st.floats(0.001, 100), st.integers(0, 1000), st.booleans(), st.integers(0, 400)), max_size=60
)  # seconds, documents, found, worker


@given(made)
def test_sums_are_those_of_what_was_made_and_the_slowest_are_the_slowest(
    pieces: list[tuple[float, int, bool, int]],
) -> None:
    stage = StageRecord("read", Places(), len(pieces))
    for number, (seconds, documents, found, worker) in enumerate(pieces):
        piece = Piece(number, found, 0.0, seconds, f"w{worker}", 0)
        stage.add(piece, Content(documents=documents, failed={"bad": 1}), 0.0, seconds)
    own = [piece for piece in pieces if not piece[2]]
    told = stage.usage()
    assert (told.pieces, told.found) == (len(own), len(pieces) - len(own))
    assert told.documents == sum(documents for _, documents, *_ in own)
    assert told.busy_seconds == pytest.approx(sum(seconds for seconds, *_ in own), abs=1e-3)
    assert stage.done == len(pieces)
    assert stage.failed.total() == len(pieces)
    slowest = sorted((seconds for seconds, *_ in own), reverse=True)[:SLOWEST]
    assert [seconds for seconds, *_ in stage.slowest] == slowest


def test_many_pieces_by_many_workers_take_no_more_memory() -> None:
    stage = StageRecord("read", Places(), 5000)
    for number in range(5000):
        piece = Piece(number, False, 0.0, 1.0, f"w{number}", 0)
        stage.add(piece, Content(documents=1), float(number), number + 1.0)
    assert len(stage.workers) == MOST_WORKERS + 1
    assert stage.workers[OTHERS].pieces == 5000 - MOST_WORKERS
    assert len(stage.slowest) == SLOWEST
    assert sum(use.pieces for use in stage.workers.values()) == 5000
