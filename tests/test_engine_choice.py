from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import tiny_model

from ray_jobs.errors import CorruptError, ModelError, NotFoundError, StorageError, UsageError
from ray_jobs.models import engine_choice, openvino_ir
from ray_jobs.models.embedder import Embedder, EmbedderConfig, choose_engine
from ray_jobs.models.loading import load_encoder
from ray_jobs.models.resolve import ResolvedModel, resolve


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """A machine with a GPU or without, and with bfloat16 or without."""
    has = {"cuda": False, "cpu bfloat16": False, "cuda bfloat16": True}
    monkeypatch.setattr(engine_choice, "cuda_available", lambda: has["cuda"])
    monkeypatch.setattr(engine_choice, "cpu_has_bfloat16", lambda: has["cpu bfloat16"])
    monkeypatch.setattr(engine_choice, "cuda_has_bfloat16", lambda: has["cuda bfloat16"])
    return has


def chosen(config: EmbedderConfig) -> tuple[str, str, str]:
    concrete = choose_engine(config)
    return concrete.engine, concrete.precision, concrete.device


@pytest.mark.parametrize(("bfloat16", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_a_cpu_gets_openvino_in_the_best_precision_it_has(
    tiny: Path, tmp_path: Path, machine: dict[str, bool], bfloat16: bool, precision: str
) -> None:
    machine["cpu bfloat16"] = bfloat16
    assert chosen(EmbedderConfig(model=str(tiny), cache=tmp_path)) == ("openvino", precision, "cpu")


def test_a_gpu_gets_torch_in_bfloat16(machine: dict[str, bool]) -> None:
    machine["cuda"] = True
    assert chosen(EmbedderConfig()) == ("torch", "bfloat16", "cuda")


def test_a_model_that_does_not_convert_gets_torch(
    tiny: Path, machine: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: ResolvedModel, cache: Path | None) -> Path:
        raise ModelError("cannot be converted")

    monkeypatch.setattr(engine_choice, "converted", refuse)
    assert chosen(EmbedderConfig(model=str(tiny))) == ("torch", "float32", "cpu")


def test_what_the_user_sets_is_kept(machine: dict[str, bool]) -> None:
    machine.update({"cuda": True, "cpu bfloat16": True})
    config = EmbedderConfig(engine="torch", precision="float32", device="cpu", threads=3, max_tokens=99)
    assert choose_engine(config) == config


def test_openvino_is_never_put_on_a_gpu(machine: dict[str, bool]) -> None:
    machine["cuda"] = True
    assert choose_engine(EmbedderConfig(engine="openvino")).device == "cpu"


@pytest.mark.parametrize("setting", [{"device": "cuda"}, {"precision": "bfloat16", "engine": "torch"}])
def test_what_the_machine_lacks_is_refused(machine: dict[str, bool], setting: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(setting))):
        choose_engine(EmbedderConfig.model_validate(setting))


def test_an_unknown_model_is_not_taken_for_one_that_does_not_convert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NotFoundError):
        choose_engine(EmbedderConfig(model="no-such/model"))


def test_loading_leaves_nothing_to_choose() -> None:
    with pytest.raises(UsageError, match="choose_engine"):
        load_encoder(EmbedderConfig(engine="torch"))


def test_a_model_is_converted_once(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = openvino_ir.converted(resolve(str(tiny)), tmp_path)
    monkeypatch.setattr(openvino_ir, "_convert", lambda *_: pytest.fail("converted again"))
    assert openvino_ir.converted(resolve(str(tiny)), tmp_path) == first
    assert sorted(file.name for file in first.iterdir()) == ["model.bin", "model.xml", "spec.json", "tokenizer.json"]


def test_a_conversion_that_fails_leaves_nothing(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_ir, "_LEAST_COSINE", 1.1)
    with pytest.raises(ModelError, match="disagrees with torch"):
        openvino_ir.converted(resolve(str(tiny)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_that_convert_at_once_both_get_a_model(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert, model = openvino_ir._convert, resolve(str(tiny))

    def convert_while_another_finishes(model: ResolvedModel, folder: Path) -> None:
        monkeypatch.setattr(openvino_ir, "_convert", convert)
        openvino_ir.converted(model, tmp_path)
        convert(model, folder)

    monkeypatch.setattr(openvino_ir, "_convert", convert_while_another_finishes)
    folder = openvino_ir.converted(model, tmp_path)
    assert [folder] == list(tmp_path.iterdir())


def test_a_pooling_that_openvino_cannot_do_is_refused_by_name(tmp_path: Path) -> None:
    path = tiny_model(tmp_path, include_prompt=False, prompts={"query": "find: ", "document": ""})
    with pytest.raises(ModelError, match="engine=torch"):
        Embedder.load(EmbedderConfig(model=str(path), engine="openvino", cache=tmp_path / "cache"))


def test_a_damaged_converted_model_says_what_to_delete(tiny: Path, tmp_path: Path) -> None:
    folder = openvino_ir.converted(resolve(str(tiny)), tmp_path)
    (folder / "model.xml").write_text("<net")
    with pytest.raises(CorruptError, match="delete the folder"):
        Embedder.load(EmbedderConfig(model=str(tiny), engine="openvino", cache=tmp_path))


def test_a_model_that_does_not_load_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-architecture"}')
    with pytest.raises(ModelError) as caught:
        Embedder.load(EmbedderConfig(model=str(tmp_path), engine="torch"))
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_named(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="set cache"):
        openvino_ir.converted(resolve(str(tiny)), tmp_path / "file" / "cache")


def test_the_cache_lies_in_the_user_s_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", str(tmp_path))
    assert openvino_ir.cache_folder(None) == tmp_path / "tandem" / "models"


def test_openvino_reports_its_use_to_no_one() -> None:
    program = (
        "from ray_jobs.models.openvino_runtime import load_openvino\n"
        "load_openvino()\n"
        "from openvino.tools import ovc\n"
        "assert type(ovc.telemetry).__module__ == 'openvino.tools.ovc.telemetry_stub', type(ovc.telemetry)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
