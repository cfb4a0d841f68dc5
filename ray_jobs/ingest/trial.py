"""A run in small: the real stages over a random sample of the sources, in a folder that goes with it.

Guaranteed: parts of the sources are drawn with a chance that grows with their size, the same ones each time. Vectors
are made up, since they are as large as any; the embedder is timed by itself, on some of the texts. Nothing is written
to the store. Not guaranteed: that a sample is like the whole.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ray_jobs.corpus import metadata
from ray_jobs.corpus.apart import Reader
from ray_jobs.corpus.metadata import Schema
from ray_jobs.corpus.planning import SourcePart, pack
from ray_jobs.corpus.readers import parts_of
from ray_jobs.corpus.sources import SourceFile
from ray_jobs.corpus.tokens import Tokenizer
from ray_jobs.index import layout
from ray_jobs.index.factory import IndexType
from ray_jobs.index.manifest import FileRecord
from ray_jobs.index.template import train
from ray_jobs.ingest.build import ShardBuilder
from ray_jobs.ingest.changes import Changes
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.ingest.decide import DROPPED_SCHEMA
from ray_jobs.ingest.embed import DocumentEmbedder, GroupEmbedder
from ray_jobs.ingest.plan import SMALLEST_GROUP, plan_shards
from ray_jobs.ingest.receipts import EmbeddedGroup, StagedGroup
from ray_jobs.ingest.stage import Reading, Stager
from ray_jobs.storage import LocalStorage, sha256_of

DRAWS = 4_096  # of parts, at most
SOURCE_BYTES = 1 << 20  # at which no further part is drawn
GROUP_BYTES = 1 << 19
SLICE = 128  # texts that are timed at a time
SLICES = 5
TIMED_SECONDS = 10.0  # after which no further slice is timed
WARMING = 48  # texts that the engine sees before
_NAME = "trial"


@dataclass(frozen=True)
class Trial:
    """What the sample came to."""

    source_bytes: int
    documents: int
    chunks: int
    text_bytes: int  # of rows and vectors, as the bound on a shard counts them
    sizes: dict[str, int]  # bytes in the store by role: documents, ledger, and the files of a shard
    seconds: dict[str, float]  # of one worker: read, prepare, build, hash
    chunks_per_second: float  # of one embedder, once warm; 0 without a chunk


@dataclass
class _Listening:
    """An embedder that makes vectors up, and remembers texts."""

    embedder: DocumentEmbedder
    texts: list[str] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @property
    def tokenizer(self) -> Tokenizer:
        return self.embedder.tokenizer

    @property
    def max_tokens(self) -> int:
        return self.embedder.max_tokens

    @property
    def dimension(self) -> int:
        return self.embedder.dimension

    def encode_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.texts += texts
        vectors = self.rng.standard_normal((len(texts), self.dimension), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


def run(config: IngestConfig, changes: Changes, embedder: DocumentEmbedder) -> Trial:
    """Stage, embed and build a sample of the files that are to be read."""
    with tempfile.TemporaryDirectory(prefix="tandem-trial-") as folder:
        storage = LocalStorage(Path(folder))
        staged, size, read = _stage(storage, changes, config)
        schema: Schema = {}
        for group in staged:
            schema = metadata.merge(schema, group.metadata)
        listening = _Listening(embedder)
        embedded = _embed(storage, config, staged, listening, schema)
        seconds = {"read": read, "prepare": sum(group.seconds - group.forward_seconds for group in embedded)}
        sizes = {
            "documents": sum(group.documents.size for group in staged),
            "ledger": sum(storage.local(group.ledger_key).stat().st_size for group in embedded),
        }
        sizes |= _build(storage, config, embedded, schema, embedder.dimension, seconds)
    return Trial(
        source_bytes=size,
        documents=sum(group.produced for group in staged),
        chunks=sum(group.rows for group in embedded),
        text_bytes=sum(group.bytes for group in embedded),
        sizes=sizes,
        seconds=seconds,
        chunks_per_second=_speed(embedder, listening.texts),
    )


def _stage(storage: LocalStorage, changes: Changes, config: IngestConfig) -> tuple[list[StagedGroup], int, float]:
    """Staged parts of the sources, the bytes of the sources that they are, and the seconds that it took."""
    reading = Reading(config.filters, config.mask, config.limits)
    stager = Stager(storage, _NAME, layout.work(_NAME, 0), 1, reading)
    parts = list(_draw(changes, min(config.group_bytes, SMALLEST_GROUP)))
    groups = list(pack(parts, min(config.group_bytes, GROUP_BYTES)))
    with closing(Reader(config.limits)) as reader:
        for part in {part.file.format: part for part in parts}.values():
            list(reader.read(part))  # a parser is loaded once, however much there is to read
        started = time.monotonic()
        staged = [stager.stage(number, group, reader) for number, group in enumerate(groups)]
        return staged, sum(part.size for part in parts), time.monotonic() - started


def _draw(changes: Changes, max_bytes: int) -> Iterator[SourcePart]:
    """Parts of the files at random, each once; a file is drawn by its size."""
    rng = np.random.default_rng(0)
    drawn_files = _draw_files(changes, rng)
    parts_of_file: dict[str, list[SourcePart]] = {}
    drawn: set[tuple[str, int]] = set()
    size = 0
    for place in rng.permutation(len(drawn_files)).tolist():
        if size >= SOURCE_BYTES:
            return
        file = drawn_files[place]
        if file.uri not in parts_of_file:
            parts_of_file[file.uri] = parts_of(file, max_bytes)
        number = int(rng.integers(len(parts_of_file[file.uri])))
        if (file.uri, number) not in drawn:
            drawn.add((file.uri, number))
            size += parts_of_file[file.uri][number].size
            yield parts_of_file[file.uri][number]


def _draw_files(changes: Changes, rng: np.random.Generator) -> list[SourceFile]:
    """DRAWS files at random, in their order, each as often as it is drawn; they are passed over once."""
    places = np.sort(rng.random(DRAWS)) * (changes.bytes + changes.fresh)
    drawn: list[SourceFile] = []
    end = 0
    for file in changes.to_read():
        end += file.size + 1
        drawn += [file] * (int(np.searchsorted(places, end)) - len(drawn))
    return drawn


def _embed(
    storage: LocalStorage, config: IngestConfig, staged: Sequence[StagedGroup], listening: _Listening, schema: Schema
) -> list[EmbeddedGroup]:
    groups = GroupEmbedder(storage, _NAME, layout.work(_NAME, 0), 1, listening, config.chunking, schema)
    return list(groups.embed_all((group, DROPPED_SCHEMA.empty_table()) for group in staged))


def _speed(embedder: DocumentEmbedder, texts: Sequence[str]) -> float:
    """Texts a second of an embedder that has nothing beside it: the median of some slices; 0 without a text."""
    if not texts:
        return 0.0
    order = np.random.default_rng(0).permutation(len(texts)).tolist()
    embedder.encode_documents([texts[place] for place in order[:WARMING]])
    rates: list[float] = []
    begun = time.monotonic()
    for first in range(0, min(len(order), SLICE * SLICES), SLICE):
        some = [texts[place] for place in order[first : first + SLICE]]
        started = time.monotonic()
        embedder.encode_documents(some)
        rates.append(len(some) / (time.monotonic() - started))
        if time.monotonic() - begun > TIMED_SECONDS:
            break
    return statistics.median(rates)


def _build(
    storage: LocalStorage,
    config: IngestConfig,
    embedded: Sequence[EmbeddedGroup],
    schema: Schema,
    dimension: int,
    seconds: dict[str, float],
) -> dict[str, int]:
    """Build one exact shard of the groups; adds how long it took, and how long its files take to be hashed."""
    if not sum(group.rows for group in embedded):
        return {}
    with storage.scratch() as folder:
        path = folder / "template.faiss"
        train(IndexType("Flat", ""), np.empty((0, dimension), np.float32), dimension, path)
        template = FileRecord(key=layout.template(_NAME, sha256_of(path)), size=0, sha256=sha256_of(path))
        storage.upload(template.key, path)
    builder = ShardBuilder(storage, _NAME, template, schema, dimension, config.language)
    started = time.monotonic()
    record = builder.build(plan_shards(embedded, 1)[0]).record
    built = time.monotonic()
    for file in record.files.values():
        sha256_of(storage.local(file.key))
    seconds |= {"build": built - started, "hash": time.monotonic() - built}
    return {name: file.size for name, file in record.files.items()}
