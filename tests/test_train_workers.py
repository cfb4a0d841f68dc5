"""Fine-tuning on two real workers of Ray Train: equal losses, disjoint rows, shards, resizes.

All runs of a group share its workers: they take a second or two each, starting a group takes many.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import train_bases
from train_runs import (
    SHARDED_WHOLLY,
    Stretch,
    checkpoints,
    evaluations,
    losses,
    reopen,
    settings,
    train_alone,
    train_together,
)

from ray_jobs.train.config import TrainConfig

pytestmark = pytest.mark.slow

STAGES = {
    "ddp": {"engine": "ddp"},
    "zero0": {"stage": 0, "engine": "deepspeed"},
    "zero1": {"stage": 1},
    "zero2": {"stage": 2},
    "zero3": SHARDED_WHOLLY,
}
SHARDED: dict[str, dict[str, Any]] = {
    "zero2": {"zero": {"stage": 2}},
    "zero3": {"zero": SHARDED_WHOLLY},
    "an adapter at zero2": {"zero": {"stage": 2}, "lora": {"rank": 4}},
    "an adapter at zero3": {"zero": SHARDED_WHOLLY, "lora": {"rank": 4}},
}
HALVES = ("ddp", "zero2", "zero3")
OFFLOADED: dict[str, dict[str, Any]] = {
    "zero2 with the optimiser in memory": {"stage": 2, "offload_optimizer": "cpu"},
    "zero3 with optimiser and weights in memory": {
        **SHARDED_WHOLLY,
        "offload_optimizer": "cpu",
        "offload_parameters": "cpu",
    },
}


@dataclass(frozen=True)
class Places:
    """Base, data and store of this file."""

    folder: Path
    base: Path
    data: Path

    def config(self, name: str, **changes: Any) -> TrainConfig:
        return settings("sft", self.base, self.data, self.folder / "store", name.replace(" ", "-"), **changes)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    folder = tmp_path_factory.mktemp("train")
    base = train_bases.language_model(folder / "chat")
    return Places(folder, base, train_bases.conversations(folder / "conversations"))


def of_stage(places: Places, stage: str, kind: str) -> TrainConfig:
    return places.config(f"{kind}-{stage}", zero=STAGES[stage])


def offloaded(places: Places, name: str) -> TrainConfig:
    return places.config(name, zero=OFFLOADED[name])


def half(places: Places, stage: str) -> TrainConfig:
    return places.config(f"half-{stage}", zero=STAGES[stage])


def halved(places: Places, stage: str) -> TrainConfig:
    """As `half`, but that two workers begin it and one goes on."""
    return places.config(f"halved-{stage}", zero=STAGES[stage])


def packed(places: Places, packing: bool) -> TrainConfig:
    """The same eight rows in every step: as two packs of four, or one by one."""
    config = places.config(
        f"packing-{packing}",
        sequence={"packing": packing, "max_length": 28},
        optimisation={"global_batch": 2 if packing else 8, "micro_batch": 1, "max_steps": 3},
        checkpoints={"every_steps": 3},
    )
    return config.model_copy(update={"data": str(places.folder / "eight")})


def uneven(places: Places, stage: str, **optimisation: int) -> TrainConfig:
    """Rows of different lengths, so that micro-batches and workers have different numbers of tokens."""
    config = places.config(f"uneven-{stage}", zero=STAGES[stage], optimisation={"max_steps": 4, **optimisation})
    return config.model_copy(update={"data": str(places.folder / "uneven")})


def of_kind(places: Places, kind: str, name: str) -> TrainConfig:
    return places.config(f"{name}-{kind}", **SHARDED[kind])


@pytest.fixture(scope="module")
def two_workers(ray_session: None, places: Places) -> Places:
    """Every run that starts on two workers."""
    train_bases.completions(places.folder / "eight", train=8, validation=8)
    train_bases.completions(places.folder / "uneven", validation=7, longest=9)
    whole = [
        Stretch(of_stage(places, stage, "whole"), rows=places.folder / "dealt" / stage if stage == "ddp" else None)
        for stage in STAGES
    ]
    first_half = [Stretch(of_kind(places, kind, "shrunk"), stop_after=4) for kind in SHARDED]
    others = [packed(places, True), packed(places, False)]
    others += [of_kind(places, kind, "whole") for kind in SHARDED if kind not in STAGES]
    others += [uneven(places, stage) for stage in HALVES]
    halves = [Stretch(half(places, stage), precision="bfloat16") for stage in HALVES]
    train_together([*whole, *first_half, *map(Stretch, others), *halves], workers=2)
    return places


@pytest.fixture(scope="module")
def one_worker(two_workers: Places) -> Places:
    """What two workers have begun goes on with one."""
    shrunk = [of_kind(two_workers, kind, "shrunk") for kind in SHARDED]
    for config in shrunk:
        reopen(config)
    train_together(list(map(Stretch, shrunk)), workers=1)
    return two_workers


@pytest.fixture(scope="module")
def more_on_two_workers(two_workers: Places) -> Places:
    """Runs whose optimiser or weights lie in memory, and the first halves of runs in bfloat16."""
    runs = [Stretch(offloaded(two_workers, name)) for name in OFFLOADED]
    runs += [Stretch(halved(two_workers, stage), stop_after=4, precision="bfloat16") for stage in HALVES]
    train_together(runs, workers=2)
    return two_workers


@pytest.fixture(scope="module")
def halves_on_one_worker(more_on_two_workers: Places) -> Places:
    """The second halves of runs in bfloat16."""
    runs = [halved(more_on_two_workers, stage) for stage in HALVES]
    for config in runs:
        reopen(config)
    train_together([Stretch(config, precision="bfloat16") for config in runs], workers=1)
    return more_on_two_workers


@pytest.fixture(scope="module")
def one_then_two(two_workers: Places) -> Places:
    """What one worker has begun goes on with two."""
    grown = [of_kind(two_workers, kind, "grown") for kind in SHARDED]
    train_together([Stretch(config, stop_after=4) for config in grown], workers=1)
    for config in grown:
        reopen(config)
    train_together([Stretch(config) for config in grown], workers=2)
    return two_workers


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "ddp"])
def test_every_stage_of_zero_has_the_losses_of_ddp_step_by_step(two_workers: Places, stage: str) -> None:
    expected, found = (losses(of_stage(two_workers, name, "whole")) for name in ("ddp", stage))
    assert list(expected) == list(range(1, 9))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("stage", [stage for stage in HALVES if stage != "ddp"])
def test_in_bfloat16_sharding_loses_nothing_of_the_gradients_of_micro_batches(two_workers: Places, stage: str) -> None:
    expected, found = losses(half(two_workers, "ddp")), losses(half(two_workers, stage))
    assert expected != losses(of_stage(two_workers, "ddp", "whole"))
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.chaos
@pytest.mark.parametrize("name", OFFLOADED)
def test_what_lies_in_memory_changes_no_loss(more_on_two_workers: Places, name: str) -> None:
    expected = losses(of_stage(more_on_two_workers, "ddp", "whole"))
    found = losses(offloaded(more_on_two_workers, name))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("stage", HALVES)
def test_a_token_weighs_the_same_in_every_micro_batch_of_every_worker(two_workers: Places, stage: str) -> None:
    at_once = uneven(two_workers, "ddp", micro_batch=8).model_copy(update={"name": f"at-once-{stage}"})
    found = uneven(two_workers, stage)
    assert losses(found) == pytest.approx(losses(train_alone(at_once)), rel=1e-4)
    # The workers have seven validation rows between them.
    assert evaluations(found) == pytest.approx(evaluations(at_once), rel=1e-4)


def test_workers_are_dealt_disjoint_rows_that_make_up_the_run(two_workers: Places) -> None:
    dealt = [
        {tuple(row) for row in json.loads((two_workers.folder / "dealt" / "ddp" / f"{rank}.json").read_text())}
        for rank in (0, 1)
    ]
    assert len(dealt[0]) == len(dealt[1]) == 32
    assert not dealt[0] & dealt[1]


def test_packed_rows_have_the_losses_of_separate_ones(two_workers: Places) -> None:
    apart, together = (packed(two_workers, packing) for packing in (False, True))
    assert losses(together) == pytest.approx(losses(apart), rel=1e-4)
    assert evaluations(together) == pytest.approx(evaluations(apart), rel=1e-4)


def test_each_worker_has_stored_its_own_shard_once(two_workers: Places) -> None:
    (last,) = [found for found in checkpoints(of_stage(two_workers, "zero3", "whole")) if found.step == 8]
    shards = sorted(name.rsplit("/", 1)[-1] for name in last.files if "zero_pp_rank" in name)
    assert shards == [
        f"zero_pp_rank_{rank}_mp_rank_00_{kind}_states.pt" for rank in (0, 1) for kind in ("model", "optim")
    ]
    assert {"rng_state_0.pth", "rng_state_1.pth", "trainer_state.json"} <= set(last.files)


def test_a_checkpoint_has_the_metric_of_its_own_step(two_workers: Places) -> None:
    config = of_stage(two_workers, "zero2", "whole")
    assert {found.step: found.metric for found in checkpoints(config)} == evaluations(config)


@pytest.mark.parametrize("kind", SHARDED)
def test_from_two_workers_to_one_the_losses_are_those_of_an_unchanged_run(one_worker: Places, kind: str) -> None:
    config = of_kind(one_worker, kind, "shrunk")
    assert [found.workers for found in checkpoints(config)] == [2, 1]
    assert losses(config) == pytest.approx(losses(of_kind(one_worker, kind, "whole")), rel=1e-4)


@pytest.mark.chaos
@pytest.mark.parametrize("stage", HALVES)
def test_from_two_workers_to_one_a_run_in_bfloat16_goes_on_in_it(halves_on_one_worker: Places, stage: str) -> None:
    config = halved(halves_on_one_worker, stage)
    assert [(found.workers, found.precision) for found in checkpoints(config)] == [(2, "bfloat16"), (1, "bfloat16")]
    assert losses(config) == pytest.approx(losses(half(halves_on_one_worker, stage)), rel=0.02)


@pytest.mark.chaos
@pytest.mark.parametrize("kind", SHARDED)
def test_from_one_worker_to_two_the_losses_are_those_of_an_unchanged_run(one_then_two: Places, kind: str) -> None:
    config = of_kind(one_then_two, kind, "grown")
    assert [found.workers for found in checkpoints(config)] == [1, 2]
    assert losses(config) == pytest.approx(losses(of_kind(one_then_two, kind, "whole")), rel=1e-4)
