"""The two facts that a reader's card holds for whoever runs it: when it answers, and what it was trained on.

`card.json` lies beside the weights. `threshold` is the margin over "no answer" from which a span counts as one.
`base` names the base of an adapter and its revision. Guaranteed: a card that contradicts itself or its base is a
ModelError of one line. Not guaranteed: that there is a card; models from elsewhere have none.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from ray_jobs.errors import ModelError
from ray_jobs.models.adapter import AdaptedModel

CARD = "card.json"


def threshold_of(model: AdaptedModel) -> float | None:
    """The threshold that the card of the model, or of its adapter, gives; None without one."""
    file = (model.adapter or model.base).path / CARD
    found = _read(file).get("threshold")
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise ModelError(f"{str(file)!r} has threshold={found!r}, expected a number: publish the model again")
    return float(found)


def check_base(model: AdaptedModel) -> None:
    """Raise ModelError if the card of an adapter names another revision of its base than the one that was found."""
    if model.adapter is None:
        return
    base = _read(model.adapter.path / CARD).get("base")
    trained_on = base.get("revision") if isinstance(base, dict) else None
    found = model.base.revision
    # A hash of files and a commit of the hub may name the same content: only two of a kind can be told apart.
    if isinstance(trained_on, str) and len(trained_on) == len(found) and trained_on != found:
        raise ModelError(
            f"adapter {model.name!r} was trained on revision {trained_on} of its base, but {model.base.name!r} in "
            f"{str(model.base.path)!r} has revision {found}: put the base it was trained on in its place"
        )


def _read(file: Path) -> dict[str, object]:
    """A JSON object; empty if there is no such file."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{str(file)!r} is not JSON ({error}): publish the model again") from error
    return content if isinstance(content, dict) else {}
