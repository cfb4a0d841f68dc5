"""Models of a store: listed, shown, merged, taken out, and used by their names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_readers
import tiny_rerankers
import train_bases
from command_line import run
from tiny_adapters import adapter, quietly

from ray_jobs.models import resolve
from ray_jobs.models.adapter import ADAPTER_WEIGHTS
from ray_jobs.models.embedder import Embedder, EmbedderConfig
from ray_jobs.models.reader import Reader, ReaderConfig
from ray_jobs.models.reranker import Reranker, RerankerConfig
from ray_jobs.storage import LocalStorage, open_storage

Capsys = pytest.CaptureFixture[str]
PAIRS = [("word owl", "the owl sees the dog"), ("cat word", "dog dog bee")]


def card(folder: Path, method: str, base: str, **more: Any) -> None:
    about = {
        "name": folder.name,
        "method": method,
        "form": "adapter",
        "base": {"name": base, "revision": "r"},
        "data": {"name": "toys", "hash": "h"},
        "run": f"runs/{folder.name}/1",
        "step": 8,
        "metric": "eval_loss",
        "metrics": {"eval_loss": 0.5, "eval_f1": 0.75},
        "created": "2026-11-25T10:00:00Z",
    }
    (folder / "card.json").write_text(json.dumps({**about, **more}))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an encoder, a language model, and an adapter of each kind."""
    store = tmp_path_factory.mktemp("made") / "store"
    models = store / "models"
    train_bases.looking(models / "encoder")
    train_bases.language_model(models / "chat")
    adapter(models / "encoder", models / "finder", "QUESTION_ANS", ("qa_outputs",))
    train_bases.encoder(models / "pooled")
    adapter(models / "pooled", models / "judge", "SEQ_CLS", ("classifier",))
    adapter(models / "chat", models / "polite", "CAUSAL_LM")
    for name, base in {"finder": "encoder", "judge": "pooled", "polite": "chat"}.items():
        settings = models / name / "adapter_config.json"
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "base_model_name_or_path": base}))
    tiny_readers.tokenizer(max_length=48).save_pretrained(models / "finder")
    tiny_rerankers.tokenizer(max_length=48).save_pretrained(models / "judge")
    measured = {"metric": "f1", "before": 0.1, "after": 0.7, "delta": 0.6, "low": 0.55, "high": 0.65, "rows": 1200}
    evaluation = [{"set": "test", "role": "target", **measured}]
    card(models / "finder", "reader", "encoder", threshold=-1.5, metric="eval_f1", evaluation=evaluation)
    card(models / "judge", "reranker", "pooled")
    return store


