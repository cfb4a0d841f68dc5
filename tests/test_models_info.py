"""`tandem models info NAME` of every kind and form, in a local store and in a bucket: what it was made from and how."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from s3_server import s3_server
from train_runs import settings

from ray_jobs.models import in_store, resolve
from ray_jobs.models.kind import Form, Kind
from ray_jobs.storage import open_storage
from ray_jobs.train.checkpoints import Checkpoint
from ray_jobs.train.methods import method_of
from ray_jobs.train.plan import Plan
from ray_jobs.train.publish import card

Capsys = pytest.CaptureFixture[str]
METHODS = ("sft", "dpo", "kto", "embedder", "reranker", "reader")
FORMS: tuple[Form, ...] = ("adapter", "merged", "full")
# What makes a folder a model of that kind, without weights: to describe reads none.
WHOLE: dict[Kind, dict[str, Any]] = {
    "generator": {"config.json": {"architectures": ["LlamaForCausalLM"]}},
    "embedder": {"modules.json": [], "config_sentence_transformers.json": {"model_type": "SentenceTransformer"}},
    "reranker": {"modules.json": [], "config_sentence_transformers.json": {"model_type": "CrossEncoder"}},
    "reader": {"config.json": {"architectures": ["BertForQuestionAnswering"]}},
}
TASKS: dict[Kind, str] = {
    "generator": "CAUSAL_LM",
    "embedder": "FEATURE_EXTRACTION",
    "reranker": "SEQ_CLS",
    "reader": "QUESTION_ANS",
}
MEASURED = {"metric": "f1", "before": 0.1, "after": 0.7, "delta": 0.6, "low": 0.55, "high": 0.65, "rows": 1200}


def published(method: str, form: Form) -> dict[str, Any]:
    """The card that `tandem train` writes."""
    lora = {} if form == "full" else {"lora": {"rank": 8, "alpha": 24}}
    config = settings(method, Path("some/base"), Path("rows"), Path("store"), f"{method}-{form}", **lora)
    run_of = f"runs/{config.name}/0123"
    plan = Plan(config, "store", run_of, "r" * 32, "d" * 32, "train", "validation", "cpu", "float32")
    checkpoint = Checkpoint(
        key="k", step=40, workers=1, engine="ddp", stage=0, metric=0.5, files={},
        metrics={"eval_loss": 0.5, "eval_f1": 0.75, **({"eval_threshold": 0.0} if method == "reader" else {})},
        method=method, base_revision="r" * 32, data_hash="d" * 32,
    )  # fmt: skip
    return card(plan, checkpoint, form, [{"set": "test", "role": "target", **MEASURED}])


@pytest.fixture(scope="module", params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store with a model of every method and form."""
    folder = tmp_path_factory.mktemp("info")
    with pytest.MonkeyPatch.context() as patch, s3_server() as bucket:
        for name, value in bucket.environment.items():
            patch.setenv(name, value)
        patch.setenv("TANDEM_CACHE", str(folder / "cache"))
        patch.setattr(resolve, "SHIPPED", folder / "shipped")
        uri = "s3://bucket/store" if request.param == "s3" else str(folder / "store")
        storage = open_storage(uri)
        for method in METHODS:
            for form in FORMS:
                kind = method_of(method).makes
                adapter = {"adapter_config.json": {"base_model_name_or_path": "some/base", "task_type": TASKS[kind]}}
                model = folder / f"{method}-{form}"
                model.mkdir()
                (model / "weights.safetensors").write_bytes(b"0" * 1000)
                for name, content in (adapter if form == "adapter" else WHOLE[kind]).items():
                    (model / name).write_text(json.dumps(content))
                in_store.put(storage, model.name, model, published(method, form))
        yield uri


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_base_data_metrics_and_configuration_are_shown(capsys: Capsys, store: str, method: str, form: Form) -> None:
    name, kind = f"{method}-{form}", method_of(method).makes
    shown = run(capsys, "models", "info", name, "--store", store).succeeded()
    lines = shown.splitlines()
    assert lines[0].startswith(f"model      {name}, {kind}, {form}, ")
    for line in (
        f"base       some/base (revision {'r' * 32})",
        f"data       rows (hash {'d' * 32})",
        f"method     {method}",
        f"run        runs/{name}/0123, step 40",
        "target     test: f1 0.1 -> 0.7 (+0.55 to +0.65), 1,200 rows",
    ):
        assert line in lines
    assert "eval_f1 0.75, eval_loss 0.5" in shown
    assert ("threshold  0.0" in lines) == (kind == "reader")
    assert "config     seed=0, publish=" in shown
    assert "optimisation: learning_rate=0.003, " in shown
    assert ("lora: rank=8, alpha=24, " in shown) == (form != "full")
    # Of the settings that belong to one method, only its own.
    assert {other for other in METHODS if f"  {other}: " in shown} <= {method}
    assert "None" not in shown
    assert "null" not in shown


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_for_machines_the_whole_card_is_there(capsys: Capsys, store: str, method: str, form: Form) -> None:
    found = json.loads(run(capsys, "models", "info", f"{method}-{form}", "--store", store, "--json").succeeded())
    assert (found["kind"], found["form"], found["base"]) == (method_of(method).makes, form, "some/base")
    expected = published(method, form)
    assert {**found["card"], "created": ""} == {**expected, "created": ""}
