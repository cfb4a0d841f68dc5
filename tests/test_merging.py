"""An adapter that is merged into a base which is stored in half precision keeps what it has learned."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import tiny_language_models
import train_bases
from tiny_adapters import adapter, quietly

from ray_jobs.models import merging
from ray_jobs.models.adapter import ADAPTER_WEIGHTS, AdaptedModel
from ray_jobs.models.kind import Kind
from ray_jobs.models.resolve import ResolvedModel, resolve

TEXTS = ["the owl sees the dog", "cat bee"]
TASKS: dict[Kind, tuple[str, tuple[str, ...]]] = {
    "embedder": ("FEATURE_EXTRACTION", ()),
    "reranker": ("SEQ_CLS", ("classifier",)),
    "generator": ("CAUSAL_LM", ()),
}


def base_in_bfloat16(kind: Kind, folder: Path) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if kind != "generator":
        return train_bases.as_bfloat16(train_bases.encoder(folder / "whole"), folder / "base")
    whole = train_bases.language_model(folder / "whole")
    network = AutoModelForCausalLM.from_pretrained(whole, dtype=torch.bfloat16)
    return tiny_language_models.save(folder / "base", network, AutoTokenizer.from_pretrained(whole))


def with_small_changes(base: Path, folder: Path, kind: Kind) -> Path:
    """An adapter that changes a weight by less than bfloat16 tells apart."""
    from safetensors.torch import load_file, save_file

    task, heads = TASKS[kind]
    adapter(base, folder, task, heads)
    weights = load_file(folder / ADAPTER_WEIGHTS)
    scale = {name: 0.01 if "lora_B" in name else 1 for name in weights}
    save_file({name: weight.float() * scale[name] for name, weight in weights.items()}, folder / ADAPTER_WEIGHTS)
    return folder


def outputs(kind: Kind, folder: Path, over: Path | None = None) -> Any:
    """What the model says in float32, with the adapter `over` it but not merged, if there is one."""
    import torch
    from peft import PeftModel
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    exact: Any = {"device": "cpu", "model_kwargs": {"dtype": torch.float32}}
    torch.manual_seed(0)  # of heads that the base lacks
    if kind in ("embedder", "reranker"):
        one_output = {} if kind == "embedder" else {"num_labels": 1}
        model: Any = (SentenceTransformer if kind == "embedder" else CrossEncoder)(str(folder), **exact, **one_output)
        if over is not None:
            model[0].model = PeftModel.from_pretrained(model[0].model, str(over))
        if kind == "embedder":
            return model.encode(TEXTS)
        return model.predict([("owl", text) for text in TEXTS], activation_fn=torch.nn.Identity())
    network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if over is not None:
        network = PeftModel.from_pretrained(network, str(over))
    with torch.no_grad():
        return network.eval()(**AutoTokenizer.from_pretrained(folder)(TEXTS[0], return_tensors="pt")).logits.numpy()


@pytest.mark.parametrize("kind", TASKS)
def test_small_changes_outlive_the_merging_into_a_base_in_bfloat16(tmp_path: Path, kind: Kind) -> None:
    from safetensors.torch import load_file

    with quietly(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = base_in_bfloat16(kind, tmp_path)
        changes = with_small_changes(base, tmp_path / "adapter", kind)
        adapted = ResolvedModel("adapter", changes, "", "path")
        merging.merge(kind, AdaptedModel(resolve(str(base)), adapted), tmp_path / "merged")
        plain, expected, found = (
            outputs(kind, base), outputs(kind, base, changes), outputs(kind, tmp_path / "merged")
        )  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-4)
    assert plain != pytest.approx(expected, abs=1e-3)
    weights = load_file(tmp_path / "merged" / "model.safetensors")
    assert {str(weight.dtype) for weight in weights.values()} == {"torch.float32"}
