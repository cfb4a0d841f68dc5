"""What an ingest run counts, exported to Prometheus by Ray itself.

    tandem_ingest_pieces         counter     index, stage            groups, shards and partitions finished
    tandem_ingest_documents      counter     index, stage            documents in them
    tandem_ingest_chunks         counter     index, stage            chunks in them
    tandem_ingest_bytes          counter     index, stage            bytes of sources, of text, of shards
    tandem_ingest_failures       counter     index, stage, reason    documents and files that failed
    tandem_ingest_piece_seconds  histogram   index, stage            time of a piece in its worker
    tandem_ingest_stage          gauge       index, stage            1 while the stage goes on, else 0
    tandem_ingest_progress       gauge       index, stage            share of its pieces that are finished, 0 to 1

Ray puts `ray_` before every name, and `_total` behind those of counters. All are counted by the process that drives
the run, from what its workers return: each piece once, whatever was tried again; those that an earlier run had finished
count for the progress alone. Guaranteed: nothing that a user wrote is a label, but for the name of the index. Not
guaranteed: the last seconds of a Ray that ends with its run; the sum of a histogram, which Ray reckons from its bounds.
"""

from __future__ import annotations

from ray_jobs.ingest.stage_record import Content, Piece, StageRecord

_SECONDS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]


def metrics_of(index: str) -> IngestMetrics | None:
    """The figures of a run that writes to this index; None where no Ray is there to export them."""
    import ray

    return IngestMetrics(index) if ray.is_initialized() else None


class IngestMetrics:
    """Figures of one run."""

    def __init__(self, index: str) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        keys = ("index", "stage")
        self._index = index
        self._pieces = Counter("tandem_ingest_pieces", "Groups, shards and partitions finished", tag_keys=keys)
        self._amounts = {
            "documents": Counter("tandem_ingest_documents", "Documents in finished pieces", tag_keys=keys),
            "chunks": Counter("tandem_ingest_chunks", "Chunks in finished pieces", tag_keys=keys),
            "bytes": Counter("tandem_ingest_bytes", "Bytes in finished pieces", tag_keys=keys),
        }
        self._failures = Counter("tandem_ingest_failures", "What failed", tag_keys=(*keys, "reason"))
        self._seconds = Histogram(
            "tandem_ingest_piece_seconds", "Time of a piece in its worker", boundaries=_SECONDS, tag_keys=keys
        )
        self._stage = Gauge("tandem_ingest_stage", "Whether the stage goes on", tag_keys=keys)
        self._progress = Gauge("tandem_ingest_progress", "Share of the stage that is finished", tag_keys=keys)

    def began(self, stage: str) -> None:
        """A stage goes on."""
        self._stage.set(1, tags=self._tags(stage))

    def ended(self, stage: str) -> None:
        """A stage is over."""
        self._stage.set(0, tags=self._tags(stage))

    def finished(self, stage: StageRecord, piece: Piece, content: Content) -> None:
        """A piece is finished."""
        tags = self._tags(stage.name)
        self._progress.set(min(1.0, stage.done / max(1, stage.expected)), tags=tags)
        if piece.found:
            return
        self._pieces.inc(tags=tags)
        self._seconds.observe(piece.seconds, tags=tags)
        for name, counter in self._amounts.items():
            if amount := getattr(content, name):
                counter.inc(amount, tags=tags)
        for reason, number in content.failed.items():
            if number:
                self._failures.inc(number, tags={**tags, "reason": reason})

    def _tags(self, stage: str) -> dict[str, str]:
        return {"index": self._index, "stage": stage}
