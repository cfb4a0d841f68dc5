"""The space of a search: what may be searched, what is possible, what is drawn from it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from ray_jobs.errors import UsageError
from ray_jobs.train.tune.dimensions import Dimension, identity
from ray_jobs.train.tune.proposals import DrawnProposals, GridProposals, Told, proposals
from ray_jobs.train.tune.space import Space, keys

FIXED: dict[str, Any] = {"method": "sft", "base": "toy", "data": "talk", "name": "tuned"}
RATE = {"type": "loguniform", "low": 1e-5, "high": 1e-2}


def dimension(given: dict[str, Any]) -> Dimension:
    found: Dimension = TypeAdapter(Dimension).validate_python(given)
    return found


def space_of(dimensions: dict[str, dict[str, Any]], **fixed: Any) -> Space:
    return Space({**FIXED, **fixed}, {key: dimension(given) for key, given in dimensions.items()})


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"optimisation.learning_rat": RATE}, {}, r"did you mean optimisation\.learning_rate\?"),
    ({"learning_rate": RATE}, {}, r"space\.learning_rate: no key .* did you mean optimisation\.learning_rate\?"),
    ({"optimisation": RATE}, {}, r"space\.optimisation: no key"),
    ({"name": {"type": "choice", "values": ["a", "b"]}}, {}, r"space\.name cannot be searched: .* train\.name"),
    ({"base": {"type": "choice", "values": ["a", "b"]}}, {}, r"space\.base cannot be searched: .* one base"),
    ({"optimisation.micro_batch": {"type": "choice", "values": [2, 4]}}, {}, r"micro_batch cannot be searched: .* not"),
    ({"replay.data": {"type": "choice", "values": ["a", "b"]}}, {}, r"space\.replay\.data cannot be searched"),
    ({"workers.count": {"type": "int", "low": 1, "high": 2}}, {}, r"space\.workers\.count cannot be searched"),
    ({"lora.rank": {"type": "int", "low": 0, "high": 8}}, {}, r"space\.lora\.rank\.low=0: input should be greater"),
    (
        {"lora.dropout": {"type": "uniform", "low": 0, "high": 2}},
        {},
        r"space\.lora\.dropout\.high=2\.0: .* less",
    ),
    ({"zero.stage": {"type": "choice", "values": [0, 5]}}, {}, r"space\.zero\.stage\.values\[1\]=5: "),
    (
        {"zero.stage": {"type": "choice", "values": [0, 2]}, "optimisation.learning_rate": RATE},
        {"method": "embedder", "embedder": {"loss": "cached_mnrl"}},
        r"space\.zero\.stage\.values\[1\]=2: impossible .*set zero\.stage=1.*remove it from space\.zero\.stage\.values",
    ),
    (
        {"optimisation.global_batch": {"type": "int", "low": 9, "high": 15}},
        {},
        r"space: no combination of its values is possible .*widen the space or change train",
    ),
    (
        {"optimisation.learning_rate": {"type": "choice", "values": [0.1, 1e-5, "0.00001"]}},
        {},
        r"space\.optimisation\.learning_rate\.values\[2\]=0\.00001: .* for 1e-05, as it does values\[1\]; name each",
    ),
    (
        {"lora.rank": {"type": "choice", "values": [16, 16.0]}},
        {},
        r"space\.lora\.rank\.values\[1\]=16\.0: the key takes it for 16, as it does values\[0\]; name each value once",
    ),
    ({"optimisation.learning_rate": RATE}, {"sed": 1}, r"train\.sed: extra inputs are not permitted"),
    ({"optimisation.learning_rate": RATE}, {"name": "a b"}, r"train\.name: string should match"),
    ({"optimisation.learning_rate": RATE}, {"zero": {"stage": 9}}, r"train\.zero\.stage: "),
]


@pytest.mark.parametrize(("dimensions", "fixed", "message"), REFUSED, ids=lambda value: str(value)[:50])
def test_a_wrong_space_is_refused_before_any_trial(
    dimensions: dict[str, dict[str, Any]], fixed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        space_of(dimensions, **fixed)
    assert "\n" not in str(refused.value)


def test_a_key_that_is_missing_from_train_is_named() -> None:
    with pytest.raises(UsageError, match=r"train\.data is missing"):
        Space({"method": "sft", "base": "toy", "name": "x"}, {"optimisation.learning_rate": dimension(RATE)})


@pytest.mark.parametrize(
    ("given_dimension", "message"),
    [
        ({"type": "uniform", "low": 2, "high": 1}, "low=2 is not below high=1; swap them"),
        ({"type": "int", "low": 4, "high": 4}, "low=4 is not below high=4"),
        ({"type": "loguniform", "low": 0, "high": 1}, "low=0 on a logarithmic scale: expected more than 0"),
        ({"type": "logint", "low": 0, "high": 8}, "low=0 on a logarithmic scale"),
        ({"type": "choice", "values": []}, "at least 1 item"),
        ({"type": "choice", "values": [1, 2, 1]}, "values holds 1 twice"),
        ({"type": "magic", "low": 0, "high": 8}, "'magic'"),
        ({"type": "int", "low": 0, "high": 8, "values": [1]}, "Extra inputs"),
    ],
    ids=str,
)
def test_a_wrong_dimension_is_refused(given_dimension: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        dimension(given_dimension)
    assert message in str(refused.value)


def test_every_key_of_the_training_configuration_is_known_by_its_dotted_name() -> None:
    assert {"seed", "lora.rank", "optimisation.learning_rate", "zero.stage", "sequence.packing"} <= set(keys())


def test_a_key_inside_a_block_that_is_not_set_brings_the_block() -> None:
    space = space_of({"lora.rank": {"type": "logint", "low": 4, "high": 64}})
    assert space.example.lora is not None
    config = space.config_at({"lora.rank": 8})
    assert config is not None
    assert config.lora is not None
    assert (config.lora.rank, config.lora.alpha) == (8, 32)


def test_choices_are_taken_as_their_key_takes_them() -> None:
    space = space_of({"optimisation.learning_rate": {"type": "choice", "values": ["1e-5", 1]}})
    assert space.dimensions["optimisation.learning_rate"].ends == {"values[0]": 1e-5, "values[1]": 1.0}


def test_impossible_combinations_are_left_out_of_a_grid() -> None:
    space = space_of(
        {
            "zero.stage": {"type": "choice", "values": [0, 2]},
            "embedder.loss": {"type": "choice", "values": ["mnrl", "cached_mnrl"]},
        },
        method="embedder",
    )
    assert len(space.grid()) == 3


def test_a_grid_without_end_is_refused() -> None:
    space = space_of({"optimisation.learning_rate": RATE})
    with pytest.raises(UsageError, match=r"search=grid with space\.optimisation\.learning_rate .* endlessly many"):
        proposals("grid", space, "min", 0)


def test_a_grid_is_proposed_once_whatever_was_told() -> None:
    space = space_of({"lora.rank": {"type": "logint", "low": 4, "high": 32}})
    source = proposals("grid", space, "min", 0)
    assert isinstance(source, GridProposals)
    source.tell(Told({"lora.rank": 8}, 1.0))
    found = [source.next(number) for number in range(5)]
    assert [None if entry is None else entry.point["lora.rank"] for entry in found] == [4, 16, 32, None, None]


BATCH = {"type": "int", "low": 8, "high": 64}


@pytest.mark.parametrize("learns", [True, False])
@settings(max_examples=8)
@given(seed=st.integers(0, 1000), told=st.lists(st.floats(-5, 5), max_size=6))
def test_what_is_drawn_is_possible_new_and_inside_the_space(learns: bool, seed: int, told: list[float]) -> None:
    space = space_of(
        {
            "optimisation.learning_rate": RATE,
            "optimisation.global_batch": BATCH,
            "lora.rank": {"type": "logint", "low": 2, "high": 64},
            "lora.dropout": {"type": "uniform", "low": 0, "high": 0.3, "step": 0.1},
            "lora.dora": {"type": "choice", "values": [False, True]},
        }
    )
    source = DrawnProposals(space, "min", seed, learns)
    points = []
    for number, value in enumerate([*told, 0.0]):
        proposal = source.next(number)
        assert proposal is not None
        config = space.config_at(proposal.point)
        assert config is not None
        assert config.optimisation.global_batch % 8 == 0
        assert 1e-5 <= proposal.point["optimisation.learning_rate"] <= 1e-2
        assert math.isclose(proposal.point["lora.dropout"] * 10 % 1, 0, abs_tol=1e-6) or (
            math.isclose(proposal.point["lora.dropout"] * 10 % 1, 1, abs_tol=1e-6)
        )
        source.tell(Told(proposal.point, value, stopped=number % 2 == 1, evaluations=((10, value),)))
        points.append(identity(proposal.point))
    assert len(set(points)) == len(points)


@given(
    low=st.floats(1e-6, 0.4),
    step=st.floats(1e-4, 0.4),
    width=st.floats(0.001, 0.5),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_steps_of_any_range_are_drawn_told_and_listed_alike(low: float, step: float, width: float, seed: int) -> None:
    space = space_of({"lora.dropout": {"type": "uniform", "low": low, "high": low + width, "step": step}})
    source, steps = DrawnProposals(space, "min", seed, learns=True), space.dimensions["lora.dropout"].grid()
    assert steps is not None
    assert steps[0] == low
    assert all(low <= value <= low + width for value in steps)
    for number in range(min(3, len(steps))):
        proposal = source.next(number)
        assert proposal is not None
        assert proposal.point["lora.dropout"] in steps
        source.tell(Told(proposal.point, 1.0))


def test_steps_are_as_they_are_written() -> None:
    assert dimension({"type": "uniform", "low": 0, "high": 0.5, "step": 0.1}).grid() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    found = dimension({"type": "uniform", "low": 0.12345, "high": 0.4, "step": 0.1})
    assert found.grid() == [0.12345, 0.22345, 0.32345]


def test_an_end_that_no_step_leads_to_is_not_warned_of() -> None:
    space = space_of(
        {
            "lora.rank": {"type": "int", "low": 4, "high": 30, "step": 8},
            "lora.dropout": {"type": "uniform", "low": 0, "high": 0.25, "step": 0.1},
        }
    )
    found = proposals("optuna", space, "min", 0).next(0)
    assert found is not None
    assert found.point["lora.rank"] in (4, 12, 20, 28)


@pytest.mark.parametrize("search", ["optuna", "random"])
def test_a_search_that_goes_on_draws_what_it_would_have_drawn(search: Any) -> None:
    space = space_of({"optimisation.learning_rate": RATE, "optimisation.global_batch": BATCH})

    def drawn(told: list[Told], numbers: range) -> list[Told]:
        source = proposals(search, space, "min", 3)
        for entry in told:
            source.tell(entry)
        found = []
        for number in numbers:
            proposal = source.next(number)
            assert proposal is not None
            found.append(Told(proposal.point, math.log(proposal.point["optimisation.learning_rate"])))
            source.tell(found[-1])
        return found

    whole = drawn([], range(14))
    assert drawn(whole[:12], range(12, 14)) == whole[12:]


def test_impossible_draws_are_counted() -> None:
    space = space_of({"optimisation.global_batch": BATCH})
    source = proposals("random", space, "min", 0)
    found = [source.next(number) for number in range(8)]
    assert sum(entry.impossible for entry in found if entry is not None) > 0
    # 8, 16, ..., 64 are all that is possible.
    assert all(found)
    assert source.next(8) is None


def test_optuna_learns_where_the_best_is() -> None:
    space = space_of({"optimisation.learning_rate": RATE})
    source = proposals("optuna", space, "min", 1)
    points = []
    for number in range(30):
        proposal = source.next(number)
        assert proposal is not None
        points.append(proposal.point["optimisation.learning_rate"])
        source.tell(Told(proposal.point, abs(math.log10(points[-1]) + 3)))
    late = [abs(math.log10(value) + 3) for value in points[15:]]
    early = [abs(math.log10(value) + 3) for value in points[:10]]
    assert sorted(late)[len(late) // 2] < sorted(early)[len(early) // 2] / 2


def test_optuna_learns_to_stay_within_a_limit() -> None:
    space = space_of({"optimisation.learning_rate": RATE})
    source = proposals("optuna", space, "max", 1)
    points = []
    for number in range(40):
        proposal = source.next(number)
        assert proposal is not None
        points.append(math.log10(proposal.point["optimisation.learning_rate"]))
        # More is gained by a higher rate, and above 1e-3 too much is forgotten.
        source.tell(Told(proposal.point, points[-1], excess=max(0.0, points[-1] + 3)))
    assert sum(-3.5 < point <= -2.9 for point in points[20:]) >= 8
