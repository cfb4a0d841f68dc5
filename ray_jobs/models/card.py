"""The card of a model: what `card.json` beside its weights says to whoever runs it.

    kind         what it is for: generator, embedder, reranker or reader
    base         {"name", "revision"}: what an adapter was trained on
    threshold    of a reader: the margin over "no answer" from which a span counts as one
    max_tokens   the longest input it was trained on, where it lies there without a tokeniser of its own

Guaranteed: a card that is no JSON, contradicts itself or names another base is a ModelError of one line. Not
guaranteed: that there is a card; models from elsewhere have none.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ray_jobs.errors import ModelError
from ray_jobs.models.adapter import AdaptedModel
from ray_jobs.models.in_store import CARD


def read_card(folder: Path) -> dict[str, Any]:
    """The card of the model in `folder`; empty where there is none."""
    return read_object(folder / CARD)


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file, or another thing in it."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{str(file)!r} is not JSON ({error}): download, save or publish the model again") from error
    return content if isinstance(content, dict) else {}


def architectures(folder: Path) -> list[str]:
    """Names of the classes of Hugging Face whose weights a folder holds."""
    return list(read_object(folder / "config.json").get("architectures") or [])


def threshold_of(model: AdaptedModel) -> float | None:
    """The threshold that the card of the model, or of its adapter, gives; None without one."""
    found = read_card(model.folder).get("threshold")
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise ModelError(
            f"{str(model.folder / CARD)!r} has threshold={found!r}, expected a number: publish the model again"
        )
    return float(found)


def max_tokens_of(model: AdaptedModel) -> int | None:
    """The longest input that the card of the model, or of its adapter, gives; None without one."""
    found = read_card(model.folder).get("max_tokens")
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise ModelError(
            f"{str(model.folder / CARD)!r} has max_tokens={found!r}, expected a number of tokens: publish the model "
            "again"
        )
    return found


def check_base(model: AdaptedModel) -> None:
    """Raise ModelError if the card of an adapter names another revision of its base than the one that was found."""
    if model.adapter is None:
        return
    base = read_card(model.adapter.path).get("base")
    trained_on = base.get("revision") if isinstance(base, dict) else None
    found = model.base.revision
    # A hash of files and a commit of the hub may name the same content: only two of a kind can be told apart.
    if isinstance(trained_on, str) and len(trained_on) == len(found) and trained_on != found:
        raise ModelError(
            f"adapter {model.name!r} was trained on revision {trained_on} of its base, but {model.base.name!r} in "
            f"{str(model.base.path)!r} has revision {found}: put the base it was trained on in its place"
        )
