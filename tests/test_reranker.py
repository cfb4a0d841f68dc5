"""The reranker against CrossEncoder.predict, on tiny models of every make, with adapters, and on its fake."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from tiny_models import DEFAULT_MODEL
from tiny_rerankers import PAIRS, network, peft_is_behind, save, save_adapter, save_as_cross_encoder, tokenizer

from ray_jobs.errors import ModelError, NotFoundError, UsageError
from ray_jobs.models.fake_pairs import FakePairEngine, fake_pair_model
from ray_jobs.models.pairs import PairBatch
from ray_jobs.models.reranker import Reranker, RerankerConfig

FAKE_CONFIG = RerankerConfig(model="any", engine="fake")
FAKE = Reranker.load(FAKE_CONFIG)
WORD = st.sampled_from(["cat", "dog", "fox", "bee", "owl", "猫"])
TEXT = st.lists(WORD, max_size=40).map(" ".join)


def reranker(path: Path | str, **settings: Any) -> Reranker:
    return Reranker.load(
        RerankerConfig.model_validate({"model": str(path), "precision": "float32", "device": "cpu", **settings})
    )


def predicted(path: Path, pairs: list[tuple[str, str]] = PAIRS) -> NDArray[np.float32]:
    from sentence_transformers import CrossEncoder

    scores: NDArray[np.float32] = CrossEncoder(str(path), device="cpu").predict(pairs)
    return scores


def assert_same(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


Maker = Callable[[Path], Path]


def plain(folder: Path, **changes: Any) -> Path:
    return save(network(**changes), tokenizer(), folder / "plain")


def cross_encoder(folder: Path, **settings: Any) -> Path:
    return save_as_cross_encoder(plain(folder), folder / "cross-encoder", **settings)


def without_activation(folder: Path) -> Path:
    from torch import nn

    return cross_encoder(folder, activation_fn=nn.Identity())


def without_segments(folder: Path) -> Path:
    return save(network("distilbert", dim=48, hidden_dim=96), tokenizer(False), folder / "plain")


def padding_on_the_left(folder: Path) -> Path:
    tokens = tokenizer(False)
    tokens.padding_side = "left"
    return save(network("llama", num_key_value_heads=2), tokens, folder / "plain")


def positions_from_the_padding_index(folder: Path, max_length: int = 64) -> Path:
    return save(network("roberta", type_vocab_size=2), tokenizer(max_length=max_length), folder / "plain")


def own_activation_of_an_old_model(folder: Path) -> Path:
    path = plain(folder)
    config = json.loads((path / "config.json").read_text())
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0.1"}
    (path / "config.json").write_text(json.dumps(config))
    return path


def with_a_prompt(folder: Path) -> Path:
    return cross_encoder(folder, prompts={"search": "owl bee : "}, default_prompt_name="search")


def language_model(folder: Path, template: str | None = None, **settings: Any) -> Path:
    """A language model that reranks: what it thinks of "owl" less what it thinks of "bee" as the next word."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.modules import LogitScore, Transformer
    from torch import nn
    from transformers import AutoModelForCausalLM

    tokens = tokenizer(False)
    tokens.chat_template = template
    network("llama", num_key_value_heads=2)
    save(AutoModelForCausalLM.from_config(network("llama", num_key_value_heads=2).config), tokens, folder / "plain")
    modules = [
        Transformer(str(folder / "plain"), transformer_task="text-generation"),
        LogitScore(*tokens.convert_tokens_to_ids(["owl", "bee"])),
    ]
    model = CrossEncoder(modules=modules, device="cpu", activation_fn=nn.Identity(), **settings)
    model.save_pretrained(str(folder / "cross-encoder"), create_model_card=False)
    return folder / "cross-encoder"


TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'query' %}ant {{ m['content'] }} {% elif m['role'] == 'document' %}"
    "yak {{ m['content'] }} {% else %}{{ m['content'] }} {% endif %}{% endfor %}zebra"
)


def chat_model(folder: Path) -> Path:
    return language_model(folder, TEMPLATE)


def chat_model_with_a_prompt(folder: Path) -> Path:
    return language_model(folder, TEMPLATE, prompts={"search": "elk fig"}, default_prompt_name="search")


MAKES: dict[str, Maker] = {
    "plain": plain,
    "cross-encoder": cross_encoder,
    "no activation": without_activation,
    "old activation": own_activation_of_an_old_model,
    "short": lambda folder: cross_encoder(folder, max_length=16),
    "prompt": with_a_prompt,
    "no segments": without_segments,
    "padding on the left": padding_on_the_left,
    "positions from the padding index": positions_from_the_padding_index,
    "language model": language_model,
    "chat template": chat_model,
    "chat template and prompt": chat_model_with_a_prompt,
}


