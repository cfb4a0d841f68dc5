"""What methods make of rows, and what they refuse; no workers."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_language_models
import train_bases
from evaluation_tasks import task
from test_train_checkpoints import record
from tiny_rerankers import WORDS
from train_runs import settings

from ray_jobs.errors import ModelError, TandemError, UsageError
from ray_jobs.models.resolve import resolve
from ray_jobs.models.sentence_model import describe, load_sentence_model
from ray_jobs.storage import open_storage
from ray_jobs.train.checkpoints import Checkpoints
from ray_jobs.train.memory import memory_explained
from ray_jobs.train.methods import KINDS, METHODS, kind_of, method_of
from ray_jobs.train.methods.embedder import contrasted
from ray_jobs.train.methods.reranker import lists, pairs
from ray_jobs.train.methods.sft import tokenised
from ray_jobs.train.steps import SaveCheckpoints, Tokens, watch
from ray_jobs.train.worker import check_world


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_language_models.word_tokenizer([*WORDS, *(f" {word}" for word in WORDS)])


@pytest.fixture(scope="module")
def chat_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_bases.language_model(tmp_path_factory.mktemp("chat"))


def test_rows_that_keep_nothing_to_learn_are_left_out(tokenizer: Any) -> None:
    make = tokenised(tokenizer, "completion", True, 3)
    found = make({"prompt": ["ant bee cat dog", "ant"], "completion": [" elk", " fox"]})
    assert [tokenizer.decode(ids) for ids in found["input_ids"]] == ["ant fox<|end|>"]


def test_a_pair_is_right_or_wrong_and_negatives_are_as_many_as_asked() -> None:
    rows = {"query": ["q", "r"], "positive": ["p", "s"], "negatives": [["a", "b", "c"], None]}
    assert pairs(2)(rows) == {
        "query": ["q", "q", "q", "r"],
        "passage": ["p", "a", "b", "s"],
        "label": [1.0, 0.0, 0.0, 1.0],
    }


def test_a_list_begins_with_the_right_passage_and_rows_without_wrong_ones_go() -> None:
    rows = {"query": ["q", "r"], "positive": ["p", "s"], "negatives": [["a", "b", "c"], []]}
    assert lists(2)(rows) == {"query": ["q"], "passages": [["p", "a", "b"]], "labels": [[1.0, 0.0, 0.0]]}


def test_hard_negatives_are_columns_and_a_row_without_any_gets_another_rows_passage() -> None:
    rows = {"query": ["q", "r", "t"], "positive": ["p", "s", "u"], "negatives": [["a", "b", "c"], ["d"], None]}
    found = contrasted(2, seed=0)(rows)
    assert list(found) == ["anchor", "positive", "negative_1", "negative_2"]
    assert (found["negative_1"][:2], found["negative_2"][:2]) == (["a", "d"], ["b", "d"])
    assert {found["negative_1"][2], found["negative_2"][2]} <= {"p", "s"}


def test_an_embedder_compares_queries_with_passages_and_not_the_other_way_round(tmp_path: Path) -> None:
    data, base = train_bases.retrieval(tmp_path / "data"), train_bases.embedder(tmp_path / "base")
    trainer = method_of("embedder").trainer(task(tmp_path, "embedder", base, data))
    for rows in (trainer.train_dataset, trainer.eval_dataset):
        assert rows.column_names == ["anchor", "positive", "negative_1"]
        # The losses take the first column for the query; here the query is the shorter text.
        assert all(len(text.split()) == 2 for text in rows["anchor"])


@pytest.mark.parametrize("prompts", [{"query": "ant ", "passage": "bee "}, {"query": "ant ", "document": "bee "}])
def test_an_embedder_is_trained_with_the_prompts_of_ingest_and_search(tmp_path: Path, prompts: dict[str, str]) -> None:
    base = train_bases.embedder(tmp_path / "base", prompts=prompts)
    trainer = method_of("embedder").trainer(task(tmp_path, "embedder", base, train_bases.retrieval(tmp_path / "data")))
    used = describe(load_sentence_model(resolve(str(base)), "cpu"), "base")
    columns = ("anchor", "positive", "negative_1")
    expected = (used.query_prompt, used.document_prompt, used.document_prompt)
    assert tuple(trainer.args.prompts.get(column, "") for column in columns) == expected


@pytest.mark.parametrize("method", ["embedder", "reranker"])
def test_a_base_stored_in_bfloat16_is_trained_in_float32(tmp_path: Path, method: str) -> None:
    data = train_bases.retrieval(tmp_path / "data")
    base = train_bases.as_bfloat16(train_bases.encoder(tmp_path / "whole"), tmp_path / "base")
    trainer = method_of(method).trainer(task(tmp_path, method, base, data))
    assert {str(weight.dtype) for weight in trainer.model.parameters()} == {"torch.float32"}


def test_kinds_are_told_by_their_columns() -> None:
    common = {"id", "source", "row", "input"}
    assert all(kind_of(frozenset(common | columns), Path("x")) == kind for kind, columns in KINDS.items())
    with pytest.raises(UsageError, match=r"expected prepared data"):
        kind_of(frozenset({"text"}), Path("x"))


def test_every_method_is_found_by_its_name() -> None:
    assert [method_of(name).name for name in METHODS] == list(METHODS)
    with pytest.raises(UsageError, match=r"method=poem: not available"):
        method_of("poem")


def test_packed_rows_that_are_fewer_than_a_step_are_refused_and_not_learned_again_and_again(
    tmp_path: Path, chat_base: Path
) -> None:
    data = train_bases.conversations(tmp_path / "data", train=32)
    packed = {"sequence": {"packing": True, "max_length": 128}, "optimisation": {"global_batch": 16, "micro_batch": 4}}
    with pytest.raises(
        UsageError, match=r"packed into \d to learn from, fewer than optimisation.global_batch=16; lower it, leave se"
    ):
        method_of("sft").trainer(task(tmp_path, "sft", chat_base, data, **packed))


def test_a_base_without_a_chat_template_is_refused_with_what_to_do(tmp_path: Path) -> None:
    base = train_bases.language_model(tmp_path / "base", chat=False)
    with pytest.raises(UsageError, match=r"has no chat template, and the rows are conversations; choose a base"):
        method_of("sft").trainer(task(tmp_path, "sft", base, train_bases.conversations(tmp_path / "data")))


@pytest.mark.parametrize(
    ("train", "validation", "named"),
    [
        (0, 8, "0 training rows are fewer than optimisation.global_batch=8"),
        (5, 8, "5 training rows are fewer than optimisation.global_batch=8"),
        (8, 0, "the validation split is empty"),
    ],
)
def test_splits_that_are_too_small_are_refused(
    tmp_path: Path, chat_base: Path, train: int, validation: int, named: str
) -> None:
    data = train_bases.conversations(tmp_path / "data", train, validation)
    with pytest.raises(UsageError, match=named):
        method_of("sft").trainer(task(tmp_path, "sft", chat_base, data))


def test_rows_of_another_kind_are_refused(tmp_path: Path, chat_base: Path) -> None:
    data = train_bases.retrieval(tmp_path / "data")
    with pytest.raises(UsageError, match=r"method=sft with data=.* of kind retrieval, expected messages or completion"):
        method_of("sft").trainer(task(tmp_path, "sft", chat_base, data))


def test_splits_of_two_kinds_are_refused(tmp_path: Path, chat_base: Path) -> None:
    data, other = train_bases.conversations(tmp_path / "data"), train_bases.completions(tmp_path / "other")
    (other / "validation.parquet").replace(data / "validation.parquet")
    with pytest.raises(UsageError, match=r"training rows are of kind messages and its validation rows .* completion"):
        method_of("sft").trainer(task(tmp_path, "sft", chat_base, data))


def test_rows_longer_than_the_base_takes_are_refused(tmp_path: Path, chat_base: Path) -> None:
    data = train_bases.conversations(tmp_path / "data")
    asked = task(tmp_path, "sft", chat_base, data, sequence={"max_length": 129})
    with pytest.raises(UsageError, match=r"sequence.max_length=129 is above the 128 positions"):
        method_of("sft").trainer(asked)


@pytest.mark.parametrize(("method", "make"), [("embedder", train_bases.embedder), ("reranker", train_bases.encoder)])
def test_texts_longer_than_an_encoder_takes_are_refused(tmp_path: Path, method: str, make: Any) -> None:
    data = train_bases.retrieval(tmp_path / "data")
    asked = task(tmp_path, method, make(tmp_path / "base"), data, sequence={"max_length": 5000})
    with pytest.raises(UsageError, match=r"sequence.max_length=5000 is above the \d+ positions of base="):
        method_of(method).trainer(asked)


def test_a_split_that_is_no_parquet_file_is_refused(tmp_path: Path, chat_base: Path) -> None:
    data = train_bases.conversations(tmp_path / "data")
    (data / "validation.parquet").write_text('{"messages": []}\n')
    with pytest.raises(UsageError, match=r"validation.parquet' is no Parquet file of rows .*; prepare other files"):
        method_of("sft").trainer(task(tmp_path, "sft", chat_base, data))


def test_a_length_that_leaves_nothing_to_learn_is_refused(tmp_path: Path, chat_base: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "ant " * 9}, {"role": "assistant", "content": "bee"}]}] * 8
    data = train_bases.prepared(tmp_path / "data", {"train": rows, "validation": rows}, train_bases.MESSAGES)
    asked = task(tmp_path, "sft", chat_base, data, sequence={"max_length": 8})
    with pytest.raises(UsageError, match=r"keeps anything to learn within 8 tokens"):
        method_of("sft").trainer(asked)


def test_labels_that_are_all_equal_are_refused(tmp_path: Path, chat_base: Path) -> None:
    rows = [{"prompt": "ant", "completion": " bee", "label": True}] * 8
    data = train_bases.prepared(tmp_path / "data", {"train": rows, "validation": rows}, train_bases.LABEL)
    with pytest.raises(UsageError, match=r"every training row has label=True"):
        method_of("kto").trainer(task(tmp_path, "kto", chat_base, data))


def test_a_reranker_without_negatives_is_refused(tmp_path: Path) -> None:
    rows = [{"query": "ant", "positive": "bee", "negatives": [], "positive_id": None, "negative_ids": []}] * 8
    data = train_bases.prepared(tmp_path / "data", {"train": rows, "validation": rows}, train_bases.RETRIEVAL)
    with pytest.raises(UsageError, match=r"no training row has a negative, so that all labels are equal"):
        method_of("reranker").trainer(task(tmp_path, "reranker", train_bases.encoder(tmp_path / "base"), data))


@pytest.mark.parametrize("loss", ["lambda", "bce"])
def test_only_lists_need_a_negative_in_the_validation_split(tmp_path: Path, loss: str) -> None:
    data = train_bases.retrieval(tmp_path / "data")
    rows = [{"query": "ant", "positive": "bee", "negatives": []}]
    bare = train_bases.prepared(tmp_path / "bare", {"validation": rows}, train_bases.RETRIEVAL)
    (bare / "validation.parquet").replace(data / "validation.parquet")
    asked = task(tmp_path, "reranker", train_bases.encoder(tmp_path / "base"), data, reranker={"loss": loss})
    if loss == "bce":
        assert len(method_of("reranker").trainer(asked).eval_dataset) == 1
        return
    with pytest.raises(UsageError, match=r"reranker.loss=lambda with data=.*: no validation row has a negative"):
        method_of("reranker").trainer(asked)


def test_passages_that_are_all_equal_are_refused(tmp_path: Path) -> None:
    row = {"positive": "bee", "negatives": [], "positive_id": None, "negative_ids": []}
    rows = [{"query": word, **row} for word in WORDS[:8]]
    data = train_bases.prepared(tmp_path / "data", {"train": rows, "validation": rows}, train_bases.RETRIEVAL)
    with pytest.raises(UsageError, match=r"every training row has the same positive"):
        method_of("embedder").trainer(task(tmp_path, "embedder", train_bases.embedder(tmp_path / "base"), data))


def test_a_quantised_base_without_its_library_or_a_gpu_is_refused(tmp_path: Path, chat_base: Path) -> None:
    asked = task(tmp_path, "sft", chat_base, train_bases.conversations(tmp_path / "data"), lora={"quantise": "4bit"})
    with pytest.raises(UsageError, match=r"lora.quantise=4bit: needs a GPU and the package bitsandbytes \(pip install"):
        method_of("sft").trainer(asked)


def test_a_base_whose_tokeniser_has_no_end_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    data = train_bases.conversations(tmp_path / "data")
    base = train_bases.language_model(tmp_path / "base")
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    endless.save_pretrained(base)
    with pytest.raises(ModelError, match=r"its tokeniser has no end-of-text token"):
        method_of("sft").trainer(task(tmp_path, "sft", base, data))


@pytest.mark.parametrize("method", ["sft", "dpo", "kto"])
def test_a_base_that_fills_gaps_is_no_language_model(tmp_path: Path, tokenizer: Any, method: str) -> None:
    from transformers import RobertaConfig, RobertaForMaskedLM

    shape = {"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    filler = RobertaForMaskedLM(RobertaConfig(**shape, num_hidden_layers=1))
    base = tiny_language_models.save(tmp_path / "base", filler, tokenizer)
    rows = {"sft": train_bases.conversations, "dpo": train_bases.preferences, "kto": train_bases.labelled}
    asked = task(tmp_path, method, base, rows[method](tmp_path / "data"))
    with pytest.raises(ModelError, match=rf"the architecture RobertaForMaskedLM, and method={method} trains causal"):
        method_of(method).trainer(asked)


def saving(last: int | None = 4) -> SaveCheckpoints:
    found = SaveCheckpoints(Checkpoints(open_storage("memory://"), "r"), record(step=0), "a", ("m", "min"), 1, int)
    found.last = last
    return found


def watched(losses: list[float], training: bool = True, device: str = "cpu") -> Any:
    """A trainer of which only the loss matters, at the last micro-batch of a step."""
    import torch

    coming = iter(losses)
    trainer = SimpleNamespace(
        compute_loss=lambda model, inputs: torch.tensor(next(coming), device=device),
        model=SimpleNamespace(training=training),
        accelerator=SimpleNamespace(sync_gradients=True),
        state=SimpleNamespace(global_step=6),
        args=SimpleNamespace(process_index=1, learning_rate=0.5, warmup_steps=3),
    )
    watch(trainer, Tokens(2), saving())
    return trainer


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_at_its_step_and_batch(loss: float) -> None:
    trainer = watched([1.0, 1.0, loss, 1.0])
    trainer.compute_loss(None, {})  # a step by itself
    trainer.accelerator.sync_gradients = False
    for _ in range(2):
        trainer.compute_loss(None, {})
    trainer.accelerator.sync_gradients = True
    with pytest.raises(
        TandemError,
        match=rf"the loss is {loss} at step 7, micro-batch 2 of worker 1; the checkpoint of step 4 is kept: lower "
        r"optimisation.learning_rate=0.5, lengthen optimisation.warmup=3",
    ):
        trainer.compute_loss(None, {})


def test_a_device_is_waited_for_at_the_last_micro_batch_of_a_step_alone() -> None:
    # Whoever reads a value of this device fails.
    trainer = watched([1.0, 1.0], device="meta")
    trainer.accelerator.sync_gradients = False
    trainer.compute_loss(None, {})
    trainer.accelerator.sync_gradients = True
    with pytest.raises(NotImplementedError):
        trainer.compute_loss(None, {})


def test_a_loss_of_an_evaluation_does_not_stop_the_run() -> None:
    watched([float("nan")], training=False).compute_loss(None, {})


def test_weights_that_have_left_the_range_of_numbers_are_not_saved() -> None:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    found, state = saving(None), TrainerState(global_step=8)
    metrics = {"m": 1.0, "eval_loss": float("nan")}
    with pytest.raises(TandemError, match=r"eval_loss is nan at step 8: .*; there is no checkpoint yet: lower opt"):
        found.on_evaluate(TrainingArguments(output_dir="x"), state, TrainerControl(), metrics=metrics)


def test_tokens_are_those_of_all_workers_without_padding() -> None:
    import torch

    tokens = Tokens(3)
    tokens.add({"a_attention_mask": torch.tensor([[1, 1, 0]]), "a_input_ids": torch.tensor([[5, 6, 0]])})
    tokens.add({"input_ids": torch.tensor([[5, 6, 7, 8]]), "position_ids": torch.tensor([[0, 1, 0, 1]])})
    assert tokens.total == 3 * (2 + 4)


def test_tokens_of_the_estimate_of_a_divergence_are_not_learned() -> None:
    import torch

    tokens, ones = Tokens(1), torch.ones(2, 3, dtype=torch.int64)
    tokens.add({"input_ids": ones, "attention_mask": ones, "KL_input_ids": ones, "KL_attention_mask": ones})
    assert tokens.total == 6


def test_tokens_that_a_loss_makes_of_texts_are_those_that_the_network_learns_from() -> None:
    import torch

    class First(torch.nn.Module):
        def forward(self, features: Any) -> Any:
            return features["attention_mask"].sum() * 1.0

    def loss(model: Any, inputs: Any) -> Any:
        mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
        with torch.no_grad():
            model({"input_ids": mask, "attention_mask": mask})
        return model({"input_ids": mask, "attention_mask": mask})

    model, tokens = torch.nn.Sequential(First()), Tokens(2)
    trainer = SimpleNamespace(
        compute_loss=loss, model=model, accelerator=SimpleNamespace(sync_gradients=False), state=None, args=None
    )
    watch(trainer, tokens, saving())
    for _ in range(2):
        trainer.compute_loss(model, {"label": torch.ones(2), "query": ["a", "b"], "passage": ["c", "d"]})
    assert tokens.total == 2 * 2 * 5
    model.eval()
    trainer.compute_loss(model, {"query": ["a", "b"]})
    assert tokens.total == 2 * 2 * 5


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_lack_of_memory_says_which_knob(error: Exception) -> None:
    config = settings("sft", Path("b"), Path("d"), Path("s"), "model")
    with pytest.raises(TandemError, match=r"out of memory: lower optimisation.micro_batch=2"), memory_explained(config):
        raise error


def test_another_error_stays_what_it_is() -> None:
    config = settings("sft", Path("b"), Path("d"), Path("s"), "model")
    with pytest.raises(RuntimeError, match=r"shape"), memory_explained(config):
        raise RuntimeError("shape mismatch")


def test_a_trainer_that_does_not_see_its_peers_is_stopped() -> None:
    trainer = SimpleNamespace(args=SimpleNamespace(world_size=1, process_index=0))
    with pytest.raises(TandemError, match=r"the trainer is worker 0 of 1, not 1 of 2"):
        check_world(trainer, SimpleNamespace(rank=1, world_size=2, local_rank=1))
