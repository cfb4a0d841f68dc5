"""Converting a sentence-transformers model to OpenVINO once, and keeping the result.

A converted model is a folder of the cache: the graph from token ids to sentence embeddings (transformer, pooling and
all later modules), `tokenizer.json` and `spec.json`, so that an engine starts without importing torch. Guaranteed: the
folder appears whole or not at all, whatever number of processes convert at the same time; before it is kept, the graph
was compared with torch on texts of different length. Not covered: pooling that leaves the prompt out (ModelError).
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ray_jobs.errors import CorruptError, ModelError, StorageError
from ray_jobs.models.engine import EncoderSpec
from ray_jobs.models.openvino_runtime import load_openvino
from ray_jobs.models.resolve import ResolvedModel

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

GRAPH, TOKENIZER, SPEC = "model.xml", "tokenizer.json", "spec.json"
# Raised when what this module writes changes, so that older folders are left alone.
_FORMAT = 1
_LEAST_COSINE = 0.99999


def cache_folder(cache: Path | None) -> Path:
    """`cache` itself, or `tandem/models` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    if cache is not None:
        return cache
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tandem" / "models"


def converted(model: ResolvedModel, cache: Path | None = None) -> Path:
    """The folder of the converted model, converting it if the cache has none.

    Raises ModelError when the architecture cannot be converted or the converted graph disagrees with torch,
    StorageError when the cache cannot be written.
    """
    build = load_openvino().get_version().split("-")[0]
    target = cache_folder(cache) / f"{model.revision[:40]}-openvino-{build}-{_FORMAT}"
    if (target / SPEC).is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".converting-", dir=target.parent))
    except OSError as error:
        raise StorageError(
            f"cache={str(target.parent)!r} cannot be written ({error.strerror}): set cache to a folder that can"
        ) from error
    try:
        _convert(model, draft)
        _publish(draft, target)
    except OSError as error:
        raise StorageError(
            f"converted model cannot be written to cache={str(target.parent)!r} ({error.strerror}): free some space "
            "or set cache to another folder"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def read_spec(folder: Path) -> EncoderSpec:
    """The specification kept beside a converted model; CorruptError when it cannot be read."""
    try:
        return EncoderSpec(**json.loads((folder / SPEC).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CorruptError(
            f"converted model {str(folder)!r} has no readable {SPEC}: delete the folder and it is made again"
        ) from error


def _publish(draft: Path, target: Path) -> None:
    draft.chmod(0o755)
    try:
        draft.rename(target)
    except OSError:
        # Another process converted the same model meanwhile: its folder is as good.
        if not (target / SPEC).is_file():
            raise


def _convert(model: ResolvedModel, folder: Path) -> None:
    from ray_jobs.models.sentence_model import describe, load_sentence_model, quiet_transformers, tokenizer_json

    loaded = load_sentence_model(model, "cpu")
    spec = describe(loaded, model.name)
    if not spec.pools_prompt:
        raise ModelError(f"model {model.name!r} leaves its prompt out of pooling, which OpenVINO cannot: engine=torch")
    probe = _probe(spec, int(loaded[0].config.vocab_size))
    with quiet_transformers():
        graph, expected = _trace(loaded, spec, probe, model.name)
    load_openvino().save_model(graph, folder / GRAPH, compress_to_fp16=False)
    _compare(folder / GRAPH, probe, expected, model.name)
    (folder / TOKENIZER).write_text(tokenizer_json(loaded), encoding="utf-8")
    (folder / SPEC).write_text(json.dumps(dataclasses.asdict(spec), indent=1), encoding="utf-8")


def _probe(spec: EncoderSpec, vocabulary: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows, width = 3, min(24, spec.max_tokens)
    ids = np.random.default_rng(0).integers(0, vocabulary, (rows, width), dtype=np.int64)
    mask = np.ones_like(ids)
    for row in range(1, rows):
        cut = width * row // (rows + 1)
        mask[row, slice(0, cut) if spec.pad_left else slice(width - cut, width)] = 0
    ids[ids == spec.pad_id] = (spec.pad_id + 1) % vocabulary
    ids[mask == 0] = spec.pad_id
    return ids, mask


def _trace(
    model: SentenceTransformer, spec: EncoderSpec, probe: tuple[NDArray[np.int64], NDArray[np.int64]], name: str
) -> tuple[Any, NDArray[np.float32]]:
    import torch

    from ray_jobs.models.sentence_model import run_modules

    class Pipeline(torch.nn.Module):  # type: ignore[misc]  # torch is not followed by mypy, so its classes are Any
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            if spec.segments:
                features["token_type_ids"] = torch.zeros_like(input_ids)
            return run_modules(self.model, features)

    ids, mask = (torch.from_numpy(part) for part in probe)
    example = {"input_ids": ids, "attention_mask": mask}
    pipeline, openvino = Pipeline().eval(), load_openvino()
    try:
        # Tracing warns of every Python condition it fixes; whether it fixed them rightly is compared afterwards.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            expected: NDArray[np.float32] = pipeline(ids, mask).numpy()
            graph = openvino.convert_model(pipeline, example_input=example)
            graph.reshape({port.any_name: openvino.PartialShape([-1, -1]) for port in graph.inputs})
    except Exception as error:
        # The converter raises whatever the architecture provokes.
        raise ModelError(
            f"model {name!r} cannot be converted to OpenVINO ({type(error).__name__}): use engine=torch"
        ) from error
    return graph, expected


def _compare(
    graph: Path, probe: tuple[NDArray[np.int64], NDArray[np.int64]], expected: NDArray[np.float32], name: str
) -> None:
    from ray_jobs.models.openvino_engine import OpenVinoEngine

    engine = OpenVinoEngine(graph, "float32", threads=1)
    # Rows of several lengths together, and one row alone without padding.
    for rows in (slice(0, 3), slice(0, 1)):
        found = engine.run(probe[0][rows], probe[1][rows])
        cosine = (found * expected[rows]).sum(1) / (
            np.linalg.norm(found, axis=1) * np.linalg.norm(expected[rows], axis=1)
        )
        if not (cosine >= _LEAST_COSINE).all():
            raise ModelError(
                f"model {name!r} converted to OpenVINO disagrees with torch (cosine {cosine.min():.6f}, expected at "
                f"least {_LEAST_COSINE}): use engine=torch"
            )
