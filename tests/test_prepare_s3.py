"""Prepared, indexed and mined from and to an object store, by workers that have nothing else."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import ROOT
from s3_server import s3_server

RUNS = """
import ray
from ray_jobs.ingest import job
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.train import negatives, prepare
from ray_jobs.train.data.config import PrepareConfig
from ray_jobs.train.data.mine_config import MineConfig

store, split = "s3://bucket/store", {"train": 0.6, "validation": 0.2, "test": 0.2}
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
settings = {"inputs": ["s3://bucket/rows"], "name": "toy", "store": store, "split": split, "block_bytes": 4096}
prepared = [prepare.run(PrepareConfig.model_validate(settings)).outcome for _ in range(2)]
job.run(IngestConfig(sources=("s3://bucket/corpus.jsonl",), index="notes", store=store, embedder={"engine": "fake"}))
settings = {"data": "toy", "index": "notes", "name": "mined", "store": store, "num_negatives": 1}
mined = [negatives.run(MineConfig.model_validate(settings)) for _ in range(2)]
print(prepared, [found.outcome for found in mined], mined[0].prepared.card.mining.total.mined)
"""


@pytest.mark.slow
def test_rows_and_store_may_lie_in_a_bucket(tmp_path: Path) -> None:
    words = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(60)]
    rows = [
        {"query": f"what is {word[:9]} {word[9:30]}", "positive": f"{word} says {n}"} for n, word in enumerate(words)
    ]
    corpus = [{"id": f"p{n}", "text": row["positive"]} for n, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(rows[40:]), tmp_path / "b.parquet")
    with s3_server() as bucket:
        bucket.put("rows/a.jsonl.gz", gzip.compress("\n".join(map(json.dumps, rows[:40])).encode()))
        bucket.put("rows/b.parquet", (tmp_path / "b.parquet").read_bytes())
        bucket.put("corpus.jsonl", "\n".join(map(json.dumps, corpus)).encode())
        ended = subprocess.run(
            [sys.executable, "-c", RUNS],
            env={
                **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
                **bucket.environment,
                "PYTHONPATH": str(ROOT),
                "TANDEM_CACHE": str(tmp_path / "cache"),
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert ended.returncode == 0, ended.stderr[-3000:]
        assert ended.stdout.strip() == "['prepared', 'unchanged'] ['mined', 'unchanged'] 60"
        for name in ("toy", "mined"):
            found = {key.rsplit("/", 1)[-1] for key in bucket.found(f"store/datasets/{name}/")}
            assert found >= {"train.parquet", "validation.parquet", "test.parquet", "card.json", "card.md"}
        assert not any("/making/" in key for key in bucket.found())
