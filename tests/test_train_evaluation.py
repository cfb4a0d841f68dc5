"""Judges of models before and after, against what is computed the plain way."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_language_models
import tiny_readers
import train_bases
from bench.metrics import ndcg as reference
from evaluation_tasks import columns, task
from hypothesis import given
from hypothesis import strategies as st
from tiny_rerankers import WORDS

from ray_jobs.errors import UsageError
from ray_jobs.train.evaluation import likelihood
from ray_jobs.train.evaluation.judges import JUDGES, check_kind, judge_of, metrics_of
from ray_jobs.train.evaluation.language import LanguageJudge
from ray_jobs.train.evaluation.ranking import EmbedderJudge, RerankerJudge, ndcg, queries_of
from ray_jobs.train.evaluation.scores import METRICS, Columns, Scores
from ray_jobs.train.evaluation.tuned import over
from ray_jobs.train.methods import METHODS, Task, method_of
from ray_jobs.train.methods.reader import network_of
from ray_jobs.train.methods.turns import IGNORED, of_completion, of_messages


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, another whole model, an adapter over the base, and rows."""
    made = tmp_path_factory.mktemp("judged")
    train_bases.language_model(made / "base")
    tokenizer = tiny_language_models.word_tokenizer([*WORDS, *(f" {word}" for word in WORDS)])
    other = tiny_language_models.tiny_llama(tokenizer, seed=5, initializer_range=0.2, max_position_embeddings=128)
    tiny_language_models.save(made / "other", other, tokenizer)
    tiny_language_models.save_adapter(made / "adapter", made / "base", seed=3)
    train_bases.conversations(made / "conversations", validation=12)
    train_bases.completions(made / "completions", validation=12)
    train_bases.preferences(made / "preferences", validation=12)
    train_bases.labelled(made / "labelled", validation=12)
    train_bases.retrieval(made / "retrieval")
    return made


def named(found: list[Scores]) -> dict[str, Scores]:
    return {scores.metric: scores for scores in found}


def judge(folder: Path, tuned: str, method: str = "sft", data: str = "conversations", **changes: Any) -> LanguageJudge:
    return LanguageJudge(task(folder, method, folder / "base", folder / data, **changes), folder / tuned)


def plain_logits(model: Any, ids: list[int]) -> Any:
    import torch

    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)


def loaded(folder: Path, name: str) -> Any:
    from transformers import AutoModelForCausalLM

    if name != "adapter":
        return AutoModelForCausalLM.from_pretrained(folder / name).eval()
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    return over(base, folder / "adapter")


@pytest.mark.parametrize("tuned", ["other", "adapter"])
def test_likelihood_and_divergence_are_those_of_each_row_by_itself(folder: Path, tuned: str) -> None:
    rows = columns(folder / "conversations" / "validation.parquet")
    # Rows of different lengths, so that batches are padded.
    rows["messages"][:3] = [[*messages, *messages] for messages in rows["messages"][:3]]
    asked = judge(folder, tuned, sequence={"max_length": 64})
    found = named(asked.scores(rows, "messages"))
    assert tuple(found) == metrics_of("sft", "messages")
    models = [loaded(folder, "base"), loaded(folder, tuned)]
    for place, messages in enumerate(rows["messages"]):
        ids, labels = of_messages(asked._tokenizer, messages, True)
        learned = [n for n, label in enumerate(labels) if label != IGNORED]
        before, after = (plain_logits(model, ids) for model in models)
        losses = [-np.mean([float(logs[n - 1, ids[n]]) for n in learned]) for logs in (before, after)]
        kl = np.mean([float((before[n - 1].exp() * (before[n - 1] - after[n - 1])).sum()) for n in learned])
        assert found["perplexity"].before[place] == pytest.approx(losses[0], abs=1e-4)
        assert found["perplexity"].after[place] == pytest.approx(losses[1], abs=1e-4)
        assert found["token_kl"].after[place] == pytest.approx(kl, abs=1e-4)
        assert found["perplexity"].weights is not None
        assert found["perplexity"].weights[place] == len(learned)


def test_the_loss_is_that_of_the_training_on_the_same_rows(folder: Path) -> None:
    rows = columns(folder / "completions" / "validation.parquet")
    found = named(judge(folder, "other", data="completions").scores(rows, "completion"))["perplexity"]
    trained = task(folder, "sft", folder / "base", folder / "completions")
    evaluated = method_of("sft").trainer(trained).evaluate()["eval_loss"]
    assert np.average(found.before, weights=found.weights) == pytest.approx(evaluated, abs=1e-4)