@pytest.fixture(scope="module", params=MAKES, ids=str)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKES[request.param](tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return without_activation(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def loaded(model: Path) -> Reranker:
    return reranker(model, batch_tokens=128)


def test_scores_are_those_of_sentence_transformers(made: Path) -> None:
    scored = reranker(made, batch_tokens=256).score_pairs(PAIRS)
    # Where it cuts what a chat template wrote, sentence-transformers leaves a foreign token before the template's end.
    same = scored.tokens < (64 if (made / "chat_template.jinja").is_file() else 100)
    assert_same(scored.scores[same], predicted(made)[same])
    assert same.sum() >= len(PAIRS) - 1


def test_what_a_chat_template_wrote_is_cut_in_the_text_only(tmp_path: Path) -> None:
    found = reranker(chat_model_with_a_prompt(tmp_path))
    query = "owl bee " * 20
    room = 64 - len(f"elk fig ant {query} yak zebra".split())
    whole, longer, other = "cat " * room, "cat " * 90, "cat " * (room - 1) + "dog"
    assert found.score_pairs([(query, whole), (query, longer), ("owl", "")]).tokens.tolist() == [64, 64, 6]
    scores = found.scores(query, [whole, longer, other])
    assert_same(scores[1:2], scores[:1])
    assert abs(float(scores[2] - scores[0])) > 1e-4
    with pytest.raises(UsageError, match="shorten the query"):
        found.scores("owl " * 59, ["cat"])


def test_a_chat_template_that_writes_more_beside_a_text_still_fits(tmp_path: Path) -> None:
    template = TEMPLATE.replace("yak {{", "yak {% if m['content'] %}wasp wasp {% endif %}{{")
    found = reranker(language_model(tmp_path, template))
    assert found.score_pairs([("owl", "cat " * length) for length in (5, 57, 58, 59, 60, 90)]).tokens.tolist() == [
        *(11, 63, 64, 64, 64, 64)
    ]


def test_a_chat_template_without_query_and_document_is_refused(tmp_path: Path) -> None:
    template = "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
    with pytest.raises(ModelError, match="does not write a message of role query"):
        reranker(language_model(tmp_path, template))


def test_tiny_models_tell_texts_apart(made: Path) -> None:
    assert np.ptp(predicted(made)) > 0.01


def test_the_activation_is_the_models_own(model: Path, tmp_path: Path) -> None:
    logits = reranker(model).score_pairs(PAIRS).scores
    assert_same(reranker(plain(tmp_path)).score_pairs(PAIRS).scores, 1 / (1 + np.exp(-logits)))


def test_the_prompt_goes_before_the_query_only(model: Path, tmp_path: Path) -> None:
    found = reranker(with_a_prompt(tmp_path)).score_pairs(PAIRS).scores
    spelled_out = [(f"owl bee : {query}", text) for query, text in PAIRS]
    assert_same(found, 1 / (1 + np.exp(-reranker(model).score_pairs(spelled_out).scores)))


@pytest.mark.parametrize("budget", [64, 130, 4096])
def test_a_pair_has_the_same_score_alone_and_among_others(model: Path, budget: int) -> None:
    together = reranker(model, batch_tokens=budget)
    for (query, text), score in zip(PAIRS, together.score_pairs(PAIRS).scores, strict=True):
        assert_same(together.scores(query, [text]), np.array([score]))


def test_tokens_are_counted_without_padding(loaded: Reranker) -> None:
    scored = loaded.score_pairs(PAIRS)
    assert scored.tokens.tolist() == [9, 7, 4, 64, 12, 10, 12]


def test_a_long_text_is_cut_and_its_query_is_not(loaded: Reranker) -> None:
    query = " ".join(["owl", "bee", "fox"] * 17)
    assert loaded.score_pairs([(query, "cat " * 30)]).tokens.tolist() == [64]
    seen = loaded.scores(query, ["cat " * 10, "cat " * 30, "cat " * 10 + "dog"])
    assert_same(seen, np.repeat(seen[:1], 3))
    assert abs(float(seen[0] - loaded.scores(query.replace("bee", "yak", 1), ["cat " * 10])[0])) > 1e-4
    assert abs(float(seen[0] - loaded.scores(query[:-3] + "yak", ["cat " * 10])[0])) > 1e-4


def test_a_query_that_leaves_no_room_for_a_text_is_refused(loaded: Reranker) -> None:
    longest = " ".join(["owl"] * 60)
    assert loaded.scores(longest, ["cat dog"]).shape == (1,)
    with pytest.raises(UsageError, match=r"takes 64 tokens .* max_tokens=64 .* shorten the query"):
        loaded.scores(longest + " owl", ["cat"])


@pytest.mark.parametrize("query", ["", "  \n"])
def test_an_empty_query_is_refused(loaded: Reranker, query: str) -> None:
    with pytest.raises(UsageError, match="query is empty"):
        loaded.scores(query, [])


def test_no_text_gives_no_score(loaded: Reranker) -> None:
    assert loaded.scores("cat", []).shape == (0,)
    assert loaded.scores("cat", []).dtype == np.float32


def test_several_threads_may_share_a_reranker(loaded: Reranker) -> None:
    expected = loaded.score_pairs(PAIRS).scores
    with ThreadPoolExecutor(4) as pool:
        for scored in pool.map(lambda _: loaded.score_pairs(PAIRS), range(8)):
            assert_same(scored.scores, expected)


def test_in_bfloat16_scores_are_near_and_still_told_apart(made: Path) -> None:
    found = reranker(made, precision="bfloat16").score_pairs(PAIRS).scores
    np.testing.assert_allclose(found, predicted(made), atol=0.1, rtol=0.05)
    assert len(set(found.tolist())) == len(PAIRS)


def test_a_model_that_states_no_maximum_takes_what_its_positions_allow(tmp_path: Path) -> None:
    found = reranker(positions_from_the_padding_index(tmp_path, max_length=10_000))
    assert found.max_tokens == 79
    assert found.score_pairs([("cat", "dog " * 200)]).tokens.tolist() == [79]


def test_max_tokens_of_the_user_cuts_texts(model: Path) -> None:
    short = reranker(model, max_tokens=8)
    assert short.max_tokens == short.identity.max_tokens == 8
    assert_same(short.scores("cat", ["dog fox owl bee yak"]), short.scores("cat", ["dog fox owl bee"]))


def test_max_tokens_above_the_positions_of_the_model_is_refused(model: Path) -> None:
    with pytest.raises(UsageError, match="max_tokens=81 is above the 80 positions"):
        reranker(model, max_tokens=81)


def test_a_budget_below_one_pair_is_refused(model: Path) -> None:
    with pytest.raises(UsageError, match="batch_tokens=63 is below max_tokens=64"):
        reranker(model, batch_tokens=63)


# Adapters


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with an adapter, and one with the same model merged."""
    folder = tmp_path_factory.mktemp("adapted")
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
    models = adapter.parent
    save_adapter("plain", network(), models / "named")
    config = RerankerConfig(model="named", precision="float32", device="cpu")
    assert_same(Reranker.load(config, models).score_pairs(PAIRS).scores, predicted(merged))


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


# What is no reranker


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


# Engines that misbehave, and the fake


class Broken(FakePairEngine):
    def __init__(self, break_it: str) -> None:
        self.break_it = break_it

    def forward(self, batch: PairBatch) -> NDArray[np.float32]:
        scores = super().forward(batch)
        return scores[:-1] if self.break_it == "row" else scores * np.float32(self.break_it)


@pytest.mark.parametrize(("break_it", "message"), [("row", "shape"), ("nan", "NaN"), ("inf", "NaN or infinite")])
def test_an_output_that_is_no_list_of_scores_is_caught(break_it: str, message: str) -> None:
    broken = Reranker(dataclasses.replace(fake_pair_model(), engine=Broken(break_it)), FAKE_CONFIG)
    with pytest.raises(ModelError, match=message):
        broken.scores("cat", ["cat", "cat dog"])


@given(st.lists(st.tuples(st.lists(WORD, min_size=1, max_size=5).map(" ".join), TEXT), max_size=30), st.integers(0, 2))
def test_score_i_belongs_to_pair_i_however_pairs_are_batched(pairs: list[tuple[str, str]], size: int) -> None:
    together = Reranker.load(FAKE_CONFIG.model_copy(update={"batch_tokens": [256, 300, 4096][size]}))
    scored = together.score_pairs(pairs)
    assert scored.scores.shape == scored.tokens.shape == (len(pairs),)
    for (query, text), score in zip(pairs, scored.scores, strict=True):
        assert score == FAKE.scores(query, [text])[0]


def test_the_fake_scores_the_share_of_the_querys_words() -> None:
    texts = ["Cat and dog", "a cat", "nothing", "dog dog cat"]
    np.testing.assert_array_equal(FAKE.scores("cat dog", texts), np.array([1, 0.5, 0, 1], np.float32))


def test_the_fake_cuts_texts_and_refuses_long_queries() -> None:
    short = Reranker.load(RerankerConfig(model="any", engine="fake", max_tokens=8))
    assert short.scores("cat", ["a b cat", "a b c cat"]).tolist() == [1, 0]
    with pytest.raises(UsageError, match="shorten the query"):
        short.scores("a b c d e", ["cat"])


def test_the_fake_needs_no_torch() -> None:
    import subprocess
    import sys

    program = (
        "import sys; from ray_jobs.models.reranker import Reranker, RerankerConfig\n"
        "assert Reranker.load(RerankerConfig(model='x', engine='fake')).scores('cat', ['cat']).tolist() == [1]\n"
        "assert not {'torch', 'transformers', 'sentence_transformers', 'peft'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize(
    "setting",
    [
        {"engine": "openvino"},
        {"engine": "fake", "precision": "bfloat16"},
        {"engine": "fake", "device": "cuda"},
        {"model": ""},
        {"max_tokens": 7},
        {"modle": "x"},
    ],
)
def test_a_configuration_that_cannot_be_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RerankerConfig.model_validate({"model": "any", **setting})


def test_a_gpu_that_is_not_there_is_a_usage_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_jobs.models.engine_choice.cuda_available", lambda: False)
    with pytest.raises(UsageError, match="device=cuda"):
        reranker(model, device="cuda", precision="auto")
