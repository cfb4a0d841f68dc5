"""Fine-tuning by one worker, in this process: what the options of a run promise, resuming, models by their names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import train_bases
from s3_server import s3_server
from train_runs import (
    Alone,
    Poison,
    StopAfter,
    attempts,
    checkpoints,
    losses,
    outcome,
    plan_of,
    reopen,
    settings,
    toy,
    train_alone,
)
from transformers import TrainerCallback

from ray_jobs.errors import TandemError
from ray_jobs.models.embedder import Embedder, EmbedderConfig
from ray_jobs.models.reranker import Reranker, RerankerConfig
from ray_jobs.storage import LocalStorage, open_storage
from ray_jobs.train import job
from ray_jobs.train.checkpoints import Checkpoints
from ray_jobs.train.config import TrainConfig
from ray_jobs.train.worker import disable_dropout, work

pytestmark = pytest.mark.slow

SHORT = {"max_steps": 8, "learning_rate": 0.003}


@dataclass(frozen=True)
class Places:
    """Bases, data and store of this file."""

    folder: Path
    chat: Path
    conversations: Path
    retrieval: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def sft(self, name: str, **changes: Any) -> TrainConfig:
        return settings("sft", self.chat, self.conversations, self.store, name, **changes)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    folder = tmp_path_factory.mktemp("alone")
    return Places(
        folder,
        train_bases.language_model(folder / "chat"),
        train_bases.conversations(folder / "conversations", train=256, validation=16),
        train_bases.retrieval(folder / "retrieval", train=192),
    )


@pytest.fixture(scope="module")
def plain(places: Places) -> TrainConfig:
    """All weights, float32, nothing special."""
    return train_alone(places.sft("plain"))


@pytest.fixture(scope="module")
def adapted(places: Places) -> TrainConfig:
    """An adapter of rank 16 with the scale 1."""
    return train_alone(places.sft("adapted", lora={"rank": 16, "alpha": 16}))


class CountBlocks(TrainerCallback):  # type: ignore[misc]
    """Counts how often the blocks of a Llama are computed in training."""

    forwards = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        for name, module in given["model"].named_modules():
            if name.endswith("self_attn"):
                module.register_forward_hook(self.count)

    def count(self, module: Any, arguments: Any, output: Any) -> None:
        self.forwards += module.training


def adapter_of(config: TrainConfig) -> dict[str, Any]:
    from safetensors.numpy import load_file

    folder = Checkpoints(open_storage(config.store), plan_of(config).run).fetch(checkpoints(config)[-1])
    tensors: dict[str, Any] = load_file(folder / "adapter_model.safetensors")
    return tensors


@pytest.mark.parametrize("lora", [None, {"rank": 16, "alpha": 16, "dropout": 0.1}], ids=["all weights", "adapter"])
def test_a_run_that_resumes_has_the_losses_of_one_that_was_not_stopped_to_the_last_digit(
    places: Places, lora: dict[str, Any] | None
) -> None:
    kind = "full" if lora is None else "lora"
    schedule = {**SHORT, "warmup": 3, "schedule": "cosine"}
    whole, cut = (places.sft(f"{name}-{kind}", lora=lora, optimisation=schedule) for name in ("whole", "cut"))
    train_alone(whole)
    train_alone(cut, StopAfter(5))
    assert outcome(cut)["steps"] == 5
    # What was saved last is lost: the run goes back to step 4.
    reopen(cut)
    last = checkpoints(cut)[-1]
    if last.step == 5:
        open_storage(cut.store).delete(f"{last.key}.json")
    train_alone(cut)
    assert [one["step"] for one in attempts(cut)] == [0, 4]
    assert losses(cut) == losses(whole)


def test_a_run_whose_store_is_a_bucket_resumes_from_it(
    places: Places, plain: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = places.sft("in-a-bucket").model_copy(update={"store": "s3://bucket/store"})
    with s3_server() as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        train_alone(config, StopAfter(4))
        reopen(config)
        # Another machine: nothing that the first has kept is there.
        monkeypatch.setenv("TANDEM_CACHE", str(tmp_path / "cache"))
        train_alone(config)
        assert losses(config) == losses(plain)
        assert [found.step for found in checkpoints(config)] == [4, 8]
        assert job.run(config).model == "s3://bucket/store/models/in-a-bucket"


@pytest.mark.parametrize("lora", [None, {"rank": 16, "alpha": 16}], ids=["all weights", "adapter"])
def test_gradient_checkpointing_computes_blocks_twice_and_changes_no_loss(
    places: Places, lora: dict[str, Any] | None
) -> None:
    found = {}
    for switch in (False, True):
        count = CountBlocks()
        chosen = {"gradient_checkpointing": switch, "max_steps": 4}
        config = places.sft(f"checkpointing-{switch}-{lora is None}", lora=lora, optimisation=chosen)
        found[switch] = losses(train_alone(config, count)), count.forwards
    assert found[True][0] == pytest.approx(found[False][0], rel=1e-5)
    assert found[True][1] == 2 * found[False][1] > 0


def test_bfloat16_has_almost_the_losses_of_float32(places: Places, plain: TrainConfig) -> None:
    # Told by the plan, so that machines that are slow at it run it too.
    found = losses(train_alone(places.sft("half"), precision="bfloat16"))
    assert found != losses(plain)
    assert found == pytest.approx(losses(plain), rel=0.02)


def test_without_dropout_a_base_that_has_it_learns_as_one_that_has_none(places: Places) -> None:
    def run(name: str, dropout: float, disabled: bool) -> dict[int, float]:
        base = train_bases.encoder(places.folder / name, dropout)
        chosen = {"max_steps": 4, "disable_dropout": disabled}
        config = settings("reranker", base, places.retrieval, places.store, name, optimisation=chosen)
        return losses(train_alone(config))

    plain = run("none-to-drop", 0.0, False)
    assert run("dropout-disabled", 0.2, True) == plain
    assert run("dropout", 0.2, False) != plain


def test_rates_of_dropout_that_a_network_hands_to_functions_are_disabled_too() -> None:
    import torch
    from transformers import BartConfig, BartForSequenceClassification

    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = BartConfig(vocab_size=32, d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, dropout=0.5, **sizes)
    network = BartForSequenceClassification(config).train()
    asked = {"input_ids": torch.tensor([[0, 5, 6, 2]])}
    assert not torch.equal(network(**asked).logits, network(**asked).logits)
    disable_dropout(network)
    assert torch.equal(network(**asked).logits, network(**asked).logits)


def test_a_rank_stabilised_scale_is_that_of_alpha_over_the_root_of_the_rank(
    places: Places, adapted: TrainConfig
) -> None:
    config = places.sft("stabilised", lora={"rank": 16, "alpha": 4, "rslora": True})
    assert losses(train_alone(config)) == losses(adapted)


def test_dora_learns_magnitudes_beside_directions_and_begins_as_the_base(places: Places, adapted: TrainConfig) -> None:
    config = train_alone(places.sft("dora", lora={"rank": 16, "alpha": 16, "dora": True}))
    found, expected = losses(config), losses(adapted)
    assert found[1] == pytest.approx(expected[1], rel=1e-5)
    assert found[8] != pytest.approx(expected[8], rel=1e-5)
    new = {name for name in adapter_of(config) if name not in adapter_of(adapted)}
    assert len(new) == 14
    assert all("lora_magnitude_vector" in name for name in new)


def test_an_adapter_learns_its_task_by_a_wide_margin_over_its_base(places: Places) -> None:
    config = train_alone(
        toy(places.chat, places.conversations, places.store, "learned", lora={"rank": 16, "alpha": 16})
    )
    found = [checkpoint.metric for checkpoint in checkpoints(config)]
    assert found[-1] is not None
    assert found[-1] < 0.2 * losses(config)[1]


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_last_good_checkpoint(places: Places) -> None:
    config = places.sft("poisoned", checkpoints={"every_steps": 2, "log_every_steps": 1})
    with pytest.raises(
        TandemError, match=r"the loss is nan at step 6, micro-batch 1 of worker 0; the checkpoint of step 4 is kept"
    ):
        train_alone(config, Poison(before=6))
    assert [found.step for found in checkpoints(config)] == [2, 4]


def test_weights_that_have_left_the_range_of_numbers_are_no_checkpoint(places: Places) -> None:
    config = places.sft("exploding", checkpoints={"every_steps": 2})
    with pytest.raises(TandemError, match=r"eval_loss is nan at step 4: .*; the checkpoint of step 2 is kept: lower"):
        train_alone(config, Poison(after=4))
    assert [found.step for found in checkpoints(config)] == [2]


def test_a_trainer_without_the_peers_of_its_session_trains_nothing(places: Places) -> None:
    class Lonely(Alone):
        rank = local_rank = 1

    config = places.sft("lonely")
    with pytest.raises(TandemError, match=r"the trainer is worker 0 of 1, not 1 of 1"):
        work(Lonely(), plan_of(config))
    assert not checkpoints(config)


def test_each_entry_of_the_history_tells_tokens_and_seconds(plain: TrainConfig) -> None:
    entries = [entry for entry in outcome(plain)["history"] if "loss" in entry]
    assert [entry["tokens"] for entry in entries] == [80 * step for step in range(1, 9)]
    assert all(before["seconds"] <= after["seconds"] for before, after in pairwise(entries))


@pytest.fixture(scope="module")
def searchers(places: Places) -> dict[str, job.TrainSummary]:
    """An embedder and a reranker, each trained with an adapter, and published as their runs are found finished.

    The base of the embedder cuts passages that it is trained with whole.
    """
    common = {
        "lora": {"rank": 8},
        "optimisation": {"global_batch": 16, "micro_batch": 16, "max_steps": 20, "learning_rate": 0.001},
        "checkpoints": {"every_steps": 10},
    }
    bases = {
        "embedder": train_bases.embedder(places.folder / "embedder", max_seq_length=6),
        "reranker": train_bases.encoder(places.folder / "encoder"),
    }
    found = {}
    for method, base in bases.items():
        config = settings(method, base, places.retrieval, places.store, f"tiny-{method}", **common)
        found[method] = job.run(train_alone(config))
    return found


def test_an_embedder_is_loaded_by_its_name_with_the_loss_of_its_evaluation(
    searchers: dict[str, job.TrainSummary], places: Places
) -> None:
    embedder = Embedder.load(
        EmbedderConfig(model="tiny-embedder", engine="torch", precision="float32", device="cpu"),
        LocalStorage(places.store),
    )
    assert embedder.max_tokens == 32
    rows = held_out(places)
    queries = embedder.encode_queries([row["query"] for row in rows])
    passages = [row["positive"] for row in rows] + [row["negatives"][0] for row in rows]
    scores = 20 * queries @ embedder.encode_documents(passages).T
    likelihoods = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    loss = -float(np.mean(np.diagonal(likelihoods)))
    assert loss == pytest.approx(searchers["embedder"].metrics["eval_loss"], rel=1e-3)


def test_a_reranker_is_loaded_by_its_name_with_the_loss_of_its_evaluation(
    searchers: dict[str, job.TrainSummary], places: Places
) -> None:
    reranker = Reranker.load(
        RerankerConfig(model="tiny-reranker", precision="float32", device="cpu"), LocalStorage(places.store)
    )
    scores = [reranker.scores(row["query"], [row["positive"], *row["negatives"]]) for row in held_out(places)]
    right = np.clip(np.array([row[0] for row in scores]), 1e-7, 1 - 1e-7)
    wrong = np.clip(np.array([row[1:] for row in scores]).ravel(), 1e-7, 1 - 1e-7)
    loss = -float(np.concatenate([np.log(right), np.log(1 - wrong)]).mean())
    assert loss == pytest.approx(searchers["reranker"].metrics["eval_loss"], rel=1e-3)


@pytest.mark.parametrize("method", ["embedder", "reranker"])
def test_what_a_searcher_learns_from_is_counted_in_tokens(
    searchers: dict[str, job.TrainSummary], places: Places, method: str
) -> None:
    storage = LocalStorage(places.store)
    entries = json.loads(storage.read(f"{searchers[method].run}/finished.json"))["history"]
    counted = [entry["tokens"] for entry in entries if "loss" in entry]
    # 16 rows a step; a pair has at least two texts of a word each.
    assert all(count >= 16 * 2 * step for step, count in enumerate(counted, start=1))
    assert counted == sorted(set(counted))


def held_out(places: Places) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(places.retrieval / "validation.parquet").to_pylist()
    return rows
