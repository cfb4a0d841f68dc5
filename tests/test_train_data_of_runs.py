"""The data of a run: prepared data by folder or name, or a file that is prepared first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import train_bases

from ray_jobs.errors import NotFoundError, UsageError
from ray_jobs.progress import SilentProgress
from ray_jobs.storage import open_storage
from ray_jobs.train.training_data import find_data, is_file, name_of, prepare_file


def test_data_are_found_by_their_name_in_the_store_once_they_are_complete(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "store"))
    with pytest.raises(NotFoundError, match=r"data=talk: neither a folder nor a data set"):
        find_data("talk", storage)
    train_bases.conversations(tmp_path / "store" / "datasets" / "talk" / "abc", train=8)
    with pytest.raises(NotFoundError):
        find_data("talk", storage)
    storage.create("datasets/talk/abc/card.json", b"{}")
    found = find_data("talk", storage)
    assert (found.train, found.validation, found.hash) == (
        "datasets/talk/abc/train.parquet",
        "datasets/talk/abc/validation.parquet",
        "abc",
    )


def test_an_older_state_of_the_data_is_found_by_its_hash(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    for state in ("abc", "def"):
        storage.create(f"datasets/talk/{state}/card.json", b"{}")
    assert [find_data(f"talk@{state}", storage).hash for state in ("ab", "def")] == ["abc", "def"]
    with pytest.raises(NotFoundError, match=r"data=talk@x"):
        find_data("talk@x", storage)


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
