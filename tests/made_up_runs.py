"""A run as its page sees it, made up: of any size, with any text in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ray_jobs.index.manifest import (
    Counts,
    FileRecord,
    LexicalRecord,
    MadeBy,
    Manifest,
    RecallReport,
    ShardRecord,
    TemplateRecord,
)
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.ingest.dead_letters import DeadLetter
from ray_jobs.ingest.failures import Failures
from ray_jobs.ingest.findings import Findings
from ray_jobs.ingest.report_page import Shown, render
from ray_jobs.ingest.stage_record import Content, Piece, Places, StageRecord
from ray_jobs.ingest.usage import Used
from ray_jobs.models.embedder import EmbedderIdentity


def shard(number: int, rows: int) -> ShardRecord:
    files = {"vectors.f16": FileRecord(key=f"shards/{number}/vectors.f16", size=rows * 768, sha256="0" * 64)}
    return ShardRecord(id=str(number), files=files, rows=rows, dead_rows=rows // 10, documents=rows // 3)


def manifest_of(shards: Sequence[ShardRecord], factory: str = "Flat", model: str = "fake") -> Manifest:
    rows = sum(record.rows for record in shards)
    template = FileRecord(key="template", size=1000, sha256="0" * 64)
    return Manifest(
        index="made-up",
        number=1,
        parent=None,
        embedder=EmbedderIdentity(
            model=model,
            revision="r",
            engine="fake",
            precision="float32",
            dimension=384,
            max_tokens=256,
            normalized=True,
            similarity="cosine",
            query_prompt="",
            document_prompt="",
        ),
        template=TemplateRecord(factory=factory, file=template, metric="inner_product", nprobe=8, trained_on=rows),
        shards=tuple(shards),
        metadata={},
        chunking={},
        cleaning={},
        lexical=LexicalRecord(language="english", chunks=rows, total_length=rows),
        documents=(),
        ledger=(),
        seen=None,
        dead_letters=(),
        counts=Counts(),
        recall=RecallReport(k=10, queries=256, nprobe=8, recall=0.96, target=0.95),
        made_by=MadeBy.now("job", "hash"),
        config={},
    )


def stages_of(workers: int, pieces: int, text: str) -> dict[str, StageRecord]:
    """Three stages, one after the other, of `pieces` each."""
    made = {}
    started = 0.0
    for name, seconds in (("read", 20.0), ("embed", 200.0), ("build", 30.0)):
        stage = made[name] = StageRecord(name, Places(workers, 2.0), pieces)
        for number in range(pieces):
            begin = started + seconds * number / pieces
            length = seconds / pieces * min(workers, pieces) * (0.5 + 0.5 * (number % 7) / 6)
            end = min(begin + length, started + seconds)
            piece = Piece(number, False, 0.0, length, f"{text}:{number % workers}", int(number == 3))
            content = Content(40, 90 if name != "read" else 0, 150_000, 0.8 * length, {text: 1} if number < 3 else {})
            stage.add(piece, content, begin, end)
        stage.spans.append((started, started + seconds))
        started += seconds
    return made


def made_up(text: str, workers: int = 4, pieces: int = 60, letters: int = 30) -> str:
    """The page of a made-up run in which `text` stands wherever a user's text may stand."""
    counts = Counts(
        sources=1200, read=1100, unchanged=90, sources_failed=10, documents=2400, kept=200, indexed=2100,
        filtered={text: 80}, duplicates=120, empty=40, failed=60, chunks=5400,
    )  # fmt: skip
    failures = Failures()
    for number in range(letters):
        failures.add(DeadLetter(text, None, f"row {number}", f"{text}{number % 4}", text))
    measured = [(1, 2, 0.61), (2, 2, 0.78), (4, 2, 0.9), (8, 2, 0.96), (1, 4, 0.7), (2, 4, 0.85), (4, 4, 0.951)]
    findings = Findings(
        counts=counts,
        failures=failures,
        recalls=[
            RecallReport(k=10, queries=256, nprobe=nprobe, oversampling=times, recall=found, target=0.95)
            for nprobe, times, found in measured
        ],
        candidate=manifest_of([shard(n, 1700 + 100 * n) for n in range(3)], "IVF16,SQ8", text),
        duplicates=[text] * 5,
        set_aside=((text, text, text),) * 3,
        empty=[text] * 5,
    )
    stages = stages_of(workers, pieces, text)
    usage = {name: stage.usage() for name, stage in stages.items()}
    shown = Shown(
        title=text,
        refused=None,
        job_id="0000-1111",
        command="ingest",
        began="2026-01-01 00:00:00 UTC",
        seconds=255.0,
        config=IngestConfig(sources=(text,) * 30, index="made-up"),
        stages=stages,
        used=Used.of(usage, 255.0, 8, 1),
        found_before=Counter({"groups read": 3}),
        findings=findings,
        files=lambda number: [text],
    )
    return render(shown)
