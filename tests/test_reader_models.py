"""Adapters and cards of readers, and what is refused as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import DEFAULT_MODEL
from tiny_readers import network, plain, reader, tokenizer
from tiny_rerankers import peft_is_behind, save_adapter
from tiny_transformers import save

from ray_jobs.errors import ModelError, NotFoundError
from ray_jobs.models.reader import PassageSpan, Reader, ReaderConfig
from ray_jobs.storage import LocalStorage

PAIRS = [("where cat?", "the cat and the dog"), ("cat dog fox", "bee"), ("lemon", "honey lemon jam " * 60)]
Spans = list[PassageSpan | None]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with an adapter, and one with the same model merged."""
    from peft import PeftModel

    folder = tmp_path_factory.mktemp("adapted") / "models"
    adapter = save_adapter(str(plain(folder)), network(), folder / "adapter", head="qa_outputs")
    with peft_is_behind():
        whole = PeftModel.from_pretrained(network(), str(adapter)).merge_and_unload()
    return adapter, save(whole, tokenizer(), folder / "merged")


def copied(adapter: Path, folder: Path, card: object) -> Path:
    """The adapter beside a card."""
    folder.mkdir()
    for file in adapter.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "card.json").write_text(card if isinstance(card, str) else json.dumps(card))
    return folder


def margins(spans: Spans) -> list[float]:
    return [span.margin for span in spans if span is not None]


def assert_same(found: Spans, expected: Spans) -> None:
    assert margins(found) == pytest.approx(margins(expected), abs=1e-4)
    assert len(margins(found)) == len(found)


def test_an_adapter_folder_is_the_merged_model(adapted: tuple[Path, Path]) -> None:
    adapter, merged = adapted
    assert_same(reader(adapter).read_pairs(PAIRS), reader(merged).read_pairs(PAIRS))
    base = reader(adapter.parent / "plain").read_pairs(PAIRS)
    assert max(abs(a - b) for a, b in zip(margins(base), margins(reader(merged).read_pairs(PAIRS)), strict=True)) > 0.01


def test_an_adapter_is_named_with_its_base(adapted: tuple[Path, Path]) -> None:
    adapter, _ = adapted
    identity = reader(adapter).identity
    assert identity.model == str(adapter)
    assert identity.revision.startswith(reader(adapter.parent / "plain").identity.revision + "+")


def test_an_adapter_in_the_store_finds_its_base_there(adapted: tuple[Path, Path]) -> None:
    adapter, merged = adapted
    save_adapter("plain", network(), adapter.parent / "named", head="qa_outputs")
    config = ReaderConfig(model="named", precision="float32", device="cpu")
    assert_same(
        Reader.load(config, LocalStorage(adapter.parent.parent)).read_pairs(PAIRS), reader(merged).read_pairs(PAIRS)
    )


def test_an_adapter_brings_the_head_that_the_embedded_base_lacks(tmp_path: Path) -> None:
    from transformers import AutoModelForQuestionAnswering

    from ray_jobs.models.resolve import resolve

    base = AutoModelForQuestionAnswering.from_pretrained(str(resolve(DEFAULT_MODEL).path))
    adapter = save_adapter(DEFAULT_MODEL, base, tmp_path / "adapter", head="qa_outputs")
    first, second = (reader(adapter) for _ in range(2))
    assert first.max_tokens == 512
    assert_same(first.read_pairs(PAIRS), second.read_pairs(PAIRS))
    assert len({round(margin, 2) for margin in margins(first.read_pairs(PAIRS))}) == len(PAIRS)


