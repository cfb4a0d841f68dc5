"""Which version of an index answers, and what is known of it.

Guaranteed: `choose` never goes back to an older version, and goes on to a newer one only when every replica heard from
holds it. Not guaranteed: that a replica not heard from holds it; it says so when it is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from ray_jobs.index.analysis import Analyzer
from ray_jobs.index.filters import Filter
from ray_jobs.index.lexical import LexicalStatistics
from ray_jobs.index.manifest import Manifest
from ray_jobs.index.merge import Ints
from ray_jobs.index.partitions import partitions_of
from ray_jobs.index.quantiser import Floats, Probes, Quantiser
from ray_jobs.index.vocabulary import NOTHING_KNOWN, Vocabulary, together
from serve.messages import Coverage
from serve.partition_messages import PartStatistics, RowsCall, StatisticsCall, Version, VocabularyCall

_VOCABULARY = 200_000  # terms of each shard that are asked for when a version opens, some 100 bytes each
_TERMS_KEPT = 200_000  # document frequencies remembered beside them
_FILTERS_KEPT = 1_000


def choose(current: int | None, held: Sequence[Sequence[Iterable[int]]]) -> int | None:
    """The version to answer from, given those that each replica of each partition holds.

    A partition without a replica has no say. Without any version in common, the current one stays.
    """
    replicas = [set(numbers) for partition in held for numbers in partition]
    common = set.intersection(*replicas) if replicas else set()
    newest = max(common, default=None)
    if current is None or newest is None:
        return current if newest is None else newest
    return max(current, newest)


class ServedVersion:
    """One snapshot as the retriever knows it: its manifest, its partitions, and statistics asked for before."""

    def __init__(self, manifest: Manifest, partitions: int, quantiser: Quantiser | None = None) -> None:
        self.manifest = manifest
        self._quantiser = quantiser
        self.version = Version(manifest.index, manifest.number)
        self.parts = partitions_of(manifest, partitions)
        self.analyzer = Analyzer(language=manifest.lexical.language)
        self._vocabulary = NOTHING_KNOWN
        self._frequencies: dict[str, int] = {}  # of terms that the vocabulary does not know
        self._allowed: dict[str, int] = {}

    @cached_property
    def part_of_shard(self) -> dict[int, int]:
        """The partition of each shard."""
        return {shard: part for part, shards in enumerate(self.parts) for shard in shards}

    def places(self, shards: Ints) -> dict[int, Ints]:
        """The positions in `shards` (n,) that belong to each partition."""
        numbers = np.array([self.part_of_shard[shard] for shard in shards.tolist()], np.int64)
        return {part: np.flatnonzero(numbers == part) for part in np.unique(numbers).tolist()}

    def rows_call(self, shards: Ints, rows: Ints) -> RowsCall:
        """A call for these rows, both (n,)."""
        return RowsCall(self.version, shards, rows)

    def coverage(self, missing: Iterable[int]) -> Coverage:
        """What is left of the snapshot without some partitions; those without a shard are not counted."""
        lost = tuple(sorted(part for part in set(missing) if part < len(self.parts)))
        shards = self.manifest.shards
        total = sum(shard.documents for shard in shards)
        absent = sum(shards[number].documents for part in lost for number in self.parts[part])
        share = 1.0 - absent / total if total else 1.0
        return Coverage(len(self.parts), len(self.parts) - len(lost), share, lost)

    def probes(self, vectors: Floats, nprobe: int | None) -> Probes | None:
        """The lists that queries (b, d) scan in every partition; None where each chooses them itself."""
        if self._quantiser is None or len(self.parts) < 2:
            return None
        return self._quantiser.probe(vectors, nprobe or self.manifest.template.nprobe)

    def vocabulary_call(self) -> VocabularyCall:
        """What every partition is asked when the version opens."""
        return VocabularyCall(self.version, _VOCABULARY)

    def know(self, parts: Sequence[Vocabulary]) -> None:
        """Take the vocabularies of all partitions."""
        self._vocabulary = together(parts, _VOCABULARY)

    def _frequency(self, term: str) -> int | None:
        known = self._vocabulary.of(term)
        return self._frequencies.get(term) if known is None else known

    def unknown(self, terms: Iterable[str], filters: Iterable[Filter]) -> StatisticsCall | None:
        """What must be asked of the partitions; None when everything is known."""
        new_terms = frozenset(term for term in terms if self._frequency(term) is None)
        new_filters = {str(where): where for where in filters if str(where) not in self._allowed}
        if not new_terms and not new_filters:
            return None
        return StatisticsCall(self.version, new_terms, tuple(new_filters.values()))

    def learn(self, call: StatisticsCall, parts: Sequence[PartStatistics]) -> None:
        """Remember the sum of what every partition answered to `call`."""
        if len(self._frequencies) > _TERMS_KEPT or len(self._allowed) > _FILTERS_KEPT:
            # Rare, and cheap to ask again: simpler than keeping track of which were used last.
            self._frequencies, self._allowed = {}, {}
        total = summed(parts, len(call.filters))
        self._frequencies |= {term: total.lexical.document_frequency.get(term, 0) for term in call.terms}
        self._allowed |= {str(where): count for where, count in zip(call.filters, total.allowed, strict=True)}

    def lexical(self, terms: Iterable[str], partial: LexicalStatistics) -> LexicalStatistics:
        """Statistics of `terms`; what is not known comes from `partial`, the answer of some partitions."""
        record = self.manifest.lexical
        frequencies = {}
        for term in sorted(set(terms)):
            known = self._frequency(term)
            frequencies[term] = partial.document_frequency.get(term, 0) if known is None else known
        return LexicalStatistics(record.chunks, record.total_length, frequencies)

    def allowed(self, where: Filter, partial: int) -> int:
        """How many rows pass `where`; `partial` when only some partitions have said so."""
        return self._allowed.get(str(where), partial)


def summed(parts: Sequence[PartStatistics], filters: int) -> PartStatistics:
    """The statistics of several partitions together."""
    lexical = LexicalStatistics()
    allowed = [0] * filters
    for part in parts:
        lexical += part.lexical
        allowed = [known + more for known, more in zip(allowed, part.allowed, strict=True)]
    return PartStatistics(lexical, tuple(allowed))
