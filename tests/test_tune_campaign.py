"""A search under way, without training: order, stopping, what is kept, going on."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tune_search import FOLDER, Search, run_of, space_of

from ray_jobs.errors import CorruptError, TandemError
from ray_jobs.storage import LocalStorage
from ray_jobs.train.tune.config import ObjectiveConfig
from ray_jobs.train.tune.halving import Halving
from ray_jobs.train.tune.objective import Objective


def test_only_the_best_run_keeps_its_files(tmp_path: Path) -> None:
    search = Search(tmp_path)
    configs = {}
    for loss in (3.0, 1.0, 2.0):
        number, config = search.begin()
        configs[number] = config
        search.train(number, [loss + 1, loss])
    assert search.runs() == {run_of(configs[1])}
    best = search.campaign.best
    assert best is not None
    assert best.number == 1


def test_a_run_that_was_finished_before_the_search_is_left_alone(tmp_path: Path) -> None:
    first = Search(tmp_path / "other").begin()[1]
    storage = LocalStorage(tmp_path / "store")
    storage.create(f"{run_of(first)}/finished.json", b"{}")
    search = Search(tmp_path / "store")
    search.train(search.begin()[0], [3.0])
    search.train(search.begin()[0], [1.0])
    assert storage.exists(f"{run_of(first)}/finished.json")


def test_a_trial_that_falls_behind_is_stopped_and_leaves_nothing(tmp_path: Path) -> None:
    search = Search(tmp_path, halving=Halving(0.25, 3, "min"))
    good, config = search.begin()
    assert search.train(good, [2.0, 1.0, 0.5, 0.4])
    bad, _ = search.begin()
    assert not search.train(bad, [3.0, 3.0, 3.0, 3.0])
    ended = search.trials[bad].ended
    assert ended is not None
    assert (ended.state, ended.step, ended.steps) == ("stopped", 10, 40)
    assert search.runs() == {run_of(config)}
    row = search.write().trials[1]
    assert (row.trial, row.state, row.value) == (bad, "stopped", 3.0)


def test_a_stopped_trial_that_speaks_once_more_is_told_again(tmp_path: Path) -> None:
    search = Search(tmp_path, halving=Halving(0.25, 3, "min"))
    search.train(search.begin()[0], [1.0, 1.0])
    number, _ = search.begin()
    assert not search.campaign.evaluated(number, 10, 20, {"eval_loss": 5.0})
    assert not search.campaign.evaluated(number, 20, 20, {"eval_loss": 0.1})


def test_a_trial_that_is_stopped_and_runs_to_its_end_is_learned_from_once(tmp_path: Path) -> None:
    def search(folder: Path) -> Search:
        return Search(folder, limit=20, halving=Halving(0.25, 3, "min"), search="optuna")

    going, cut = tmp_path / "going", tmp_path / "cut"
    first = search(going)
    first.train(first.begin()[0], [0.1, 0.1, 0.1, 0.1])
    for place in range(1, 15):
        number, _ = first.begin()
        assert not first.campaign.evaluated(number, 10, 40, {"eval_loss": float(place)})
        first.campaign.finished(number, 40, {"eval_loss": 0.0}, (), [{"step": 40, "eval_loss": 0.0}])
        first.campaign.released(number)
        ended = first.trials[number].ended
        assert ended is not None
        assert (ended.state, ended.step) == ("stopped", 10)
    shutil.copytree(going, cut)
    assert first.campaign.next() == search(cut).campaign.next()


def test_every_trial_ends_at_the_limit_of_steps_and_may_be_the_best(tmp_path: Path) -> None:
    search = Search(tmp_path, max_steps=20)
    number, _ = search.begin()
    assert not search.train(number, [2.0, 1.0, 0.5])
    ended = search.trials[number].ended
    assert ended is not None
    assert (ended.state, ended.step) == ("finished", 20)
    summary = search.write()
    assert summary.best == number
    assert summary.best_config is not None
    assert "trains it to its end and publishes it" in Path(summary.best_config).read_text()


def test_a_search_that_goes_on_repeats_nothing_and_begins_with_what_was_cut(tmp_path: Path) -> None:
    search = Search(tmp_path, limit=4)
    done, _ = search.begin()
    search.train(done, [1.0])
    cut, config = search.begin()
    again = Search(tmp_path, limit=4)
    found = again.campaign.next()
    assert found == (cut, config)
    again.train(cut, [2.0])
    numbers = []
    while (entry := again.campaign.next()) is not None:
        numbers.append(entry[0])
        again.train(entry[0], [3.0])
    assert numbers == [2, 3]
    assert Search(tmp_path, limit=4).campaign.next() is None
    assert Search(tmp_path, limit=5).campaign.left == 1


def test_a_trial_whose_folder_was_deleted_is_run_again_under_its_number(tmp_path: Path) -> None:
    search = Search(tmp_path, limit=3)
    for loss in (3.0, 1.0, 2.0):
        search.train(search.begin()[0], [loss])
    shutil.rmtree(tmp_path / FOLDER / "trials" / "0001")
    again = Search(tmp_path, limit=3)
    found = again.campaign.next()
    assert found is not None
    again.train(found[0], [0.5])
    assert found[0] == 1
    assert again.campaign.next() is None
    assert again.write().best == 1


def test_a_rung_is_met_at_the_very_share_that_it_stands_for() -> None:
    halving = Halving(0.1, 3, "min")
    assert halving.passed(0, 29 / 100, 1.0)
    assert halving.passed(1, 30 / 100, 0.5)
    assert not halving.passed(0, 30 / 100, 1.0)


@pytest.mark.parametrize("kind", ["grid", "random", "optuna"])
def test_trials_that_were_cut_and_run_again_are_not_begun_a_second_time_beside_themselves(
    tmp_path: Path, kind: str
) -> None:
    space = space_of({"lora.rank": {"type": "choice", "values": [4, 8, 16]}})
    cut = Search(tmp_path, search=kind, space=space)
    cut.begin()
    cut.begin()
    again = Search(tmp_path, search=kind, space=space)
    ranks = []
    while (found := again.campaign.next()) is not None:
        assert found[1].lora is not None
        ranks.append(found[1].lora.rank)
    assert sorted(ranks) == [4, 8, 16]


@hypothesis_settings(max_examples=30)
@given(
    losses=st.lists(st.lists(st.integers(0, 100).map(float), min_size=4, max_size=4), min_size=2, max_size=7),
    cuts=st.dictionaries(st.integers(0, 6), st.integers(0, 3)),  # trial -> evaluations that a checkpoint holds
)
def test_cut_anywhere_the_outcome_is_that_of_an_uninterrupted_search(
    losses: list[list[float]], cuts: dict[int, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    def search(folder: Path) -> Search:
        return Search(folder, limit=len(losses), halving=Halving(0.25, 2, "min"))

    whole = search(tmp_path_factory.mktemp("whole"))
    for series in losses:
        whole.train(whole.begin()[0], series)
    folder = tmp_path_factory.mktemp("cut")
    broken = search(folder)
    for place, series in enumerate(losses):
        number, config = broken.begin()
        done = min(cuts.get(place, 0), len(series) - 1)
        steps = 10 * len(series)
        heard = [(10 * n, {"eval_loss": loss}) for n, loss in enumerate(series[:done], 1)]
        if not all(broken.campaign.evaluated(number, step, steps, metrics) for step, metrics in heard):
            broken.campaign.released(number)
            continue
        if place in cuts:
            if done:
                broken.checkpoint(run_of(config), series[:done], steps)
            broken = search(folder)
            found = broken.campaign.next()
            assert found is not None
            number = found[0]
        broken.train(number, series, done=done)
    left = {"seconds", "evaluations"}
    assert [row.model_dump(exclude=left) for row in broken.write().trials] == [
        row.model_dump(exclude=left) for row in whole.write().trials
    ]
    assert broken.runs() == whole.runs()


def test_a_trial_that_fails_does_not_end_the_search_unless_all_fail(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.train(search.begin()[0], [1.0])
    for _ in range(4):
        number, _ = search.begin()
        search.campaign.failed(number, "the loss is nan at step 3")
        search.campaign.released(number)
    assert search.campaign.fault is None
    assert search.write().lines()[-3].endswith("failed: the loss is nan at step 3")
    none = Search(tmp_path / "none")
    for _ in range(3):
        number, _ = none.begin()
        none.campaign.failed(number, "rows: too short")
        none.campaign.released(number)
    assert isinstance(none.campaign.fault, TandemError)
    assert "all of the first 3 trials failed, the last one with: rows: too short" in str(none.campaign.fault)
    assert none.campaign.next() is None


def test_an_evaluation_without_the_row_of_the_objective_fails_the_trial(tmp_path: Path) -> None:
    objective = Objective(ObjectiveConfig(retained="wiki", weight=1), "eval_loss", "min")
    search = Search(tmp_path, objective=objective)
    number, _ = search.begin()
    search.train(number, [1.0], rows=({"set": "test", "role": "target", "metric": "f1", "before": 0, "after": 1},))
    ended = search.trials[number].ended
    assert ended is not None
    assert ended.state == "failed"
    assert "objective.retained=wiki" in ended.reason


def test_the_best_forgets_no_more_than_allowed(tmp_path: Path) -> None:
    objective = Objective(ObjectiveConfig(retained="old", max_loss=0.02), "eval_loss", "min")
    search = Search(tmp_path, objective=objective)
    for gain, lost in ((0.3, 0.2), (0.1, 0.01), (0.05, 0.0)):
        rows = (
            {"set": "test", "role": "target", "metric": "f1", "before": 0.5, "after": 0.5 + gain},
            {"set": "old", "role": "retained", "metric": "f1", "before": 0.9, "after": 0.9 - lost},
        )
        search.train(search.begin()[0], [1.0], rows)
    summary = search.write()
    assert [row.trial for row in summary.trials] == [1, 2, 0]
    assert summary.best == 1
    assert summary.cells()[2][1] == "finished, forgot too much"
    assert summary.head()[:5] == ["trial", "state", "value", "gain", "forgotten"]


def test_of_trials_that_were_stopped_optuna_prefers_those_of_lower_loss_where_the_highest_gain_wins(
    tmp_path: Path,
) -> None:
    objective = Objective(ObjectiveConfig(target="f1"), "eval_loss", "min")
    halving = Halving(0.25, 100, "min")
    search = Search(tmp_path, limit=40, objective=objective, halving=halving, search="optuna")
    gained = ({"set": "validation", "role": "target", "metric": "f1", "before": 0.0, "after": 1.0},)
    search.train(search.begin()[0], [0.0, 0.0, 0.0, 0.0], gained)
    rates = []
    while (found := search.campaign.next()) is not None:
        number, config = found
        assert config.optimisation.learning_rate is not None
        rates.append(math.log10(config.optimisation.learning_rate))
        # The rate of 1e-5 is the best, and none comes so far as to be evaluated.
        assert not search.train(number, [6 + rates[-1]] * 4)
    assert sum(rate < -4 for rate in rates[15:]) > len(rates[15:]) / 2


def test_a_record_that_is_none_is_named(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.train(search.begin()[0], [1.0])
    file = tmp_path / FOLDER / "trials" / "0000" / "ended.json"
    file.unlink()
    file.write_text("{")
    with pytest.raises(CorruptError, match=r"trials/0000/ended\.json: not the record of a trial"):
        Search(tmp_path)
