"""The preparation job: to the byte the same, grouped, without leaks, nothing lost silently; on Ray where it matters."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import train_bases
from prepare_runs import card_of, question, row_of, rows_of, run, write

from ray_jobs.errors import NotFoundError, RejectedError, UsageError
from ray_jobs.progress import SilentProgress
from ray_jobs.storage import LocalStorage, open_storage
from ray_jobs.train import prepare
from ray_jobs.train.data import stage_task
from ray_jobs.train.data.config import PrepareConfig
from ray_jobs.train.data.counting import WordCounter
from ray_jobs.train.data.kind import schema_of
from ray_jobs.train.data.kinds import KINDS
from ray_jobs.train.data.prepared import open_prepared
from ray_jobs.train.data_file import prepare_file
from ray_jobs.train.training_data import find_data

pytest_plugins = ["in_process"]
on_ray = pytest.mark.usefixtures("ray_session")
here = pytest.mark.usefixtures("in_process")


@on_ray
def test_the_result_is_the_same_to_the_byte_however_it_is_divided(tmp_path: Path) -> None:
    numbers = range(300)
    rows = [*map(question, numbers), "not JSON", *map(question, numbers[::9])]
    source = write(tmp_path / "a.jsonl", rows)
    one = run(tmp_path, source, max_rejected=0.1, store=str(tmp_path / "one"))
    many = run(tmp_path, source, max_rejected=0.1, store=str(tmp_path / "many"), block_bytes=8192)
    assert card_of(one).json_text() == many.card.json_text()
    for name in ("train.parquet", "validation.parquet", "test.parquet", "rejected.jsonl", "card.md", "card.json"):
        key = f"{one.folder}/{name}"
        assert one.storage.read(key) == many.storage.read(key)
    assert one.card.duplicates.exact == 34


@here
def test_no_group_is_in_two_splits_and_every_row_is_accounted_for(tmp_path: Path) -> None:
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", [question(number) for number in range(300)]))
    card_of(prepared)
    sources = [{row["source"] for row in rows} for rows in rows_of(prepared).values()]
    assert all(sources)
    assert len(set.union(*sources)) == sum(map(len, sources)) == 60


@here
def test_rows_that_are_added_move_none_that_were_there(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [question(number) for number in range(200)])
    before = {row["id"]: name for name, rows in rows_of(run(tmp_path, source)).items() for row in rows}
    write(source, [question(number) for number in range(300)])
    after = {row["id"]: name for name, rows in rows_of(run(tmp_path, source)).items() for row in rows}
    assert before.items() <= after.items()
    assert len(after) == 300


@on_ray
def test_a_wrong_row_is_reported_with_number_file_and_reason(tmp_path: Path) -> None:
    rows: list[object] = [question(number) for number in range(100)]
    rows[40:40] = ["", "{broken", {"prompt": "x", "completion": " "}]
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", rows), max_rejected=0.1, block_bytes=4096)
    lines = prepared.storage.read(f"{prepared.folder}/rejected.jsonl").decode().splitlines()
    found = [(wrong["row"], wrong["input"], wrong["reason"]) for wrong in map(json.loads, lines)]
    assert found == [(42, "a.jsonl", "bad-json"), (43, "a.jsonl", "empty-completion")]
    assert prepared.card.reasons == {"bad-json": 1, "empty-completion": 1}
    kept = {row["row"] for rows in rows_of(prepared).values() for row in rows}
    assert kept == {*range(1, 41), *range(44, 104)}


@here
@pytest.mark.parametrize("kind", ["messages", "preference", "label", "retrieval", "qa"])
def test_every_kind_is_prepared_to_its_canonical_columns(tmp_path: Path, kind: str) -> None:
    rows = [row_of(kind, number) for number in range(60)]
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", rows))
    assert card_of(prepared).kind == kind
    found = {row["row"]: row for rows in rows_of(prepared).values() for row in rows}
    assert sorted(found) == list(range(1, 61))
    assert found[8].items() >= row_of(kind, 7).items()
    assert pq.read_schema(prepared.split("test")).equals(schema_of(KINDS[kind]))


@on_ray
def test_too_many_wrong_rows_are_an_error_that_shows_the_first_five(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [question(0), *["{"] * 7])
    with pytest.raises(RejectedError, match=r"7 of 8 rows are wrong .*row 2 of .*row 6 of") as found:
        run(tmp_path, source)
    assert "row 7 of" not in str(found.value)
    assert "\n" not in str(found.value)
    assert not (tmp_path / "store" / "datasets").exists()


@here
def test_a_first_row_without_a_label_is_a_wrong_row_among_labelled_ones(tmp_path: Path) -> None:
    rows = [{**question(n), "label": None if n == 0 else n % 2 == 0} for n in range(60)]
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", rows), max_rejected=1.0)
    assert (prepared.card.kind, prepared.card.rejected) == ("label", 1)


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        ("completion", {}, "656821d537260a21282af7af1fc25b9f"),
        ("label", {"near_duplicates": False}, "da285cc86b6f4ea6db76865ee483b3f3"),
        ("retrieval", {"keep_leaks": True}, "44ee67e22d56177f957c7de88ac02f96"),
        ("preference", {}, "ca9fb8529d311b41b4147471dd4ce1c8"),
        ("messages", {}, "7156f1771e729374a861f57aa92ec3be"),
    ],
)
def test_what_is_prepared_as_before_keeps_its_hash(kind: str, more: dict[str, object], expected: str) -> None:
    config = PrepareConfig.model_validate({"inputs": ["a"], "name": "n", **more})
    files = {"": [("a.jsonl", "0" * 64)]}
    found = config.content_hash(kind, files, None)
    assert found == expected
    assert (config.content_hash(kind, files, None, lists=True) == found) == (kind not in ("retrieval", "preference"))


@on_ray
def test_the_same_again_prepares_nothing_and_a_touched_file_neither(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [question(number) for number in range(100)])
    config = PrepareConfig(inputs=(str(source),), name="toy", store=str(tmp_path / "store"), source_column="row")
    assert prepare.run(config).outcome == "prepared"
    source.touch()
    assert prepare.run(config).outcome == "unchanged"
    assert not list((tmp_path / "store").glob("runs/*/making/*"))


@here
def test_the_set_that_was_last_asked_for_is_what_its_name_means(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [question(number) for number in range(100)])
    storage = LocalStorage(tmp_path / "store")
    first, second = (
        PrepareConfig(inputs=(str(source),), name="toy", store=storage.uri, near_duplicates=near)
        for near in (True, False)
    )
    made = [prepare.run(config).prepared.card.hash for config in (first, second)]
    assert made[0] != made[1]
    for config, expected in ((None, made[1]), (first, made[0]), (first, made[0]), (second, made[1])):
        if config is not None:
            assert prepare.run(config).outcome == "unchanged"
        assert open_prepared(storage, "toy").card.hash == find_data("toy", storage).hash == expected
    assert len(list((tmp_path / "store").glob("datasets/toy/*/asked/*"))) == 2


@here
def test_what_a_killed_run_left_is_no_data_set_and_is_replaced(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [question(number) for number in range(100)])
    prepared = run(tmp_path, source)
    folder = tmp_path / "store" / prepared.folder
    (folder / "card.json").unlink()
    (folder / "train.parquet").write_bytes(b"half")
    storage = LocalStorage(tmp_path / "store")
    with pytest.raises(NotFoundError, match="data=toy"):
        open_prepared(storage, "toy")
    run(tmp_path, source)
    assert rows_of(open_prepared(storage, "toy"))["train"]


@here
@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([question(0)], {}, "no row falls into it"),
        ([], {}, "no kind of training rows"),
        ([{"colour": "red"}], {}, "colour"),
        ([question(0)], {"split": {"train": 0.9, "validation": 0.1, "test": 0, "by": "query"}}, "split.by=query"),
    ],
)
def test_what_cannot_be_prepared_is_a_usage_error(
    tmp_path: Path, rows: list[object], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(tmp_path, write(tmp_path / "a.jsonl", rows), **settings)


@here
def test_columns_of_an_evaluation_set_are_to_be_renamed_in_its_file(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [question(0)])
    held = write(tmp_path / "held.jsonl", [{"ask": "Why?"}])
    with pytest.raises(UsageError, match=r"evaluation_sets\.held: .* columns ask; .*rename the columns in its file"):
        run(tmp_path, source, evaluation_sets={"held": str(held)})


@here
def test_a_tokenizer_that_is_a_folder_is_found_from_every_other_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counts").mkdir()
    (tmp_path / "counts" / "config.json").write_text("{}")
    named: list[str | None] = []
    monkeypatch.setattr(stage_task, "counter", lambda name, _: named.append(name) or WordCounter())
    monkeypatch.chdir(tmp_path)
    card = card_of(run(tmp_path, write(tmp_path / "a.jsonl", [*map(question, range(100))]), tokenizer="counts"))
    assert [card.tokenizer, card.config["tokenizer"], *named] == 3 * [str(tmp_path / "counts")]


@here
def test_a_file_is_counted_in_tokens_of_the_base_and_prepared_once_for_all_of_them(tmp_path: Path) -> None:
    rows = [{name: question(number)[name] for name in ("prompt", "completion")} for number in range(300)]
    source = str(write(tmp_path / "a.jsonl", rows))
    base = str(train_bases.language_model(tmp_path / "base"))
    first, second = (open_storage(str(tmp_path / name)) for name in ("first", "second"))
    references = {prepare_file(source, first, SilentProgress(), name) for name in (base, None, "nowhere")}
    references |= {prepare_file(source, second, SilentProgress(), name) for name in ("nowhere", base)}
    (reference,) = references
    counted, words = (card_of(open_prepared(storage, reference)) for storage in (first, second))
    assert (counted.unit, counted.tokenizer, words.unit, words.tokenizer) == ("tokens", base, "words", None)
    assert counted.config == words.config
    for name, split in counted.splits.items():
        assert split.sha256 == words.splits[name].sha256
        assert split.lengths["whole"].total > words.splits[name].lengths["whole"].total


@here
def test_answers_to_conversations_are_prepared_beside_answers_to_texts(tmp_path: Path) -> None:
    rows = [row_of("preference", number) for number in range(60)]
    for row in rows[::2]:
        asked = [{"role": "user", "content": row["prompt"]}]
        row |= {name: [*asked, {"role": "assistant", "content": row[name]}] for name in ("chosen", "rejected")}
        del row["prompt"]
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", rows))
    found = {row["row"]: row for rows in rows_of(prepared).values() for row in rows}
    assert len(found) == 60
    for number, row in found.items():
        asked = row_of("preference", int(str(number)) - 1)["prompt"]
        assert row["prompt"] == asked
        assert row["prompt_messages"] == ([{"role": "user", "content": asked}] if int(str(number)) % 2 else None)
    assert card_of(prepared).splits["train"].lengths["whole"].shortest > 0


@here
def test_training_rows_of_one_label_are_refused(tmp_path: Path) -> None:
    rows = [{**question(number), "label": True} for number in range(100)]
    with pytest.raises(RejectedError, match="have label true"):
        run(tmp_path, write(tmp_path / "a.jsonl", rows))
