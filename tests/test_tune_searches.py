"""What the search job decides before it trains: what it refuses, what is one search, how much runs at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import train_bases
import tune_toys
from command_line import run
from tune_toys import settings

from ray_jobs.errors import ConflictError, NotFoundError, UsageError
from ray_jobs.runtime import ClusterSize, Machine
from ray_jobs.storage import open_storage
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.tune import job
from ray_jobs.train.tune.campaign import Campaign
from ray_jobs.train.tune.config import TuneConfig

Capsys = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and conversations."""
    return tune_toys.make(tmp_path_factory.mktemp("tune"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train": {"base": "/absent"}}, Exception, "/absent"),
        ({"train": {"data": "absent"}}, NotFoundError, "data=absent"),
        ({"objective": {"target": "f1", "retained": "wiki", "weight": 1}}, UsageError, "objective.retained=wiki"),
        ({"objective": {"target": "ndcg@10"}}, UsageError, "objective.target=ndcg@10: .* perplexity, token_kl"),
        (
            {"space": {"sequence.completion_only": {"type": "choice", "values": [False, True]}}},
            UsageError,
            "be compared; set train",
        ),
        ({"space": {"optimisation.lr": {"type": "choice", "values": [1]}}}, UsageError, "space.optimisation.lr"),
    ],
    ids=["base", "data", "retained", "target", "incomparable", "space"],
)
def test_what_cannot_be_trained_or_judged_is_refused_before_any_trial(
    toys: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    chosen = settings(toys)
    inner = {**chosen["train"], "name": "refused", **changes.get("train", {})}
    with pytest.raises(error, match=message):
        job.run(TuneConfig.model_validate({**chosen, **changes, "train": inner}))
    assert not (toys / "store" / "tune" / "refused").exists()


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Searches begin their trials and train none; the runs of those."""
    runs: list[str] = []

    def begin(config: TuneConfig, campaign: Campaign, *given: Any) -> bool:
        while campaign.next() is not None:
            pass
        runs.extend(trial.begun.run for trial in campaign._trials)
        return True

    monkeypatch.setattr(job, "_drive", begin)
    return runs


def searches(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("store/tune/tuned/*")}


def test_other_rows_of_a_replayed_or_retained_set_make_another_search(
    toys: Path, tmp_path: Path, begun: list[str]
) -> None:
    chosen = settings(toys, objective={"retained": "old", "weight": 1})
    chosen["train"] |= {
        "store": str(tmp_path / "store"),
        "replay": {"data": str(tmp_path / "again")},
        "evaluation": {"retained": {"old": str(tmp_path / "old")}},
    }
    config = TuneConfig.model_validate(chosen)
    train_bases.conversations(tmp_path / "old", train=8, validation=4)
    rows = {"train": [{"messages": [{"role": "user", "content": "ant"}, {"role": "assistant", "content": "bee"}]}]}
    train_bases.prepared(tmp_path / "again", rows, train_bases.MESSAGES)
    job.run(config)
    job.run(config)
    assert len(searches(tmp_path)) == 1
    train_bases.conversations(tmp_path / "old", train=8, validation=5)
    job.run(config)
    assert len(searches(tmp_path)) == 2
    train_bases.prepared(tmp_path / "again", {"train": rows["train"] * 2}, train_bases.MESSAGES)
    job.run(config)
    assert len(searches(tmp_path)) == 3


def test_a_search_whose_best_is_published_takes_more_trials(toys: Path, tmp_path: Path, begun: list[str]) -> None:
    chosen = settings(toys)
    chosen["train"]["store"] = str(tmp_path / "store")
    config = TuneConfig.model_validate(chosen)
    job.run(config)
    card = tmp_path / "store" / "models" / "tuned" / "card.json"
    card.parent.mkdir(parents=True)
    card.write_text(json.dumps({"run": begun[1]}))
    job.run(config)
    card.write_text(json.dumps({"run": "runs/tuned/other"}))
    with pytest.raises(ConflictError, match="made by runs/tuned/other, is there already"):
        job.run(config)
    card.unlink()
    (card.parent / "config.json").write_text("{}")
    with pytest.raises(ConflictError, match="is there already; choose another name"):
        job.run(config)
    open_storage(str(tmp_path / "store")).create(f"{begun[1]}/publishing-tuned", b"")
    job.run(config)


def test_a_new_search_does_not_take_the_name_of_a_model_without_a_card(
    toys: Path, tmp_path: Path, begun: list[str]
) -> None:
    chosen = settings(toys)
    chosen["train"]["store"] = str(tmp_path / "store")
    model = tmp_path / "store" / "models" / "tuned"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    with pytest.raises(ConflictError, match="is there already; choose another name"):
        job.run(TuneConfig.model_validate(chosen))
    assert not begun


@pytest.mark.parametrize(
    ("workers", "cluster_size", "expected"),
    [
        ({"count": 1}, ClusterSize(8, 0), 8),
        ({"count": 2, "cpus_per_worker": 3}, ClusterSize(16, 0), 2),
        ({"count": 1}, ClusterSize(64, 4), 4),
        ({"min": 1, "max": 2}, ClusterSize(3, 0), 1),
        ({"count": 2, "cpus_per_worker": 3}, ClusterSize(16, 0, (Machine(4), Machine(4), Machine(8))), 2),
        ({"count": 1, "cpus_per_worker": 4}, ClusterSize(9, 0, (Machine(3), Machine(6))), 1),
    ],
)
def test_as_many_trials_run_at_once_as_there_is_room_for(
    workers: dict[str, Any], cluster_size: ClusterSize, expected: int
) -> None:
    given = {"method": "sft", "base": "x", "data": "y", "name": "z", "workers": workers}
    assert job.parallel(TrainConfig.model_validate(given), cluster_size) == expected


def test_a_trial_that_never_fits_is_refused() -> None:
    given = {"method": "sft", "base": "x", "data": "y", "name": "z", "workers": {"count": 4}}
    with pytest.raises(UsageError, match=r"train\.workers=4 with 1 CPUs each: the cluster has 2"):
        job.parallel(TrainConfig.model_validate(given), ClusterSize(2, 0))


NEEDS_NOTHING: list[tuple[str, list[str]]] = [
    ("space: {seed: {type: int, low: 1, high: 3}}", ["expected one of train", "train_config", "set one"]),
    ("train: {name: x}", ["space is empty"]),
    ("train: {name: x}\nspace: {seed: {type: int, low: 3, high: 1}}", ["low=3 is not below high=1"]),
    ("train: {name: x}\nspace: {sed: {type: int, low: 1, high: 3}}", ["space.sed", "did you mean seed?"]),
    ("train: {name: x}\nspace: {seed: {type: int, low: 1, high: 3}}", ["train.method is missing"]),
    ("train: {seed: 4}\nspace: {seed: {type: int, low: 1, high: 3}}", ["space.seed and train.seed=4", "remove one"]),
    ("train_config: no.yaml\nspace: {seed: {type: int, low: 1, high: 3}}", ["train_config=no.yaml", "No such file"]),
    ("train: {name: x}\nspace: {seed: {type: ind, low: 1, high: 3}}", ["space.seed", "ind"]),
    ("train: {name: x}\nspace: {seed: {type: int, low: 1, high: 3}}\nsearch: magic", ["search='magic'", "'optuna'"]),
]


@pytest.mark.parametrize(("content", "fragments"), NEEDS_NOTHING, ids=[str(n) for n in range(len(NEEDS_NOTHING))])
def test_a_wrong_search_is_refused_in_one_line(
    capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, fragments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tune.yaml").write_text(content)
    run(capsys, "tune", "--config", "tune.yaml").refused(*fragments, code=2)
    assert not (tmp_path / "tandem-store").exists()
