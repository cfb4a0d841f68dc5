"""Adapters as rerankers, and what is refused as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import DEFAULT_MODEL
from tiny_rerankers import (
    PAIRS,
    assert_same,
    network,
    peft_is_behind,
    plain,
    predicted,
    reranker,
    save_adapter,
    tokenizer,
)
from tiny_transformers import save

from ray_jobs.errors import ModelError, NotFoundError
from ray_jobs.models.reranker import Reranker, RerankerConfig
from ray_jobs.storage import LocalStorage


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with an adapter, and one with the same model merged."""
    folder = tmp_path_factory.mktemp("adapted") / "models"
    base = plain(folder)
    adapter = save_adapter(str(base), network(), folder / "adapter")
    return adapter, merge(network(), adapter, folder / "merged")


def merge(base: Any, adapter: Path, folder: Path) -> Path:
    from peft import PeftModel

    with peft_is_behind():
        return save(PeftModel.from_pretrained(base, str(adapter)).merge_and_unload(), tokenizer(), folder)


def test_an_adapter_folder_is_the_merged_model(adapted: tuple[Path, Path]) -> None:
    adapter, merged = adapted
    assert_same(reranker(adapter).score_pairs(PAIRS).scores, predicted(merged))
    assert np.abs(predicted(merged) - predicted(adapter.parent / "plain")).max() > 0.01


def test_an_adapter_is_named_with_its_base(adapted: tuple[Path, Path]) -> None:
    adapter, _ = adapted
    identity = reranker(adapter).identity
    assert identity.model == str(adapter)
    assert identity.revision == "+".join(
        [reranker(adapter.parent / "plain").identity.revision, identity.revision.split("+")[1]]
    )


def test_an_adapter_in_the_store_finds_its_base_there(adapted: tuple[Path, Path]) -> None:
    adapter, merged = adapted
    save_adapter("plain", network(), adapter.parent / "named")
    config = RerankerConfig(model="named", precision="float32", device="cpu")
    assert_same(Reranker.load(config, LocalStorage(adapter.parent.parent)).score_pairs(PAIRS).scores, predicted(merged))


def test_an_adapter_saved_by_sentence_transformers_keeps_its_settings(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder
    from torch import nn

    base = plain(tmp_path)
    bare = save_adapter(str(base), network(), tmp_path / "adapter")
    whole = CrossEncoder(
        str(base), device="cpu", max_length=24, activation_fn=nn.Tanh(), prompts={"q": "owl "}, default_prompt_name="q"
    )
    whole.load_adapter(str(bare))
    whole.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    assert (tmp_path / "saved" / "modules.json").is_file()
    found = reranker(tmp_path / "saved")
    assert found.max_tokens == 24
    assert_same(found.score_pairs(PAIRS).scores, whole.predict(PAIRS))


def test_an_adapter_may_bring_the_head_that_its_base_lacks(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    from ray_jobs.models.resolve import resolve

    embedder = str(resolve(DEFAULT_MODEL).path)
    plain_network = AutoModelForSequenceClassification.from_pretrained(embedder, num_labels=1)
    adapter = save_adapter(DEFAULT_MODEL, plain_network, tmp_path / "adapter")
    first, second = (reranker(adapter).score_pairs(PAIRS).scores for _ in range(2))
    assert_same(first, second)
    assert np.ptp(first) > 0.01


def test_an_adapter_without_a_head_on_a_base_without_one_is_refused(tmp_path: Path) -> None:
    encoder = save(network().bert, tokenizer(), tmp_path / "encoder")
    adapter = save_adapter(str(encoder), network(), tmp_path / "adapter", head=None)
    with pytest.raises(ModelError, match=r"both lack 'classifier\.bias': scores would be random"):
        reranker(adapter)


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    adapter = save_adapter(str(plain(tmp_path)), network(), tmp_path / "adapter")
    smaller = network()
    smaller.bert.encoder.layer = smaller.bert.encoder.layer[:1]
    smaller.config.num_hidden_layers = 1
    save(smaller, tokenizer(), tmp_path / "plain")
    with pytest.raises(ModelError, match="does not fit its base"):
        reranker(adapter)


def test_an_adapter_of_other_dimensions_is_refused_with_what_differs(tmp_path: Path) -> None:
    from ray_jobs.models.resolve import resolve

    adapter = save_adapter(str(resolve(DEFAULT_MODEL).path), network(), tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"cannot be loaded .*size mismatch for base_model\.model\.bert"):
        reranker(adapter)


def test_an_adapter_whose_base_is_nowhere_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    adapter = save_adapter("nobody/nothing", network(), tmp_path / "adapter")
    with pytest.raises(NotFoundError, match=r"adapter .* needs its base: model 'nobody/nothing' not found"):
        reranker(adapter)


@pytest.mark.parametrize("content", ["{}", "not JSON", '{"base_model_name_or_path": null}'])
def test_an_adapter_that_names_no_base_is_refused(adapted: tuple[Path, Path], tmp_path: Path, content: str) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(ModelError, match="no base_model_name_or_path"):
        reranker(tmp_path)


def test_an_adapter_in_pickle_is_refused(adapted: tuple[Path, Path], tmp_path: Path) -> None:
    adapter, _ = adapted
    (tmp_path / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        reranker(tmp_path)


def test_an_embedder_is_refused_as_a_reranker() -> None:
    with pytest.raises(ModelError, match=r"is no reranker \(architecture BertModel\)"):
        reranker(DEFAULT_MODEL)


def test_a_language_model_is_refused_as_a_reranker(tmp_path: Path) -> None:
    path = plain(tmp_path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "architectures": ["BertLMHeadModel"]}))
    with pytest.raises(ModelError, match=r"is no reranker \(architecture BertLMHeadModel\)"):
        reranker(path)


def test_a_classifier_of_several_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has 3 outputs, expected one"):
        reranker(plain(tmp_path, num_labels=3))


def test_a_model_without_a_padding_token_is_refused(tmp_path: Path) -> None:
    path = save(network(), tokenizer(pad=False), tmp_path / "plain")
    with pytest.raises(ModelError, match="no padding token"):
        reranker(path)


def test_a_model_that_brings_its_own_code_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    path = plain(tmp_path)
    ran = tmp_path / "ran"
    (path / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    config = json.loads((path / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Own", "AutoModelForSequenceClassification": "own.M"},
    }
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="cannot be loaded as a cross-encoder"):
        reranker(path)
    assert not ran.exists()


def test_broken_weights_are_one_line(tmp_path: Path) -> None:
    path = plain(tmp_path)
    (path / "model.safetensors").write_bytes(b"\0" * 16)
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        reranker(path)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_nowhere_says_where_it_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NotFoundError, match="looked in"):
        reranker("nobody/nothing")
