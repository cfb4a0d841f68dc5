"""Prometheus reads from Ray's own port what a run has done, under the names that the documentation gives."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest
from ingest_runs import article, ingest, write_jsonl
from waiting import wait_for

import cluster
from ray_jobs.ingest import metrics

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.slow]

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def exported(index: str) -> Figures:
    """The figures of an index, of all nodes, by name and the labels that are ours."""
    import ray

    found: Figures = {}
    for node in ray.nodes():
        with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10) as page:
            text = page.read().decode()
        for name, labels, value in re.findall(r"^(ray_tandem_ingest_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
            own = dict(re.findall(r'(index|stage|reason|le)="([^"]*)"', labels))
            if own.pop("index") == index:
                key = (name, frozenset(own.items()))
                found[key] = found.get(key, 0.0) + float(value)
    return found


def test_a_run_is_exported_with_its_figures(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(2, 60)])
    with source.open("a") as file:
        file.write("{broken\n")
    summary = ingest(tmp_path, source, index="exported", group_bytes=20_000, shards=2, max_failed=0.1)
    read, embed, build = (summary.usage[name] for name in ("read", "embed", "build"))
    of_read, of_embed, of_build = (frozenset({("stage", name)}) for name in ("read", "embed", "build"))
    wanted: Figures = {
        ("ray_tandem_ingest_pieces_total", of_read): read.pieces,
        ("ray_tandem_ingest_pieces_total", of_build): 2,
        ("ray_tandem_ingest_documents_total", of_read): summary.counts.documents,
        ("ray_tandem_ingest_documents_total", of_embed): summary.counts.indexed,
        ("ray_tandem_ingest_chunks_total", of_embed): summary.counts.chunks,
        ("ray_tandem_ingest_chunks_total", of_build): build.chunks,
        ("ray_tandem_ingest_bytes_total", of_read): source.stat().st_size,
        ("ray_tandem_ingest_failures_total", of_read | {("reason", "bad-json")}): 1,
        ("ray_tandem_ingest_piece_seconds_count", of_embed): embed.pieces,
        ("ray_tandem_ingest_stage", of_embed): 0,
        ("ray_tandem_ingest_progress", of_embed): 1,
    }
    wait_for(lambda: wanted.items() <= exported("exported").items(), 60)


def test_every_figure_is_documented() -> None:
    documented = set(re.findall(r"^    (tandem_ingest_\w+)", metrics.__doc__ or "", re.MULTILINE))
    source = Path(metrics.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r'"(tandem_ingest_\w+)"', source)) == documented


def test_the_dashboard_shows_figures_that_there_are() -> None:
    dashboard = (Path(cluster.__file__).parent / "dashboards" / "ingest.json").read_text(encoding="utf-8")
    json.loads(dashboard)
    shown = set(re.findall(r"ray_(tandem_ingest_\w+)", dashboard))
    documented = re.findall(r"^    (tandem_ingest_\w+) +(\w+)", metrics.__doc__ or "", re.MULTILINE)
    suffixes = {"counter": "_total", "histogram": "_bucket", "gauge": ""}
    assert shown == {name + suffixes[kind] for name, kind in documented}
