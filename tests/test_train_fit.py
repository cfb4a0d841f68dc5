"""What libraries say of a base or an adapter that do not fit becomes one line that names the user's key."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import train_bases
from evaluation_tasks import task
from train_runs import train_alone

from ray_jobs.errors import ModelError, TandemError, UsageError
from ray_jobs.train.fit import explained
from ray_jobs.train.methods import Task, method_of

DATA: dict[str, Callable[[Path], Path]] = {
    "sft": train_bases.conversations,
    "dpo": train_bases.preferences,
    "kto": train_bases.labelled,
    "embedder": train_bases.retrieval,
    "reranker": train_bases.retrieval,
    "reader": train_bases.questions,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bases")
    train_bases.language_model(made / "language")
    train_bases.encoder(made / "encoder")
    for method, write in DATA.items():
        write(made / method)
    return made


def base_of(folder: Path, method: str) -> Path:
    return folder / ("language" if method in ("sft", "dpo", "kto") else "encoder")


def asked(folder: Path, output: Path, method: str, base: Path | None = None, **changes: Any) -> Task:
    return task(output, method, base or base_of(folder, method), folder / method, **changes)


def cut_short(base: Path) -> None:
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:200])


def lost(base: Path) -> None:
    (base / "model.safetensors").unlink()


def of_another_width(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"intermediate_size": 16}))


def of_no_kind(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"model_type": "poem"}))


def without_tokens(base: Path) -> None:
    (base / "tokenizer.json").write_text("{}")


@pytest.mark.parametrize("method", DATA)
def test_a_target_that_the_base_does_not_have_is_named(folder: Path, tmp_path: Path, method: str) -> None:
    wrong = asked(folder, tmp_path, method, lora={"targets": ["q_prj"]})
    refused = r"lora.targets=\[q_prj\] does not fit base=.*; name linear layers of it, or set lora.targets=all-linear"
    with pytest.raises(UsageError, match=refused), explained(wrong):
        method_of(method).trainer(wrong)


@pytest.mark.parametrize("damage", [cut_short, lost, of_another_width, of_no_kind, without_tokens])
@pytest.mark.parametrize("method", ["sft", "embedder", "reranker"])
def test_a_damaged_base_is_named_in_one_line(
    folder: Path, tmp_path: Path, method: str, damage: Callable[[Path], None]
) -> None:
    base = Path(shutil.copytree(base_of(folder, method), tmp_path / "base"))
    damage(base)
    wrong = asked(folder, tmp_path, method, base)
    named = rf"base=.* does not fit method={method} \(\w+: .*\); check its files, or choose"
    with pytest.raises(ModelError, match=named) as refused, explained(wrong):
        method_of(method).trainer(wrong)
    assert "\n" not in str(refused.value)


def test_a_language_model_is_no_base_of_a_reranker(folder: Path, tmp_path: Path) -> None:
    wrong = asked(folder, tmp_path, "reranker", folder / "language")
    with pytest.raises(ModelError, match=r"choose an encoder or a cross-encoder"), explained(wrong):
        method_of("reranker").trainer(wrong)


def test_a_run_says_what_does_not_fit(folder: Path, tmp_path: Path) -> None:
    wrong = asked(folder, tmp_path, "sft", lora={"targets": ["q_prj"]}).config
    with pytest.raises(UsageError, match=r"lora.targets=\[q_prj\] does not fit base="):
        train_alone(wrong)


@pytest.mark.parametrize(
    "error",
    [
        UsageError("rows: too short"),
        TandemError("out of memory: lower it"),
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried"),
        RuntimeError("Gloo: Connection closed by peer"),
        ConnectionResetError("reset by peer"),
        OSError(28, "No space left on device"),
    ],
    ids=repr,
)
def test_what_is_not_of_the_base_passes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from transformers import AutoConfig

    def fail(*given: Any, **named: Any) -> None:
        raise error

    # Called by transformers: it is in a library that the error comes.
    monkeypatch.setattr("transformers.PreTrainedConfig.get_config_dict", fail)
    fine = asked(folder, tmp_path, "sft")
    with pytest.raises(type(error)) as raised, explained(fine):
        AutoConfig.from_pretrained(fine.base)
    assert raised.value is error


def test_a_defect_of_tandems_passes(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyError), explained(asked(folder, tmp_path, "sft")):
        {}["a defect"]