@pytest.fixture
def store(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return Path(shutil.copytree(made, tmp_path / "store"))


@pytest.fixture(autouse=True)
def nothing_carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the store has models here."""
    monkeypatch.setattr(resolve, "SHIPPED", tmp_path / "shipped")


def models(capsys: Capsys, store: Path, *arguments: object) -> Any:
    return run(capsys, "models", *arguments, "--store", store)


def test_the_list_shows_every_model_with_what_is_known_of_it(capsys: Capsys, store: Path) -> None:
    found = {item["name"]: item for item in json.loads(models(capsys, store, "list", "--json").succeeded())}
    assert set(found) == {"encoder", "pooled", "chat", "finder", "judge", "polite"}
    finder = found["finder"]
    assert (finder["kind"], finder["form"], finder["base"]) == ("reader", "adapter", "encoder")
    assert (finder["metric"], finder["value"], finder["created"]) == ("eval_f1", 0.75, "2026-11-25T10:00:00Z")
    assert finder["bytes"] == sum(path.stat().st_size for path in (store / "models" / "finder").iterdir())
    assert (found["polite"]["kind"], found["polite"]["form"], found["polite"]["base"]) == (
        "generator",
        "adapter",
        "chat",
    )
    assert (found["chat"]["kind"], found["chat"]["form"]) == ("generator", "full")
    assert found["encoder"]["kind"] is None
    lines = models(capsys, store, "list").succeeded().splitlines()
    assert len(lines) == 6
    assert "eval_f1 0.75" in next(line for line in lines if line.startswith("finder "))


def test_an_empty_store_says_how_to_make_a_model(capsys: Capsys, tmp_path: Path) -> None:
    assert "tandem train" in models(capsys, tmp_path, "list").succeeded()
    assert json.loads(models(capsys, tmp_path, "list", "--json").succeeded()) == []


def test_info_shows_the_card(capsys: Capsys, store: Path) -> None:
    shown = models(capsys, store, "info", "finder").succeeded()
    parts = ("finder, reader, adapter", "encoder (revision r)", "toys (hash h)", "step 8", "eval_f1 0.75", "-1.5")
    for part in (*parts, "target     test: f1 0.1 -> 0.7 (+0.55 to +0.65), 1,200 rows"):
        assert part in shown
    found = json.loads(models(capsys, store, "info", "finder", "--json").succeeded())
    assert found["card"]["threshold"] == -1.5
    assert "no card" in models(capsys, store, "info", "polite").succeeded()


def test_a_merged_reader_reads_as_base_and_adapter_do(capsys: Capsys, store: Path) -> None:
    models(capsys, store, "merge", "finder", "--as", "whole").succeeded()
    adapted, merged = (
        Reader.load(ReaderConfig(model=name, precision="float32", device="cpu"), LocalStorage(store))
        for name in ("finder", "whole")
    )
    assert merged.threshold == adapted.threshold == -1.5
    assert merged.max_tokens == adapted.max_tokens == 48
    for one, other in zip(adapted.read_pairs(PAIRS), merged.read_pairs(PAIRS), strict=True):
        assert one is not None
        assert other is not None
        assert (one.start, one.end) == (other.start, other.end)
        assert one.margin == pytest.approx(other.margin, abs=1e-4)
    found = json.loads(models(capsys, store, "info", "whole", "--json").succeeded())
    assert (found["form"], found["kind"], found["card"]["merged_from"]) == ("merged", "reader", "finder")


def test_a_merged_reranker_scores_as_base_and_adapter_do(capsys: Capsys, store: Path) -> None:
    models(capsys, store, "merge", "judge", "--as", "whole").succeeded()
    adapted, merged = (
        Reranker.load(RerankerConfig(model=name, precision="float32", device="cpu"), LocalStorage(store))
        for name in ("judge", "whole")
    )
    assert adapted.score_pairs(PAIRS).scores == pytest.approx(merged.score_pairs(PAIRS).scores, abs=1e-5)


@pytest.mark.parametrize("said_by", ["tokeniser", "card"])
def test_a_merged_embedder_embeds_as_base_and_adapter_do_and_cuts_at_the_length_it_was_trained_with(
    capsys: Capsys, store: Path, tmp_path: Path, said_by: str
) -> None:
    from peft import PeftModel
    from sentence_transformers import SentenceTransformer

    base, near = store / "models" / "mini", store / "models" / "near"
    shutil.copytree(train_bases.embedder(tmp_path / "parts"), base)
    adapter(base, near, "FEATURE_EXTRACTION")
    settings = near / "adapter_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "base_model_name_or_path": "mini"}))
    card(near, "embedder", "mini", **({"max_tokens": 9} if said_by == "card" else {}))
    if said_by == "tokeniser":
        tiny_rerankers.tokenizer(max_length=9).save_pretrained(near)
    models(capsys, store, "merge", "near", "--as", "whole").succeeded()
    whole = Embedder.load(
        EmbedderConfig(model="whole", engine="torch", precision="float32", device="cpu"), LocalStorage(store)
    )
    assert (SentenceTransformer(str(base), device="cpu").max_seq_length, whole.max_tokens) == (32, 9)
    loaded: Any = SentenceTransformer(str(base), device="cpu")
    plain = loaded.encode(["the owl sees the dog"])
    with quietly():
        loaded[0].model = PeftModel.from_pretrained(loaded[0].model, str(near))
    expected = loaded.encode(["the owl sees the dog"])
    assert whole.encode_documents(["the owl sees the dog"]) == pytest.approx(expected, abs=1e-5)
    assert expected != pytest.approx(plain, abs=1e-3)


def test_a_merged_generator_has_the_weights_of_both(capsys: Capsys, store: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    models(capsys, store, "merge", "polite", "--as", "whole").succeeded()
    folder = store / "models"
    base = AutoModelForCausalLM.from_pretrained(folder / "chat")
    ids = torch.tensor([[5, 6, 7]])
    merged = AutoModelForCausalLM.from_pretrained(folder / "whole")
    with torch.no_grad(), quietly():
        found = merged(ids).logits
        plain = base(ids).logits.clone()
        expected = PeftModel.from_pretrained(base, folder / "polite")(ids).logits
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(found, plain, atol=1e-2)


def test_an_exported_adapter_is_a_folder_that_peft_loads(capsys: Capsys, store: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    models(capsys, store, "export", "polite", "--to", tmp_path / "out" / "polite").succeeded()
    folder = tmp_path / "out" / "polite"
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        store / "models" / "chat"
    )
    with quietly():
        assert AutoPeftModelForCausalLM.from_pretrained(folder).peft_config
    assert [path.name for path in folder.parent.iterdir()] == ["polite"]


def test_an_exported_whole_model_is_a_folder_that_transformers_loads(
    capsys: Capsys, store: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    models(capsys, store, "export", "chat", "--to", tmp_path / "chat").succeeded()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "chat")
    assert AutoTokenizer.from_pretrained(tmp_path / "chat")


@pytest.mark.parametrize("name", ["finder", "judge"])
def test_a_compact_adapter_is_small_and_gives_the_same(capsys: Capsys, store: Path, tmp_path: Path, name: str) -> None:
    models(capsys, store, "export", name, "--to", tmp_path / "small", "--compact").succeeded()
    left = {path.name for path in (tmp_path / "small").iterdir()}
    assert left == {"adapter_config.json", ADAPTER_WEIGHTS, "card.json"}
    full = (store / "models" / name / ADAPTER_WEIGHTS).stat().st_size
    assert (tmp_path / "small" / ADAPTER_WEIGHTS).stat().st_size < 0.8 * full
    kind: Any = (Reader, ReaderConfig) if name == "finder" else (Reranker, RerankerConfig)
    before, after = (
        kind[0].load(kind[1](model=str(folder), precision="float32", device="cpu"), LocalStorage(store))
        for folder in (store / "models" / name, tmp_path / "small")
    )
    assert after.max_tokens == before.max_tokens == 48
    if name == "finder":
        assert after.threshold == before.threshold
        for one, other in zip(before.read_pairs(PAIRS), after.read_pairs(PAIRS), strict=True):
            assert one.margin == pytest.approx(other.margin, abs=0.05)
    else:
        assert before.score_pairs(PAIRS).scores == pytest.approx(after.score_pairs(PAIRS).scores, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "code", "fragments"),
    [
        (["info", "nobody"], 1, ["no model 'nobody'", "chat, encoder, finder"]),
        (["merge", "nobody", "--as", "x"], 1, ["no model 'nobody'"]),
        (["export", "nobody", "--to", "x"], 1, ["no model 'nobody'"]),
        (["info"], 2, ["info needs the name of a model"]),
        (["list", "finder"], 2, ["tandem models info NAME"]),
        (["merge", "finder"], 2, ["merge needs --as"]),
        (["export", "finder"], 2, ["export needs --to"]),
        (["merge", "finder", "--as", "judge"], 1, ["as=judge", "is there already; choose another name"]),
        (["merge", "finder", "--as", "a/b"], 2, ["as='a/b'", "expected letters"]),
        (["merge", "chat", "--as", "x"], 1, ["'chat' is whole already"]),
        (["export", "chat", "--to", "x", "--compact"], 1, ["only an adapter becomes compact"]),
        (["export", "finder", "--to", "store"], 1, ["to=", "exists already; name a new folder"]),
        (["info", "finder", "--to", "x"], 2, ["to=x with info"]),
        (["drop", "finder"], 2, ["action='drop'"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    capsys: Capsys, store: Path, arguments: list[str], code: int, fragments: list[str]
) -> None:
    models(capsys, store, *arguments).refused(*fragments, code=code)


def test_a_damaged_card_is_refused_and_spoils_no_list(capsys: Capsys, store: Path, tmp_path: Path) -> None:
    (store / "models" / "finder" / "card.json").write_text("{")
    for arguments in (["info", "finder"], ["merge", "finder", "--as", "x"], ["export", "finder", "--to", "x"]):
        models(capsys, store, *arguments).refused("'finder' is damaged", "card.json' is not JSON", code=1)
    shown = models(capsys, store, "list").succeeded()
    assert "damaged" in next(line for line in shown.splitlines() if line.startswith("finder"))
    assert len(shown.splitlines()) == 6
    assert not (tmp_path / "x").exists()


def test_an_adapter_whose_base_is_gone_is_refused(capsys: Capsys, store: Path) -> None:
    shutil.rmtree(store / "models" / "encoder")
    for arguments in (["merge", "finder", "--as", "x"], ["export", "finder", "--to", "x"]):
        models(capsys, store, *arguments).refused("'finder' needs its base: model 'encoder' not found", code=1)
    assert "finder" in models(capsys, store, "list").succeeded()


def test_a_merge_that_fails_leaves_no_model(capsys: Capsys, store: Path) -> None:
    weights = store / "models" / "finder" / ADAPTER_WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100])
    models(capsys, store, "merge", "finder", "--as", "x").refused("'finder' cannot be loaded as a reader", code=1)
    assert not (store / "models" / "x").exists()


def test_a_name_of_several_parts_is_one_model(store: Path) -> None:
    from ray_jobs.models.stored import models as listed

    train_bases.embedder(store / "models" / "someone")
    names = {item.name: item.kind for item in listed(open_storage(str(store)))}
    assert names["someone/model"] == "embedder"
