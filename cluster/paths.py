"""Paths as the user means them: relative to where the command was typed, wherever its workers stand.

Guaranteed: a model or cache given as a relative path means the same on every worker of this machine and in the
manifest. Not guaranteed: that another machine of the cluster has that path.
"""

from __future__ import annotations

from pathlib import Path

from ray_jobs.models.embedder import EmbedderConfig


def anchored(embedder: EmbedderConfig) -> EmbedderConfig:
    """The same embedder, its paths absolute; a name that is no folder here stays a name."""
    folder = Path(embedder.model).expanduser()
    absolute: dict[str, object] = {}
    if folder.is_dir():
        absolute["model"] = str(folder.absolute())
    if embedder.cache is not None:
        absolute["cache"] = embedder.cache.expanduser().absolute()
    return embedder.model_copy(update=absolute)
