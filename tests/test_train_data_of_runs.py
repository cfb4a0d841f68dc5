"""The data of a run: prepared data by folder or name, or a file that is prepared first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import train_bases
from train_runs import settings

from ray_jobs.errors import CorruptError, NotFoundError, UsageError
from ray_jobs.progress import SilentProgress
from ray_jobs.storage import open_storage, sha256_of
from ray_jobs.train import batches, job
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.data_file import is_file, name_of, prepare_file
from ray_jobs.train.job import make_plan
from ray_jobs.train.methods import Place
from ray_jobs.train.training_data import Data, find_data, splits_of
from ray_jobs.train.worker import task_of


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """Prepared conversations, in a folder."""
    return train_bases.conversations(tmp_path / "talk", train=8, validation=4)


def test_data_are_found_by_their_name_in_the_store_once_they_are_complete(tmp_path: Path, talk: Path) -> None:
    storage = open_storage(str(tmp_path / "store"))
    with pytest.raises(NotFoundError, match=r"data=talk: neither a folder nor a data set"):
        find_data("talk", storage)
    storage.upload("datasets/talk/abc/train.parquet", talk / "train.parquet")
    with pytest.raises(NotFoundError):
        find_data("talk", storage)
    train_bases.stored(talk, storage, "messages", "talk", "def")
    assert find_data("talk", storage) == Data(
        "datasets/talk/def/train.parquet",
        "datasets/talk/def/validation.parquet",
        "def",
        sha256_of(talk / "train.parquet"),
        sha256_of(talk / "validation.parquet"),
    )


def test_an_older_state_of_the_data_is_found_by_its_hash(tmp_path: Path, talk: Path) -> None:
    storage = open_storage(str(tmp_path / "store"))
    for state in ("abc", "def"):
        train_bases.stored(talk, storage, "messages", "talk", state)
    assert [find_data(f"talk@{state}", storage).hash for state in ("ab", "def")] == ["abc", "def"]
    with pytest.raises(NotFoundError, match=r"data=talk@x"):
        find_data("talk@x", storage)


def damage(file: Path) -> None:
    """Change one byte, in a file of its own: what lies in the store may be linked from elsewhere."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    file.write_bytes(content)


def run_of(tmp_path: Path, data: str) -> TrainConfig:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    return settings("sft", tmp_path / "base", Path(data), tmp_path / "store", "run")


def test_a_stored_split_that_has_changed_is_not_learned_from(tmp_path: Path, talk: Path) -> None:
    config, storage = run_of(tmp_path, "talk"), open_storage(str(tmp_path / "store"))
    train_bases.stored(talk, storage, "messages", "talk")
    plan = make_plan(config, storage)
    assert splits_of(storage, plan).train == tmp_path / "store" / "datasets" / "talk" / "abc" / "train.parquet"
    for split in ("train", "validation"):
        file = tmp_path / "store" / "datasets" / "talk" / "abc" / f"{split}.parquet"
        before = file.read_bytes()
        damage(file)
        message = rf"datasets/talk/abc/{split}\.parquet: content differs from its sha256 .*; restore it from a backup$"
        with pytest.raises(CorruptError, match=message):
            job.run(config)
        with pytest.raises(CorruptError, match=message):
            splits_of(storage, plan)
        file.write_bytes(before)
    splits_of(storage, plan)


def test_a_machine_whose_folder_has_other_rows_does_not_learn_from_them(tmp_path: Path, talk: Path) -> None:
    config, storage = run_of(tmp_path, str(talk)), open_storage(str(tmp_path / "store"))
    plan = make_plan(config, storage)
    damage(talk / "train.parquet")
    with pytest.raises(CorruptError, match=r"train\.parquet: content differs from what the driver read .*; bring all"):
        splits_of(storage, plan)
    # To the driver that is another run.
    assert make_plan(config, storage).run != plan.run


def test_of_a_machine_the_first_worker_fetches_the_rows_and_the_others_find_them(tmp_path: Path, talk: Path) -> None:
    config, storage = run_of(tmp_path, "talk"), open_storage(str(tmp_path / "store"))
    train_bases.stored(talk, storage, "messages", "talk")
    plan = make_plan(config, storage)
    asked: list[Callable[[], object]] = []
    place = Place("cpu", "float32", 1, 2, asked.append)
    task = task_of(plan, storage, tmp_path / "out", batches.plan(8, 2, 2), place)
    (fetch,) = asked
    assert fetch() == task.splits


def test_a_folder_that_lacks_a_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(UsageError, match=r"the folder has no train\.parquet"):
        find_data(str(tmp_path / "data"), open_storage(str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("rows.jsonl", True), ("a/rows.parquet", True), ("s3://b/rows.jsonl.gz", True), ("talk", False), ("a/b", False)],
)
def test_a_file_of_rows_is_known_by_its_suffix(name: str, expected: bool) -> None:
    assert is_file(name) is expected


@pytest.mark.parametrize(
    ("file", "name"),
    [("/a/My talk (1).jsonl", "My-talk-1"), ("s3://b/rows.jsonl.gz?x=1", "rows"), ("/a/日本.parquet", "data")],
)
def test_data_prepared_from_a_file_have_its_name(file: str, name: str) -> None:
    assert name_of(file) == name


@pytest.mark.slow
def test_a_file_is_prepared_once(ray_session: None, tmp_path: Path) -> None:
    file = train_bases.as_json_lines(train_bases.conversations(tmp_path / "made", train=300), tmp_path / "talk.jsonl")
    storage = open_storage(str(tmp_path / "store"))
    reference = prepare_file(str(file), storage, SilentProgress())
    assert reference.startswith("talk@")
    assert prepare_file(str(file), storage, SilentProgress()) == reference
    card = json.loads(storage.read(f"datasets/{reference.replace('@', '/')}/card.json"))
    assert card["hash"] == find_data(reference, storage).hash


@pytest.mark.slow
def test_a_file_that_is_too_small_to_divide_says_how_to_prepare_it(ray_session: None, tmp_path: Path) -> None:
    file = train_bases.as_json_lines(train_bases.conversations(tmp_path / "made", train=2), tmp_path / "talk.jsonl")
    with pytest.raises(UsageError, match=r"data=.*talk.jsonl: split\..*no row falls into it.*tandem prepare .*talk"):
        prepare_file(str(file), open_storage(str(tmp_path / "store")), SilentProgress())