@pytest.mark.parametrize("kind", ["completion", "preference", "label"])
def test_a_model_is_at_no_distance_from_itself(folder: Path, kind: str) -> None:
    data = {"completion": "completions", "preference": "preferences", "label": "labelled"}[kind]
    found = judge(folder, "base", data=data).scores(columns(folder / data / "validation.parquet"), kind)
    assert all(np.array_equal(scores.before, scores.after) for scores in found)
    assert tuple(scores.metric for scores in found) == metrics_of("sft", kind)
    assert {scores.metric for scores in found} <= set(METRICS)


def test_small_batches_and_pieces_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = columns(folder / "conversations" / "validation.parquet")
    asked = judge(folder, "adapter")
    whole = named(asked.scores(rows, "messages"))
    monkeypatch.setattr(likelihood, "_LOGIT_BYTES", 1)
    monkeypatch.setattr(likelihood, "_POSITIONS", 1)
    for metric, scores in named(asked.scores(rows, "messages")).items():
        assert scores.before == pytest.approx(whole[metric].before, abs=1e-5)
        assert scores.after == pytest.approx(whole[metric].after, abs=1e-5)


def test_of_a_pair_the_likelier_answer_counts(folder: Path) -> None:
    rows = columns(folder / "preferences" / "validation.parquet")
    asked = judge(folder, "other", "dpo", "preferences")
    found = named(asked.scores(rows, "preference"))["reward_accuracy"]
    for side, name in (("before", "base"), ("after", "other")):
        model = loaded(folder, name)
        for place, prompt in enumerate(rows["prompt"]):
            sums = []
            for said in (rows["chosen"][place], rows["rejected"][place]):
                ids, labels = of_completion(asked._tokenizer, prompt, said, True)
                logs = plain_logits(model, ids)
                sums.append(sum(float(logs[n - 1, ids[n]]) for n, label in enumerate(labels) if label != IGNORED))
            assert getattr(found, side)[place] == float(sums[0] > sums[1])


def test_unwanted_answers_are_measured_apart_from_wanted_ones(folder: Path) -> None:
    rows = columns(folder / "labelled" / "validation.parquet")
    found = named(judge(folder, "other", "kto", "labelled").scores(rows, "label"))
    assert len(found["perplexity"].before) == sum(rows["label"])
    assert len(found["unwanted_ppl"].before) == 12 - sum(rows["label"])


def test_a_sample_is_what_the_model_says_next(folder: Path) -> None:
    rows = columns(folder / "completions" / "validation.parquet")
    asked = judge(folder, "adapter", data="completions", sequence={"max_length": 12})
    for sample, prompt in zip(
        asked.samples(rows, "completion", range(len(rows["prompt"]))), rows["prompt"], strict=True
    ):
        ids = asked._tokenizer(prompt)["input_ids"]
        for said, name in ((sample.before, "base"), (sample.after, "adapter")):
            model, now = loaded(folder, name), list(ids)
            while len(now) < 12 and now[-1] != asked._tokenizer.eos_token_id:
                now.append(int(plain_logits(model, now)[-1].argmax()))
            assert said == asked._tokenizer.decode(now[len(ids) :], skip_special_tokens=True).strip()


def test_a_conversation_without_an_answer_is_no_sample(folder: Path) -> None:
    spoken = columns(folder / "conversations" / "validation.parquet")["messages"][0]
    rows = {"messages": [[{"role": "user", "content": "ant"}], spoken]}
    [sample] = judge(folder, "adapter").samples(rows, "messages", [0, 1])
    assert sample.expected == spoken[-1]["content"]


def test_rows_with_nothing_to_learn_are_not_measured(folder: Path) -> None:
    rows = {"prompt": ["ant " * 60, "ant"], "completion": [" bee", " bee"]}
    found = judge(folder, "base", data="completions").scores(rows, "completion")
    assert [len(scores.before) for scores in found] == [1, 1]
    assert judge(folder, "base").scores({"prompt": [], "completion": []}, "completion") == []


RANKINGS = st.lists(st.booleans(), min_size=1, max_size=15).filter(any)


@given(RANKINGS, st.integers(0, 5))
def test_ndcg_is_that_of_trec_eval(ranking: list[bool], missing: int) -> None:
    grades = {str(place): 1 for place, good in enumerate(ranking) if good}
    grades |= {f"missing-{n}": 1 for n in range(missing)}
    expected = reference([str(place) for place in range(len(ranking))], grades)
    assert ndcg(ranking, len(grades)) == pytest.approx(expected)


def test_a_query_of_several_rows_counts_once_with_all_that_is_right() -> None:
    rows = {"query": ["q", "p", "q"], "positive": ["a", "b", "c"], "negatives": [["c", "x"], None, ["y", "x"]]}
    found = queries_of(rows)
    assert [(one.query, one.right, one.wrong) for one in found] == [("q", ("a", "c"), ("x", "y")), ("p", ("b",), ())]


