"""What a search writes down: its trials, the best configuration, the page."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import yaml
from tune_search import FOLDER, RATES, Search, space_of

from cluster import settings
from cluster.commands.train import TrainCommand
from ray_jobs.storage import ObjectStorage
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.tune import outcome, report
from ray_jobs.train.tune.halving import Halving


def many(folder: Path, trials: int = 14) -> Search:
    """A search whose best is at a rate of 1e-3 with a rank of 16, as a bowl."""
    space = space_of(
        {
            **RATES,
            "lora.rank": {"type": "logint", "low": 4, "high": 64},
            "optimisation.global_batch": {"type": "choice", "values": [16, 32, 64]},
            "optimisation.schedule": {"type": "choice", "values": ["linear", "cosine"]},
        }
    )
    search = Search(folder, limit=trials, halving=Halving(0.25, 3, "min"), search="optuna", space=space)
    chance = random.Random(0)
    for _ in range(trials):
        number, config = search.begin()
        rate = config.optimisation.learning_rate
        assert rate is not None
        assert config.lora is not None
        loss = 1 + abs(math.log10(rate) + 3) + 0.1 * abs(math.log2(config.lora.rank) - 4)
        if number == 5:
            search.campaign.failed(number, "the loss is nan at step 4, micro-batch 1 of worker 0")
            search.campaign.released(number)
            continue
        search.train(number, [loss + 3 / place + 0.01 * chance.random() for place in range(1, 9)])
    return search


def test_the_best_configuration_reads_back_through_the_command_that_trains_it(tmp_path: Path) -> None:
    search = many(tmp_path)
    summary = search.write()
    assert summary.best_config is not None
    assert summary.best is not None
    command = settings.read(TrainCommand, ["--config", summary.best_config], "train")
    assert "tandem train --config THIS_FILE publishes it." in Path(summary.best_config).read_text()
    read = TrainConfig.model_validate(command.model_dump(include=set(TrainConfig.model_fields)))
    assert read == search.space.config_at(search.trials[summary.best].begun.point)
    assert read == TrainConfig.model_validate(yaml.safe_load(Path(summary.best_config).read_text()))


def test_what_was_found_is_written_the_best_first_and_again_when_more_was_found(tmp_path: Path) -> None:
    search = Search(tmp_path)
    search.train(search.begin()[0], [2.0])
    search.begin()
    cut = search.write(complete=False)
    assert (cut.complete, cut.left_open) == (False, 1)
    assert "cut short, 1 trials under way; run the same command to go on" in cut.lines()
    search.train(1, [1.0])
    search.write()
    found = json.loads((tmp_path / FOLDER / "trials.json").read_text())
    assert [row["trial"] for row in found["trials"]] == [1, 0]
    assert found["best"] == 1
    assert found["complete"]


def test_in_an_object_store_too_the_file_of_the_best_is_that_of_the_last_trials(tmp_path: Path) -> None:
    search = Search(tmp_path / "trials")
    bucket = ObjectStorage("memory://", tmp_path / "cache")
    for loss in (2.0, 1.0):
        _, config = search.begin()
        search.train(len(search.trials) - 1, [loss])
        found = outcome.write(bucket, FOLDER, search.space, search.objective, search.trials, complete=True)
        assert found.best_config is not None
        assert TrainConfig.model_validate(yaml.safe_load(Path(found.best_config).read_text())) == config


def test_of_many_trials_the_page_says_what_made_the_difference(tmp_path: Path) -> None:
    summary = many(tmp_path, 20).write()
    assert next(iter(summary.importance)) == "optimisation.learning_rate"
    page = report.page(summary)
    assert "What made the difference" in page
    assert page.count("<title>trial ") == sum(row.value is not None for row in summary.trials)
    assert "the loss is nan at step 4" in page


def test_a_page_of_nothing_and_of_hostile_values_is_whole(tmp_path: Path) -> None:
    assert "No trial came to an end" in report.page(Search(tmp_path).write())
    space = space_of({"lora.targets": {"type": "choice", "values": [["<script>alert(1)</script>"], "all-linear"]}})
    search = Search(tmp_path / "x", search="grid", space=space)
    search.train(search.begin()[0], [1.0])
    page = report.page(search.write())
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
