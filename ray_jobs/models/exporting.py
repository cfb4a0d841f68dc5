"""A model of the store as a plain folder: for transformers, PEFT or sentence-transformers, or to travel in a package.

Guaranteed: the folder appears whole or not at all, and nothing is overwritten; an adapter names its base by a name that
is known everywhere, or by the absolute path of a local store's own; of another store, by the base's name there, which
is to be exported too. `compact` makes an adapter small: weights in half precision, and no tokeniser where it is that
of the base; the card then says the longest input. Not guaranteed: that a compact adapter gives the very same numbers;
half precision keeps 11 bits.
"""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from ray_jobs.errors import ConflictError, ModelError, StorageError
from ray_jobs.models.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, AdaptedModel
from ray_jobs.models.card import read_card, read_object
from ray_jobs.models.in_store import CARD
from ray_jobs.models.kind import kind_of
from ray_jobs.models.stored import described, opened
from ray_jobs.storage import LocalStorage, Storage, explain_os_error

_TOKENISER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
_OF_NO_USE = ("README.md", "training_args.bin")


def export(storage: Storage, name: str, folder: Path, *, compact: bool = False) -> Path:
    """Copy the model `name` into the new folder `folder`; returns its absolute path.

    Raises NotFoundError where model or base are gone, ConflictError where the folder exists, ModelError for a model
    that is damaged, or is no adapter and should become compact.
    """
    folder = folder.expanduser().absolute()
    if folder.exists():
        raise ConflictError(f"to={folder}: exists already; name a new folder")
    model = opened(storage, described(storage, name)[0])
    if compact and model.adapter is None:
        raise ModelError(f"model {name!r} is whole; only an adapter becomes compact: leave --compact out")
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(model.folder, partial, ignore=shutil.ignore_patterns(*_OF_NO_USE))
        if model.adapter is not None and model.base.origin == "store" and isinstance(storage, LocalStorage):
            _write(partial / ADAPTER_CONFIG, {"base_model_name_or_path": str(model.base.path)})
        if compact:
            make_compact(partial, model)
        partial.rename(folder)
    except OSError as error:
        raise StorageError(f"to={folder}: {explain_os_error(error)}; name a folder that can be written") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def make_compact(folder: Path, model: AdaptedModel) -> None:
    """Take from the adapter in `folder`, a copy of `model`, whatever it can do without."""
    _halve(folder / ADAPTER_WEIGHTS)
    if (folder / _TOKENISER[0]).is_file() and _same_tokens(folder, model.base.path):
        longest = _tokeniser(folder).model_max_length
        for name in _TOKENISER:
            (folder / name).unlink(missing_ok=True)
        if kind_of(folder) in ("reader", "reranker", "embedder"):
            card = read_card(folder)
            (folder / CARD).write_text(json.dumps({**card, "max_tokens": longest}, indent=1), encoding="utf-8")


def _halve(file: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(file)
    save_file(
        {name: weight.half() if weight.dtype == torch.float32 else weight for name, weight in weights.items()},
        file,
        metadata={"format": "pt"},
    )


def _same_tokens(folder: Path, base: Path) -> bool:
    """Whether both tokenisers make the same of every text, but for its length."""
    own, other = _tokeniser(folder), _tokeniser(base)
    facts = ("pad_token_id", "cls_token_id", "padding_side", "model_input_names", "chat_template")
    return _plain(own) == _plain(other) and all(getattr(own, key) == getattr(other, key) for key in facts)


def _tokeniser(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def _plain(tokeniser: Any) -> str:
    from tokenizers import Tokenizer

    found = Tokenizer.from_str(tokeniser.backend_tokenizer.to_str())
    found.no_padding()
    found.no_truncation()
    text: str = found.to_str()
    return text


def _write(file: Path, changes: dict[str, object]) -> None:
    file.write_text(json.dumps({**read_object(file), **changes}, indent=1), encoding="utf-8")
