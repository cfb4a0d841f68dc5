"""The demo, as `make demo` runs it: offline, in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import ROOT, TANDEM

from cluster.demo import COMMANDS, INDEX

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


def test_the_demo_answers_with_exact_quotes_by_the_models_that_tandem_carries(tmp_path: Path) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("TANDEM_", "RAY_ADDRESS"))}
    environment = {**own, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "TANDEM_CACHE": str(tmp_path / "cache")}

    def typed(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = typed(sys.executable, "-m", "cluster.demo")
    assert shown.count("\n$ tandem ") == len(COMMANDS)
    question = "How does Ray Serve scale the number of replicas?"
    assert any(question in command for command in COMMANDS)
    found = json.loads(typed(*TANDEM, "ask", question, "--index", INDEX, "--json"))
    assert found["grounded"]
    documents = pa.concat_tables(
        pq.read_table(file, columns=["doc_id", "text"])
        for file in (tmp_path / "tandem-store" / "indexes" / INDEX / "documents").glob("*.parquet")
    )
    texts = dict(zip(*(documents.column(name).to_pylist() for name in ("doc_id", "text")), strict=True))
    for citation in found["citations"]:
        assert texts[citation["doc_id"]][citation["start"] : citation["end"]] == citation["quote"]
    # The reranker took its time, and the reader found a span within the sentence that is quoted behind it.
    assert found["timings"]["rerank"] > 0
    span, sentence = found["citations"][:2]
    assert span["quote"] != sentence["quote"]
    assert span["quote"] in sentence["quote"]
