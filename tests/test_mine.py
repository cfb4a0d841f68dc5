"""Mining: the right negatives, in the splits that were there, whole or not at all; on Ray where it matters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ray_jobs.errors import NotFoundError, RejectedError, TandemError, UsageError
from ray_jobs.index.search import SearchConfig
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.ingest import job as ingest_job
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.models.for_queries import load_for_queries
from ray_jobs.models.reranker import Reranker, RerankerConfig
from ray_jobs.models.resolve import resolve
from ray_jobs.progress import Stage
from ray_jobs.storage import LocalStorage
from ray_jobs.train import negatives, prepare
from ray_jobs.train.data.config import PrepareConfig
from ray_jobs.train.data.kind import schema_of
from ray_jobs.train.data.kinds import KINDS
from ray_jobs.train.data.mine_config import MineConfig
from ray_jobs.train.data.prepared import Prepared, open_prepared
from ray_jobs.train.job import find_data
from ray_jobs.train.making import DataSummary

pytest_plugins = ["in_process"]
on_ray = pytest.mark.usefixtures("ray_session")
here = pytest.mark.usefixtures("in_process")

TOPICS = 80
COMMON = 60
Rows = list[dict[str, object]]


def words(topic: int, *numbers: int) -> str:
    """Words that no other topic has."""
    return " ".join(f"w{hashlib.sha256(f'{topic} {n}'.encode()).hexdigest()[:10]}" for n in numbers)


def corpus() -> Iterator[dict[str, object]]:
    """Of each topic: what answers its query, a copy of that, and two that share ever fewer words with the query."""
    for topic in range(TOPICS):
        right = f"{words(topic, *range(40))} is {topic}."
        yield {"id": f"right{topic}", "title": f"Title {topic}", "text": right}
        yield {"id": f"copy{topic}", "title": "", "text": right.upper()}
        yield {"id": f"near{topic}", "title": "", "text": words(topic, 0, 1, 2, *range(100, 140))}
        yield {"id": f"far{topic}", "title": "", "text": words(topic, 0, *range(200, 240))}

    yield from ({"id": f"common{number}", "title": "", "text": common(number)} for number in range(COMMON))


def common(number: int) -> str:
    """A text that shares a word with many others, and none with a topic."""
    return f"{words(number + TOPICS, *range(20))} common"


def query(topic: int) -> str:
    return words(topic, 0, 1, 2, 3)


def write(path: Path, rows: Iterator[dict[str, object]] | Rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> str:
    """A store with the index `topics` and prepared rows of both kinds."""
    folder = tmp_path_factory.mktemp("mine")
    store = str(folder / "store")
    ingest_job.run(
        IngestConfig.model_validate(
            {
                "sources": [write(folder / "corpus.jsonl", corpus())],
                "index": "topics",
                "store": store,
                "shards": 3,
                "embedder": {"engine": "fake"},
            }
        )
    )
    rights = {str(row["id"]): str(row["text"]) for row in corpus()}
    retrieval = [
        {"query": query(n), "positive": f"Title {n}\n{rights[f'right{n}']}", "positive_id": f"right{n}"}
        for n in range(TOPICS)
    ]
    qa = [
        {
            "question": query(n),
            "passage": rights[f"right{n}"],
            # What is near holds the answer of every fifth question.
            "answers": [words(n, 2) if n % 5 == 0 else words(n, 39)] if n % 10 != 9 else [],
        }
        for n in range(TOPICS)
    ]
    messages = [
        {"messages": [{"role": "user", "content": query(n)}, {"role": "assistant", "content": "Yes."}]}
        for n in range(TOPICS)
    ]
    for name, rows in (("retrieval", retrieval), ("qa", qa), ("messages", messages)):
        prepare.run(
            PrepareConfig.model_validate(
                {
                    "inputs": [write(folder / f"{name}.jsonl", list(rows))],
                    "name": name,
                    "store": store,
                    "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
                }
            )
        )
    return store


def mine(store: str, **settings: object) -> DataSummary:
    defaults = {
        "data": "retrieval",
        "index": "topics",
        "name": "mined",
        "store": store,
        "search": {"mode": "lexical"},
        "num_negatives": 2,
        "block_queries": 16,
    }
    return negatives.run(MineConfig.model_validate({**defaults, **settings}))


def rows_of(prepared: Prepared) -> dict[str, Rows]:
    assert prepared.card.check() == []
    return {name: pq.read_table(path).to_pylist() for name, path in prepared.splits().items()}


def topic_of(row: dict[str, object]) -> int:
    return int(str(row["row"])) - 1


@on_ray
def test_the_negatives_are_the_passages_that_share_most_words_and_are_no_copies(store: str) -> None:
    mined = mine(store, name="right").prepared
    for rows in rows_of(mined).values():
        for row in rows:
            topic = topic_of(row)
            assert row["negative_ids"] == [f"near{topic}", f"far{topic}"]
            assert row["negatives"] == [words(topic, 0, 1, 2, *range(100, 140)), words(topic, 0, *range(200, 240))]
            assert (row["query"], row["positive_id"]) == (query(topic), f"right{topic}")
            assert row["positive"] == f"Title {topic}\n{words(topic, *range(40))} is {topic}."
    record = mined.card.mining
    assert record is not None
    assert (record.positives, record.indexed) == (TOPICS, TOPICS)
    assert record.total.ranks.keys() <= {"1", "2-3"}
    assert record.total.skipped == {"near-positive": TOPICS}
    assert record.total.negatives == 2 * TOPICS


@on_ray
def test_an_index_made_by_a_model_of_the_store_is_searched_by_it(store: str, tmp_path: Path) -> None:
    models = Path(store) / "models"
    models.mkdir(exist_ok=True)
    (models / "own").symlink_to(resolve("all-MiniLM-L6-v2").path)
    source, torch = str(tmp_path / "corpus.jsonl"), {"model": "own", "engine": "torch"}
    write(Path(source), corpus())
    ingest_job.run(
        IngestConfig.model_validate({"sources": [source], "index": "by-own", "store": store, "embedder": torch})
    )
    mined = mine(store, name="by-own", index="by-own", search={"mode": "dense"}, embedder={"engine": "torch"})
    record = mined.prepared.card.mining
    assert record is not None
    assert record.total.negatives


@here
def test_what_comes_out_is_a_prepared_set_with_the_same_splits(store: str) -> None:
    mined = mine(store, name="same").prepared
    storage = LocalStorage(Path(store))
    before, after = rows_of(open_prepared(storage, "retrieval")), rows_of(mined)
    for name, rows in before.items():
        kept = [[row[key] for key in ("source", "row", "input", "query", "positive_id")] for row in rows]
        assert kept == [[row[key] for key in ("source", "row", "input", "query", "positive_id")] for row in after[name]]
        assert pq.read_schema(mined.split(name)).equals(schema_of(KINDS["retrieval"]))
    assert storage.exists(find_data("same", storage).train)
    assert "## Negatives" in storage.read(f"{mined.folder}/card.md").decode()
    assert mined.card.splits["train"].lengths["passage"].longest > 0


@here
def test_a_row_to_train_on_gets_nothing_from_documents_of_other_splits(store: str, tmp_path: Path) -> None:
    # The best hits of a query after its own positive are the positives of other rows.
    rows: Rows = [
        {"query": f"common {words(n + TOPICS, 0, 1)}", "positive": common(n), "positive_id": f"common{n}"}
        for n in range(COMMON)
    ]
    split = {"train": 0.6, "validation": 0.2, "test": 0.2}
    settings = {"inputs": [write(tmp_path / "r.jsonl", list(rows))], "name": "common", "store": store, "split": split}
    prepare.run(PrepareConfig.model_validate(settings))
    mined = mine(store, data="common", name="apart", num_negatives=20).prepared
    found = rows_of(mined)
    held = {row["positive_id"] for name in ("validation", "test") for row in found[name]}
    assert held
    given = {name: {one for row in rows for one in row["negative_ids"]} for name, rows in found.items()}
    assert given["train"]
    assert not given["train"] & held
    assert given["test"] & {row["positive_id"] for row in found["train"]}


@on_ray
def test_the_same_again_mines_nothing_and_leaves_nothing_in_flight(store: str) -> None:
    assert mine(store, name="again").outcome == "mined"
    assert mine(store, name="again", block_queries=7).outcome == "unchanged"
    assert mine(store, name="again", num_negatives=1).outcome == "mined"
    assert not list(Path(store).glob("runs/*/making/*"))


@here
def test_blocks_do_not_decide_what_is_mined(store: str) -> None:
    few = mine(store, name="few", sampling_strategy="random", num_negatives=1, block_queries=5).prepared
    many = mine(store, name="many", sampling_strategy="random", num_negatives=1, block_queries=500).prepared
    assert rows_of(few) == rows_of(many)
    assert few.card.splits == many.card.splits


class Interrupting:
    """Progress that interrupts the job when the first block is done."""

    @contextmanager
    def stage(self, name: str, total: float) -> Iterator[Stage]:
        class Silent:
            def advance(self, done: float, **counted: int) -> None:
                if name == "mine":
                    raise KeyboardInterrupt

        yield Silent()


@on_ray
def test_an_interrupted_run_publishes_nothing_and_the_next_one_does(store: str) -> None:
    config = MineConfig.model_validate(
        {"data": "retrieval", "index": "topics", "name": "stopped", "store": store, "search": {"mode": "lexical"}}
    )
    with pytest.raises(KeyboardInterrupt):
        negatives.run(config, Interrupting())
    assert not (Path(store) / "datasets" / "stopped").exists()
    assert negatives.run(config).outcome == "mined"


@here
def test_questions_become_queries_whose_negatives_hold_no_answer(store: str) -> None:
    mined = mine(store, data="qa", name="from-qa").prepared
    answered = [topic for topic in range(TOPICS) if topic % 10 != 9]
    found = {topic_of(row): row for rows in rows_of(mined).values() for row in rows}
    assert sorted(found) == answered
    for topic, row in found.items():
        assert row["positive_id"] in (f"right{topic}", f"copy{topic}")
        assert row["negative_ids"] == ([f"far{topic}"] if topic % 5 == 0 else [f"near{topic}", f"far{topic}"])
    record = mined.card.mining
    assert record is not None
    assert record.total.dropped == TOPICS - len(answered)
    assert record.total.skipped["has-answer"] == len([topic for topic in answered if topic % 5 == 0])


@here
def test_as_qa_wrong_passages_become_rows_without_an_answer(store: str) -> None:
    mined = mine(store, data="qa", name="as-qa", output_kind="qa", num_negatives=1).prepared
    before = rows_of(open_prepared(LocalStorage(Path(store)), "qa"))
    for name, rows in rows_of(mined).items():
        assert pq.read_schema(mined.split(name)).equals(schema_of(KINDS["qa"]))
        old = {row["id"] for row in before[name]}
        assert [row for row in rows if row["id"] in old] == before[name]
        added = [row for row in rows if row["id"] not in old]
        assert added
        for row in added:
            topic = topic_of(row)
            best = words(topic, 0, *range(200, 240)) if topic % 5 == 0 else words(topic, 0, 1, 2, *range(100, 140))
            assert (row["question"], row["passage"]) == (query(topic), best)
            assert (row["answers"], row["starts"]) == ([], [])
        assert {row["source"] for row in added} <= {row["source"] for row in before[name]}


@here
def test_hybrid_search_and_a_reranker_give_what_one_process_gives(store: str) -> None:
    settings = {
        "num_negatives": 3,
        "range_max": 30,
        "absolute_margin": 0.3,
        "search": SearchConfig().model_dump(include=set()),
    }
    reranker = {"reranker": "fake", "reranker_options": {"engine": "fake"}}
    mined = mine(store, name="hybrid", **settings, **reranker).prepared
    snapshot = Snapshot.open(LocalStorage(Path(store)), "topics")
    embedder = load_for_queries(None, snapshot.manifest.embedder)
    scorer = Reranker.load(RerankerConfig(model="fake", engine="fake"))
    held = {f"right{topic_of(row)}" for name in ("validation", "test") for row in rows_of(mined)[name]}
    for name, rows in rows_of(mined).items():
        for row in rows[:8]:
            topic = topic_of(row)
            (hits,) = snapshot.search([query(topic)], SearchConfig(k=31, by="chunk"), embedder)
            others = [hit for hit in hits if hit.doc_id != f"right{topic}"][:30]
            allowed = [
                hit for hit in others if hit.doc_id != f"copy{topic}" and not (name == "train" and hit.doc_id in held)
            ]
            texts = [str(row["positive"]), *(f"{hit.title}\n{hit.text}" if hit.title else hit.text for hit in allowed)]
            positive, *scores = scorer.scores(query(topic), texts).tolist()
            ranked = sorted(zip(scores, allowed, strict=True), key=lambda pair: -pair[0])
            expected = [hit for score, hit in ranked if score <= positive - 0.3]
            # Of an upper-case copy and its original the first one counts.
            distinct = list({hit.text.lower(): hit.doc_id for hit in reversed(expected)}.items())[::-1]
            assert len(row["negatives"]) == min(3, len(distinct))  # type: ignore[arg-type]
            assert {text.lower() for text, _ in distinct} >= {
                str(text).split("\n")[-1].lower()
                for text in row["negatives"]  # type: ignore[attr-defined]
            }


@here
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"data": "nothing"}, NotFoundError, "data=nothing"),
        ({"index": "nothing"}, NotFoundError, "nothing"),
        ({"data": "messages"}, UsageError, "holds messages rows"),
        ({"output_kind": "qa"}, UsageError, "retrieval rows have no answers"),
        ({"search": {"mode": "lexical", "where": "year > 3"}}, UsageError, "year"),
        ({"min_score": 1e6}, RejectedError, "no row to train on got a negative"),
        ({"reranker": "no/such/model"}, NotFoundError, "no/such/model"),
    ],
)
def test_what_cannot_be_mined_is_one_line_and_publishes_nothing(
    store: str, settings: dict[str, object], error: type[TandemError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(error, match=message) as found:
        mine(store, **{"name": "refused", **settings})
    assert "\n" not in str(found.value)
    assert not (Path(store) / "datasets" / "refused").exists()
    assert not list(Path(store).glob("runs/*/making/*"))


@here
def test_positives_that_the_index_lacks_are_told(store: str, tmp_path: Path) -> None:
    rows: Sequence[dict[str, object]] = [
        {"query": query(n), "positive": words(n, *range(300, 340)) if n % 4 else words(n, *range(40)) + f" is {n}."}
        for n in range(60)
    ]
    settings = {
        "inputs": [write(tmp_path / "r.jsonl", list(rows))],
        "name": "foreign",
        "store": store,
        "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
    }
    prepare.run(PrepareConfig.model_validate(settings))
    mined = mine(store, data="foreign", name="lacking").prepared
    record = mined.card.mining
    assert record is not None
    assert (record.positives, record.indexed) == (60, 15)
    assert record.total.without == {"positive-not-in-index": 45}
    assert any("45 of 60 positives are not in index topics" in warning for warning in mined.card.warnings)
    # Given as they are, they need not be there.
    assert mine(store, data="foreign", name="as-given", texts="data").prepared.card.mining.total.mined == 60  # type: ignore[union-attr]
