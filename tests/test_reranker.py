"""The reranker against CrossEncoder.predict, on tiny models of every make."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_rerankers import (
    PAIRS,
    assert_same,
    network,
    plain,
    predicted,
    reranker,
    save_as_cross_encoder,
    tokenizer,
)
from tiny_transformers import save

from ray_jobs.errors import ModelError, UsageError
from ray_jobs.models.reranker import Reranker

Maker = Callable[[Path], Path]


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


def test_text_that_is_no_valid_unicode_is_scored(loaded: Reranker) -> None:
    assert_same(loaded.scores("cat \ud800", ["dog \udfff", "dog"]), loaded.scores("cat ?", ["dog ?", "dog"]))


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


def test_in_bfloat16_the_head_keeps_apart_what_8_bits_would_tie(tmp_path: Path) -> None:
    import torch
    from torch import nn

    high = network()
    with torch.no_grad():
        high.classifier.bias += 100
    path = save_as_cross_encoder(
        save(high, tokenizer(), tmp_path / "plain"), tmp_path / "high", activation_fn=nn.Identity()
    )
    found = reranker(path, precision="bfloat16").score_pairs(PAIRS).scores
    np.testing.assert_allclose(found, predicted(path), atol=0.1)
    assert len(set(found.tolist())) == len(PAIRS)


def test_a_gpu_that_is_not_there_is_a_usage_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_jobs.models.engine_choice.cuda_available", lambda: False)
    with pytest.raises(UsageError, match="device=cuda"):
        reranker(model, device="cuda", precision="auto")