def test_an_adapter_saved_with_a_tokeniser_is_read_by_windows_of_its_length(
    adapted: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = copied(adapted[0], tmp_path / "short", {})
    tokenizer(max_length=24).save_pretrained(folder)
    assert reader(folder).max_tokens == 24
    assert reader(adapted[0]).max_tokens == 64


def test_the_threshold_of_the_card_is_used_unless_the_user_sets_one(adapted: tuple[Path, Path], tmp_path: Path) -> None:
    adapter, merged = adapted
    folder = copied(adapter, tmp_path / "carded", {"threshold": -1.5, "base": "plain"})
    assert reader(adapter).threshold == reader(merged).threshold == 0.0
    assert reader(folder).threshold == -1.5
    assert reader(folder, threshold=3).threshold == 3.0
    whole = copied(merged, tmp_path / "whole", {"threshold": 2})
    assert reader(whole).threshold == 2.0


@pytest.mark.parametrize("value", ["1.5", True, [1], "NaN"])
def test_a_card_whose_threshold_is_no_number_is_refused(
    adapted: tuple[Path, Path], tmp_path: Path, value: object
) -> None:
    folder = copied(adapted[0], tmp_path / "carded", '{"threshold": NaN}' if value == "NaN" else {"threshold": value})
    with pytest.raises(ModelError, match=r"card\.json' has threshold=.*, expected a number"):
        reader(folder)


def test_a_card_that_is_not_json_is_refused(adapted: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"card\.json' is not JSON"):
        reader(copied(adapted[0], tmp_path / "carded", "{"))


def test_an_adapter_trained_on_other_weights_of_its_base_is_refused(adapted: tuple[Path, Path], tmp_path: Path) -> None:
    base = reader(adapted[0].parent / "plain").identity.revision
    right = copied(adapted[0], tmp_path / "right", {"base": {"name": "plain", "revision": base}})
    assert_same(reader(right).read_pairs(PAIRS), reader(adapted[1]).read_pairs(PAIRS))
    wrong = copied(adapted[0], tmp_path / "wrong", {"base": {"name": "plain", "revision": base[::-1]}})
    with pytest.raises(ModelError, match=r"was trained on revision .* of its base, but .* has revision") as caught:
        reader(wrong)
    assert "\n" not in str(caught.value)
    # A commit of the hub and a hash of files cannot be compared.
    reader(copied(adapted[0], tmp_path / "hub", {"base": {"name": "plain", "revision": "0" * 40}}))


def test_an_adapter_without_a_head_on_a_base_without_one_is_refused(tmp_path: Path) -> None:
    encoder = save(network().bert, tokenizer(), tmp_path / "encoder")
    adapter = save_adapter(str(encoder), network(), tmp_path / "adapter", head=None)
    with pytest.raises(ModelError, match=r"both lack 'qa_outputs\.bias': spans would be random"):
        reader(adapter)


def test_an_adapter_of_another_number_of_layers_is_refused(tmp_path: Path) -> None:
    adapter = save_adapter(str(plain(tmp_path)), network(), tmp_path / "adapter", head="qa_outputs")
    plain(tmp_path, num_hidden_layers=1)
    with pytest.raises(ModelError, match="does not fit its base"):
        reader(adapter)


def test_an_adapter_of_other_dimensions_is_refused_with_what_differs(tmp_path: Path) -> None:
    from ray_jobs.models.resolve import resolve

    base = str(resolve(DEFAULT_MODEL).path)
    adapter = save_adapter(base, network(), tmp_path / "adapter", head="qa_outputs")
    with pytest.raises(ModelError, match=r"cannot be loaded as a reader .*size mismatch") as caught:
        reader(adapter)
    assert "\n" not in str(caught.value)


def test_an_adapter_whose_base_is_nowhere_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    adapter = save_adapter("nobody/nothing", network(), tmp_path / "adapter", head="qa_outputs")
    with pytest.raises(NotFoundError, match=r"adapter .* needs its base: model 'nobody/nothing' not found"):
        reader(adapter)


def test_an_embedder_is_refused_as_a_reader() -> None:
    with pytest.raises(ModelError, match=r"is no reader \(architecture BertModel\)"):
        reader(DEFAULT_MODEL)


def test_a_model_that_lacks_its_head_is_refused(tmp_path: Path) -> None:
    path = save(network().bert, tokenizer(), tmp_path / "headless")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "architectures": ["BertForQuestionAnswering"]}))
    with pytest.raises(ModelError, match=r"lacks 'qa_outputs\.bias': its spans would be random"):
        reader(path)


def test_a_head_of_other_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has 3 outputs, expected 2"):
        reader(plain(tmp_path, num_labels=3))


def test_a_model_without_a_padding_token_is_refused(tmp_path: Path) -> None:
    path = save(network(), tokenizer(pad=False), tmp_path / "plain")
    with pytest.raises(ModelError, match="no padding token"):
        reader(path)


def test_a_model_that_brings_its_own_code_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    path, ran = plain(tmp_path), tmp_path / "ran"
    (path / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    config: dict[str, Any] = json.loads((path / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForQuestionAnswering": "own.M"}}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="cannot be loaded as a reader"):
        reader(path)
    assert not ran.exists()


def test_broken_weights_are_one_line(tmp_path: Path) -> None:
    path = plain(tmp_path)
    (path / "model.safetensors").write_bytes(b"\0" * 16)
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        reader(path)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_nowhere_says_where_it_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NotFoundError, match="looked in"):
        reader("nobody/nothing")
