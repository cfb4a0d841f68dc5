"""A reader from prepared data to an answer: trained on a real worker, published, asked by its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import train_bases
from command_line import run
from small_index import SmallDocument, build_index
from train_runs import settings

from ray_jobs.answer.quoting import ABSTENTION
from ray_jobs.index.manifest import commit
from ray_jobs.models.embedder import Embedder, EmbedderConfig
from ray_jobs.models.reader import Reader, ReaderConfig
from ray_jobs.storage import LocalStorage
from ray_jobs.train import job
from ray_jobs.train.config import TrainConfig

Capsys = pytest.CaptureFixture[str]
TEXTS = {"zoo": "The fox sleeps all day. An owl sees in the dark.", "farm": "A hen and a pig live here."}
FIT = {"optimisation": {"global_batch": 32, "micro_batch": 32, "max_steps": 100, "learning_rate": 0.01}}


@pytest.fixture(scope="module")
def trained(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, job.TrainSummary]:
    """A reader that learned, as an adapter, to find the known word of a question."""
    folder = tmp_path_factory.mktemp("reader")
    base = train_bases.knowing(folder / "base", tmp_path_factory.getbasetemp())
    data = train_bases.questions(folder / "data")
    changes = {
        **FIT,
        "lora": {"rank": 8, "alpha": 16},
        "sequence": {"max_length": 64},
        "reader": {"stride": 8, "max_answer_tokens": 4},
        "checkpoints": {"every_steps": 50},
    }
    config = settings("reader", base, data, folder / "store", "finder", **changes)
    return config, job.run(config)


@pytest.fixture(scope="module")
def store(trained: tuple[TrainConfig, job.TrainSummary], tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = LocalStorage(Path(trained[0].store))
    embedder = Embedder.load(EmbedderConfig(engine="fake"))
    documents = [
        SmallDocument(name, [(text, embedder.encode_documents([text])[0].tolist())]) for name, text in TEXTS.items()
    ]
    manifest = build_index(storage, tmp_path_factory.mktemp("build"), documents, 1, name="notes")
    commit(storage, manifest.model_copy(update={"embedder": embedder.identity}))
    return storage.root


@pytest.mark.slow
def test_a_reader_learns_its_task_and_its_card_says_when_it_answers(
    trained: tuple[TrainConfig, job.TrainSummary],
) -> None:
    config, summary = trained
    assert summary.metrics["eval_f1"] > 0.9
    assert summary.metrics["eval_refused"] > 0.9
    folder = Path(config.store) / "models" / "finder"
    card = json.loads((folder / "card.json").read_text())
    assert card["threshold"] == summary.metrics["eval_threshold"]
    assert (card["form"], card["method"]) == ("adapter", "reader")
    loaded = Reader.load(
        ReaderConfig(model="finder", precision="float32", device="cpu"), LocalStorage(Path(config.store))
    )
    assert loaded.threshold == card["threshold"]
    assert loaded.max_tokens == 64


@pytest.mark.slow
def test_ask_answers_by_the_name_of_what_was_trained(
    store: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ask = ("--index", "notes", "--store", store, "--reader", "finder", "--mode", "dense")
    found = json.loads(run(capsys, "ask", "Where is the owl?", *ask, "--json").succeeded())
    assert found["citations"][0]["quote"] == "owl"
    assert found["grounded"]
    assert run(capsys, "ask", "Where is the zebra?", *ask).succeeded().splitlines()[0] == ABSTENTION


@pytest.mark.slow
def test_published_merged_it_reads_the_same(trained: tuple[TrainConfig, job.TrainSummary]) -> None:
    config, _ = trained
    # The name and the form do not change what is learned: nothing is trained again.
    storage = LocalStorage(Path(config.store))
    plan = job.make_plan(config, storage)
    from ray_jobs.train import publish
    from ray_jobs.train.checkpoints import Checkpoints, best

    chosen = best(Checkpoints(storage, plan.run).complete(), "max")
    assert chosen is not None
    whole = storage.root / "whole"
    publish.merge(plan, storage, Checkpoints(storage, plan.run).fetch(chosen), whole)
    pairs = [("word owl", "the owl sees the dog"), ("cat word", "dog dog bee"), ("猫", "狗 猫 鱼")]
    adapted, merged = (
        Reader.load(ReaderConfig(model=str(folder), precision="float32", device="cpu")).read_pairs(pairs)
        for folder in (storage.root / "models" / "finder", whole)
    )
    for one, other in zip(adapted, merged, strict=True):
        assert one is not None
        assert other is not None
        assert (one.start, one.end) == (other.start, other.end)
        assert one.margin == pytest.approx(other.margin, abs=1e-4)
