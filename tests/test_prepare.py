"""The preparation job: to the byte the same, grouped, without leaks, nothing lost silently; on Ray where it matters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import train_bases

from ray_jobs.errors import NotFoundError, RejectedError, UsageError
from ray_jobs.progress import SilentProgress
from ray_jobs.storage import LocalStorage, open_storage
from ray_jobs.train import prepare
from ray_jobs.train.data import stage_task
from ray_jobs.train.data.card import DataCard
from ray_jobs.train.data.config import PrepareConfig, SplitConfig
from ray_jobs.train.data.counting import WordCounter
from ray_jobs.train.data.kind import schema_of
from ray_jobs.train.data.kinds import KINDS
from ray_jobs.train.data.prepared import Prepared, open_prepared
from ray_jobs.train.data.splitting import SPLITS, split_of
from ray_jobs.train.training_data import find_data, prepare_file

pytest_plugins = ["in_process"]
on_ray = pytest.mark.usefixtures("ray_session")
here = pytest.mark.usefixtures("in_process")

SUBJECTS = ("snapshot", "shard", "reranker", "tokenizer", "checkpoint", "gateway", "partition", "adapter", "manifest")


def question(number: int) -> dict[str, object]:
    """A row whose prompt is near that of no other number."""
    subject = SUBJECTS[number % len(SUBJECTS)]
    worker = hashlib.sha256(str(number).encode()).hexdigest()
    return {
        "prompt": f"What becomes of {subject} {number} when worker {worker} is lost?",
        "completion": f"It is made again by worker {number * 17}, from what {subject} {number} left behind.",
        "doc_id": f"d{number % 60}",
    }


def row_of(kind: str, number: int) -> dict[str, object]:
    """A row with the canonical columns of a kind, near that of no other number."""
    asked, answer = str(question(number)["prompt"]), str(question(number)["completion"])
    rows: dict[str, dict[str, object]] = {
        "messages": {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]},
        "preference": {"prompt": asked, "chosen": answer, "rejected": "Nothing."},
        "label": {"prompt": asked, "completion": answer, "label": number % 2 == 0},
        "retrieval": {
            "query": asked,
            "positive": answer,
            "negatives": ["Nothing."] * (number % 3),
            "positive_id": f"p{number}" if number % 2 else None,
            "negative_ids": ["n"] * (number % 3),
        },
        "qa": {
            "question": asked,
            "passage": asked + answer,
            "answers": [answer] * (number % 2),
            "starts": [len(asked)] * (number % 2),
        },
    }
    return rows[kind]


def write(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def run(tmp_path: Path, *inputs: Path, **settings: object) -> Prepared:
    defaults = {
        "inputs": [str(path) for path in inputs],
        "name": "toy",
        "store": str(tmp_path / "store"),
        "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
    }
    return prepare.run(PrepareConfig.model_validate({**defaults, **settings})).prepared


def rows_of(prepared: Prepared) -> dict[str, list[dict[str, object]]]:
    return {name: pq.read_table(prepared.split(name)).to_pylist() for name in prepared.card.splits}


def card_of(prepared: Prepared) -> DataCard:
    assert prepared.card.check() == []
    return prepared.card


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
def test_equal_answers_of_different_questions_are_no_duplicates(tmp_path: Path) -> None:
    answer = "As the manual says, everything is made again from what was left behind, and nobody notices. " * 4
    rows = [{**question(number), "completion": answer} for number in range(120)]
    assert card_of(run(tmp_path, write(tmp_path / "a.jsonl", rows))).duplicates.near == 0


@here
def test_near_duplicates_go_and_the_first_one_stays(tmp_path: Path) -> None:
    rows = [question(number) for number in range(120)]
    long = "Explain at length, with an example from practice, why a reader never sees half of a snapshot of the index"
    near = [{"prompt": f"{long}{end}", "completion": f"Because of the manifest{end}"} for end in ("", "!", ".")]
    source = write(tmp_path / "a.jsonl", [*rows, *({**row, "doc_id": "near"} for row in near)])
    card = card_of(run(tmp_path, source))
    assert (card.duplicates.exact, card.duplicates.near) == (0, 2)
    assert run(tmp_path, source, near_duplicates=False).card.duplicates.near is None


@here
def test_near_duplicates_that_say_something_else_are_counted(tmp_path: Path) -> None:
    rows = [question(number) for number in range(120)]
    long = "Explain at length, with an example from practice, why a reader never sees half of a snapshot of the index"
    near = [
        {"prompt": long, "completion": "Because of the manifest, which is created once"},
        {"prompt": f"{long}?", "completion": "Because of the manifest, which is created once"},
        {"prompt": long, "completion": "Because of the manifest, which is created once."},
    ]
    source = write(tmp_path / "a.jsonl", [*rows, *({**row, "doc_id": "near"} for row in near)])
    prepared = run(tmp_path, source)
    found = card_of(prepared).duplicates
    assert (found.near, found.near_asked, found.near_target) == (2, 1, 1)
    assert "2 near (1 asked in other words, 1 with another target)" in "\n".join(prepared.card.lines())


@here
def test_a_praised_and_a_blamed_answer_are_two_however_near_they_are(tmp_path: Path) -> None:
    rows = [{**question(number), "label": number % 2 == 0} for number in range(120)]
    long = "It is made again by another worker, from what was left behind, and nobody who asks will notice any of it"
    near = [
        {**question(500), "doc_id": "near", "completion": completion, "label": label}
        for completion, label in ((long, True), (f"{long}.", False), (f"{long}!", True), (f"{long}?", False))
    ]
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", [*rows, *near]))
    assert card_of(prepared).duplicates.near == 2
    kept = [(row["completion"], row["label"]) for rows in rows_of(prepared).values() for row in rows]
    assert [found for found in kept if str(found[0]).startswith(long)] == [(long, True), (f"{long}.", False)]


@here
def test_a_row_that_is_removed_makes_no_other_row_a_leak(tmp_path: Path) -> None:
    words = [hashlib.sha256(f"word {number}".encode()).hexdigest()[:8] for number in range(60)]
    split = SplitConfig(train=0.6, validation=0.2, test=0.2)
    group = {name: next(f"g{n}" for n in range(99) if SPLITS[split_of(f"g{n}", split)] == name) for name in SPLITS}
    asked, again, once_more = words[:40], words[:35] + words[40:45], words[45:50] + words[5:35] + words[40:45]
    leaking = [
        {"prompt": " ".join(again), "completion": "It is asked again.", "doc_id": group["validation"]},
        {"prompt": " ".join(once_more), "completion": "And once more, in other words.", "doc_id": group["train"]},
    ]
    source = write(tmp_path / "a.jsonl", [*map(question, range(120)), *leaking])
    held = write(tmp_path / "held.jsonl", [{"question": " ".join(asked)}])
    alone = run(tmp_path, source, near_threshold=0.7)
    assert [(leak.split, leak.place) for leak in card_of(alone).leaks] == [("train", "validation")]
    prepared = run(tmp_path, source, near_threshold=0.7, evaluation_sets={"held": str(held)})
    assert [(leak.split, leak.place) for leak in card_of(prepared).leaks] == [("validation", "held")]
    assert leaking[1]["prompt"] in {row["prompt"] for row in rows_of(prepared)["train"]}


@here
def test_what_an_evaluation_set_asks_is_removed_unless_leaks_are_kept(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [question(number) for number in range(200)])
    asked = write(tmp_path / "held.jsonl", [{"question": str(question(n)["prompt"]).upper()} for n in (3, 50)])
    sets = {"evaluation_sets": {"held": str(asked)}}
    prepared = run(tmp_path, source, **sets)
    assert card_of(prepared).leaked == 2
    assert sum(leak.same for leak in prepared.card.leaks) == 2
    prompts = {row["prompt"] for rows in rows_of(prepared).values() for row in rows}
    assert not prompts & {question(3)["prompt"], question(50)["prompt"]}
    kept = run(tmp_path, source, keep_leaks=True, **sets)
    assert (kept.card.leaked, sum(leak.same for leak in kept.card.leaks)) == (0, 2)


@here
def test_one_question_asked_in_two_splits_is_removed_from_training(tmp_path: Path) -> None:
    rows = [{**question(n), "completion": f"{side} {n}", "doc_id": f"{side}{n}"} for n in range(80) for side in "ab"]
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", rows))
    assert card_of(prepared).leaked > 0
    prompts = [{row["prompt"] for row in rows} for rows in rows_of(prepared).values()]
    assert not prompts[0] & (prompts[1] | prompts[2])


@here
def test_the_positives_of_one_row_are_in_one_split_and_none_is_a_leak(tmp_path: Path) -> None:
    words = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(400)]
    rows = [{"query": str(question(n)["prompt"]), "positive": words[4 * n : 4 * n + 4]} for n in range(100)]
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", rows))
    assert card_of(prepared).leaks == ()
    asked = [row["query"] for found in rows_of(prepared).values() for row in {r["row"]: r for r in found}.values()]
    assert len(asked) == len(set(asked)) == 100
    assert sum(split.rows for split in prepared.card.splits.values()) == 400


@here
def test_splits_share_no_document_of_lists_of_positives_unless_they_are_of_queries(tmp_path: Path) -> None:
    texts = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(150)]
    rows = [{"query": str(question(n)["prompt"]), "positive": texts[n : n + 2]} for n in range(100)]
    source = write(tmp_path / "a.jsonl", rows)
    prepared = run(tmp_path, source)
    documents = [{str(row["positive"]) for row in found} for found in rows_of(prepared).values()]
    assert sum(map(len, documents)) == len(set.union(*documents))
    card = card_of(prepared)
    assert card.strayed == 200 - sum(split.rows for split in card.splits.values()) > 0
    assert any("their document is in another split too" in warning for warning in card.warnings)
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
    by_query = run(tmp_path, source, name="by-query", split={**shares, "by": "query"})
    assert (by_query.card.strayed, sum(split.rows for split in by_query.card.splits.values())) == (0, 200)


@here
def test_positives_that_share_many_negatives_are_no_near_duplicates(tmp_path: Path) -> None:
    words = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(2_000)]
    rows = [
        {"query": str(question(n)["prompt"]), "positive": own[:4], "negatives": own[4:]}
        for n in range(100)
        for own in [words[20 * n : 20 * n + 20]]
    ]
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", rows))
    assert sum(split.rows for split in prepared.card.splits.values()) == 400


@here
def test_a_positive_with_another_full_stop_is_a_near_duplicate_whatever_its_negatives(tmp_path: Path) -> None:
    asked, passage = str(question(0)["prompt"]), " ".join(str(question(n)["prompt"]) for n in range(8))
    other = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(9)]
    rows = [{"query": asked, "positive": passage + end, "negatives": other} for end in (".", "!")]
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", [*rows, *retrieval_rows(60)]))
    assert sum(split.rows for split in prepared.card.splits.values()) == 61


def retrieval_rows(count: int) -> list[dict[str, object]]:
    return [
        {"query": question(n)["prompt"], "positive": hashlib.sha256(f"p{n}".encode()).hexdigest()}
        for n in range(1, count + 1)
    ]


@here
def test_answers_that_change_places_contradict_and_are_no_duplicates(tmp_path: Path) -> None:
    texts = [" ".join(hashlib.sha256(f"{n} {part}".encode()).hexdigest() for part in range(3)) for n in range(120)]
    rows = []
    for n in range(60):
        asked, one, other = question(n)["prompt"], texts[2 * n], texts[2 * n + 1]
        rows += [
            {"prompt": asked, "chosen": one, "rejected": other},
            {"prompt": asked, "chosen": other, "rejected": one},
        ]
        rows.append({"prompt": asked, "chosen": f"{one}.", "rejected": f"{other}."})
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", rows))
    assert sum(split.rows for split in prepared.card.splits.values()) == 120


@here
def test_a_first_row_without_a_label_is_a_wrong_row_among_labelled_ones(tmp_path: Path) -> None:
    rows = [{**question(n), "label": None if n == 0 else n % 2 == 0} for n in range(60)]
    prepared = run(tmp_path, write(tmp_path / "a.jsonl", rows), max_rejected=1.0)
    assert (prepared.card.kind, prepared.card.rejected) == ("label", 1)


def one_question(place: str, number: int) -> dict[str, object]:
    """A row that asks what others ask, of a group of a split."""
    split = SplitConfig(train=0.6, validation=0.2, test=0.2)
    groups = [f"g{n}" for n in range(999) if SPLITS[split_of(f"g{n}", split)] == place]
    return {**question(0), "completion": hashlib.sha256(groups[number].encode()).hexdigest(), "doc_id": groups[number]}


@here
def test_many_removed_leaks_are_warned_of(tmp_path: Path) -> None:
    asked_again = [one_question("test", 0), *(one_question("train", n) for n in range(10))]
    few = run(tmp_path, write(tmp_path / "a.jsonl", [*map(question, range(1, 300)), *asked_again]))
    assert (card_of(few).leaked, few.card.warnings) == (10, ())
    many = run(tmp_path, write(tmp_path / "a.jsonl", [*map(question, range(1, 190)), *asked_again]))
    (warning,) = [line for line in many.card.warnings if "leaks" in line]
    assert "10 of 200 rows (5.0%) were removed as leaks, asked again in test; keep rows that ask the same" in warning


@here
def test_a_split_of_which_all_rows_were_removed_says_why(tmp_path: Path) -> None:
    leaking = [one_question("train", number) for number in range(3)]
    rows = [one_question("test", 0), one_question("validation", 0) | {"prompt": "Why?"}, *leaking, leaking[0]]
    source = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(UsageError, match=r"all 4 rows .* removed: 3 leaks \(asked again in test\), 1 exact") as found:
        run(tmp_path, source)
    assert "split.train=0.6" in str(found.value)
    assert "source_column=row" in str(found.value)
    assert "near_duplicates" not in str(found.value)


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