def naive_ndcg(scores: Any, texts: list[str], right: tuple[str, ...]) -> float:
    ranked = [texts[place] for place in np.argsort(-np.asarray(scores), kind="stable")]
    return reference(ranked, dict.fromkeys(right, 1))


def adapted(model: Any, folder: Path, task_type: str, seed: int = 9) -> Path:
    """A random adapter over the transformer of a sentence model."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=64, target_modules="all-linear", init_lora_weights=False, task_type=task_type)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        get_peft_model(model[0].model, config).save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("prompts", [{}, {"query": "ant bee ", "passage": "cat dog elk fox "}])
def test_an_embedder_ranks_all_texts_of_the_set_for_every_query(tmp_path: Path, folder: Path, prompts: Any) -> None:
    from sentence_transformers import SentenceTransformer

    base = train_bases.embedder(tmp_path / "embedder", prompts=prompts)
    tuned = adapted(SentenceTransformer(str(base), device="cpu"), tmp_path / "embedder-adapter", "FEATURE_EXTRACTION")
    rows = columns(folder / "retrieval" / "validation.parquet")
    asked = EmbedderJudge(task(folder, "embedder", base, folder / "retrieval"), tuned)
    [found] = asked.scores(rows, "retrieval")
    assert (found.metric,) == metrics_of("embedder", "retrieval")
    texts = list(dict.fromkeys([*rows["positive"], *(text for texts in rows["negatives"] for text in texts)]))
    model = SentenceTransformer(str(base), device="cpu")
    similar = model.encode_query(rows["query"]) @ model.encode_document(texts).T
    expected = [naive_ndcg(similar[n], texts, (right,)) for n, right in enumerate(rows["positive"])]
    assert found.before == pytest.approx(expected, abs=1e-6)
    assert not np.allclose(found.before, found.after)
    for place, sample in zip((1, 3), asked.samples(rows, "retrieval", [1, 3]), strict=True):
        assert (sample.prompt, sample.expected) == (rows["query"][place], rows["positive"][place])
        assert sample.before == texts[similar[place].argmax()]


def test_a_reranker_ranks_the_texts_of_each_query(folder: Path) -> None:
    from sentence_transformers import CrossEncoder
    from transformers import set_seed

    base = train_bases.encoder(folder / "encoder")
    set_seed(0)
    model = CrossEncoder(str(base), device="cpu", num_labels=1)
    other = adapted(CrossEncoder(str(base), device="cpu", num_labels=1), folder / "reranker-adapter", "SEQ_CLS")
    rows = columns(folder / "retrieval" / "validation.parquet")
    asked = RerankerJudge(task(folder, "reranker", base, folder / "retrieval"), other)
    [found] = asked.scores(rows, "retrieval")
    assert (found.metric,) == metrics_of("reranker", "retrieval")
    for place, query in enumerate(rows["query"]):
        texts = [*rows["negatives"][place], rows["positive"][place]]
        scores = model.predict([(query, text) for text in texts])
        assert found.before[place] == pytest.approx(naive_ndcg(scores, texts, (rows["positive"][place],)))
    assert not np.allclose(found.before, found.after)


def two_adapters(folder: Path, method: str, made: Path) -> tuple[Task, Path, Path]:
    """A task of the method, and two adapters over its base, each with a head of its own where the base has none."""
    import torch
    from sentence_transformers import CrossEncoder, SentenceTransformer

    if method == "sft":
        for seed in (3, 4):
            tiny_language_models.save_adapter(made / f"{seed}", folder / "base", seed=seed)
        return task(folder, method, folder / "base", folder / "conversations"), made / "3", made / "4"
    if method == "reader":
        base = tiny_readers.plain(made / "base")
        asked = task(folder, method, base, folder / "retrieval", lora={"rank": 4})
        for seed in (3, 4):
            network = network_of(asked)
            torch.manual_seed(seed)
            with torch.no_grad():
                for name, weight in network.named_parameters():
                    if "lora_B" in name or "modules_to_save" in name:
                        weight.normal_()
            network.save_pretrained(str(made / f"{seed}"))
        return asked, made / "3", made / "4"
    base = train_bases.embedder(made / "base") if method == "embedder" else train_bases.encoder(made / "base")
    for seed in (3, 4):
        if method == "embedder":
            adapted(SentenceTransformer(str(base), device="cpu"), made / f"{seed}", "FEATURE_EXTRACTION", seed)
        else:
            adapted(CrossEncoder(str(base), device="cpu", num_labels=1), made / f"{seed}", "SEQ_CLS", seed)
    return task(folder, method, base, folder / "retrieval"), made / "3", made / "4"


def rows_for(method: str, asked: Task) -> tuple[str, Columns]:
    """Rows to measure a method on, and their kind."""
    if method != "reader":
        return "messages" if method == "sft" else "retrieval", columns(asked.splits.validation)
    texts = [" ".join(WORDS[n : n + 8]) for n in range(8)]
    return "qa", {
        "question": [f"ant {word}" for word in WORDS[:8]],
        "passage": texts,
        "answers": [[WORDS[n + 3]] for n in range(8)],
        "starts": [[text.index(f" {WORDS[n + 3]}") + 1] for n, text in enumerate(texts)],
    }


@pytest.mark.parametrize("method", ["sft", "embedder", "reranker", "reader"])
def test_before_is_the_adapter_that_a_run_began_as(tmp_path: Path, folder: Path, method: str) -> None:
    asked, tuned, start = two_adapters(folder, method, tmp_path)
    kind, rows = rows_for(method, asked)
    found, began, ended = (
        judge_of(asked, *given).scores(rows, kind)[0] for given in ((tuned, start), (start,), (tuned,))
    )
    assert found.before == pytest.approx(began.after, abs=1e-5)
    assert found.after == pytest.approx(ended.after, abs=1e-5)
    assert not np.allclose(began.after, began.before)
    assert not np.allclose(began.after, ended.after)


@pytest.mark.parametrize("method", ["embedder", "reranker", "reader"])
def test_a_whole_model_is_measured_as_it_would_be_as_a_base(tmp_path: Path, folder: Path, method: str) -> None:
    from safetensors.numpy import load_file, save_file

    asked, _, _ = two_adapters(folder, method, tmp_path)
    other = shutil.copytree(asked.base, tmp_path / "other")
    weights, chance = load_file(other / "model.safetensors"), np.random.default_rng(1)
    shaken = {name: (value + chance.normal(0, 0.5, value.shape)).astype(value.dtype) for name, value in weights.items()}
    save_file(shaken, other / "model.safetensors", {"format": "pt"})
    asked = replace(asked, config=asked.config.model_copy(update={"lora": None}))
    kind, rows = rows_for(method, asked)
    found, alone = (
        judge_of(*given).scores(rows, kind)[0] for given in ((asked, other), (replace(asked, base=other), other))
    )
    assert found.after == pytest.approx(alone.before, abs=1e-5)
    assert not np.allclose(found.after, found.before)


def test_queries_without_a_wrong_text_are_no_test_of_a_reranker(folder: Path) -> None:
    base = train_bases.encoder(folder / "encoder-too")
    asked = RerankerJudge(task(folder, "reranker", base, folder / "retrieval"), folder / "encoder-too")
    rows = {"query": ["ant"], "positive": ["bee"], "negatives": [[]]}
    assert asked.scores(rows, "retrieval") == []
    assert asked.samples(rows, "retrieval", [0]) == []


def test_a_reader_is_measured_on_each_question_that_has_an_answer(folder: Path) -> None:
    base = tiny_readers.plain(folder / "reader")
    rows = {
        "question": ["ant bee", "bee", "cat", "ant " * 70],
        "passage": ["ant bee cat dog", "cat dog elk bee", "dog elk", "bee"],
        "answers": [["bee"], ["elk bee"], [], ["bee"]],
        "starts": [[4], [8], [], [0]],
    }
    asked = judge_of(task(folder, "reader", base, folder / "retrieval", reader={"stride": 4}), base)
    found = named(asked.scores(rows, "qa"))
    reader = tiny_readers.reader(base, max_tokens=32, overlap=4)
    spans = reader.read_pairs(list(zip(rows["question"], rows["passage"], strict=True))[:2])
    said = [
        f"{text[span.start : span.end]}\n\nmargin {span.margin:.2f}, answered from the threshold on"
        for text, span in zip(rows["passage"], spans, strict=False)
        if span
    ]
    assert [sample.before for sample in asked.samples(rows, "qa", [0, 1])] == said
    assert tuple(found) == metrics_of("reader", "qa")
    assert len(found["f1"].before) == 3
    assert found["f1"].before[2] == 0
    assert np.array_equal(found["f1"].before, found["f1"].after)


def test_every_method_has_a_judge_of_the_kinds_that_it_learns_from() -> None:
    for name in METHODS:
        assert set(method_of(name).kinds) <= set(JUDGES[method_of(name).judge].metrics)


def test_rows_that_a_model_cannot_be_measured_on_are_refused() -> None:
    with pytest.raises(UsageError, match=r"evaluation.retained.old: its rows are of kind qa, and method=embedder"):
        check_kind("embedder", "evaluation.retained.old", "qa")
