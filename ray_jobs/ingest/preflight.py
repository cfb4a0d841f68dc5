"""What can be refused before anything is read: a wrong choice of the user's, and a store that cannot be written.

Guaranteed: a language, an index type or a chunk length that cannot be is a UsageError before the first document is
read. Not guaranteed: what depends on the corpus, such as more inverted lists than vectors or a column that no document
has.
"""

from __future__ import annotations

from ray_jobs.corpus.chunking import Chunker
from ray_jobs.errors import NotFoundError, StorageError, UsageError
from ray_jobs.index import layout
from ray_jobs.index.analysis import Analyzer
from ray_jobs.index.factory import check_factory
from ray_jobs.index.manifest import Manifest
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.models.embedder import Embedder
from ray_jobs.runtime import ClusterSize
from ray_jobs.storage import Storage


def check_choices(config: IngestConfig, embedder: Embedder) -> None:
    """Raise UsageError for a choice that this embedder, FAISS or the analyser cannot follow."""
    Analyzer(language=config.language)
    Chunker(config.chunking, embedder.tokenizer, embedder.max_tokens)
    if config.index_type != "auto":
        check_factory(config.index_type.replace("{n}", "1"), embedder.dimension)


def check_resources(config: IngestConfig, cluster: ClusterSize) -> None:
    """Raise UsageError for a named resource that no machine has so much of: Ray would wait for it for ever."""
    for key in ("stage_on", "embed_on", "build_on"):
        for name, amount in getattr(config.resources, key).items():
            most = max(machine.resources.get(name, 0.0) for machine in cluster.each_machine)
            if most < amount:
                named = sorted({name for machine in cluster.each_machine for name in machine.resources})
                known = ", ".join(named) or "(no machine has a named resource)"
                raise UsageError(
                    f"resources.{key}={name}={amount:g}: no machine of the cluster has more than {most:g} of it; "
                    f"expected some of {known}: start a machine that has it (ray start --resources), or ask for less"
                )


def check_masks(before: Manifest | None, config: IngestConfig) -> None:
    """Raise UsageError where texts are stored already that were masked in another way."""
    stored = IngestConfig.model_validate(before.config).mask if before else config.mask
    if set(stored) != set(config.mask):
        raise UsageError(
            f"mask={','.join(config.mask) or '(nothing)'}: index {config.index} holds text that was stored with "
            f"mask={','.join(stored) or '(nothing)'}; ask for the same, or ingest the sources into another index"
        )


def check_writable(storage: Storage, job_id: str) -> None:
    """Write and remove an object of the run's own; raises StorageError for a store that cannot be written."""
    key = f"{layout.run_folder(job_id)}/started"
    try:
        storage.create(key, b"")
        storage.delete(key)
    except NotFoundError:
        raise StorageError(f"store={storage.uri}: nothing can be written there; choose another --store") from None
