"""The page about a run, in a real browser: it shows the figures of the run, fetches nothing, and fits every screen."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingest_runs import article, ingest, write_jsonl
from made_up_runs import made_up, manifest_of, shard
from page_browser import DESKTOP, PHONE, Words, opened
from playwright.sync_api import Browser

from ray_jobs.ingest.findings import Findings
from ray_jobs.ingest.report_index import recall, shards

pytest_plugins = ["page_fixtures", "in_process"]

HOSTILE = (
    '</div></style></script><script>document.title="taken"</script><img src=x onerror="document.title=1">&amp;"\'>'
)
LOW_CONTRASTS = (Path(__file__).parent / "page_contrast.js").read_text(encoding="utf-8")


@pytest.fixture
def page_of_a_run(tmp_path: Path, in_process: None) -> tuple[str, dict[str, Any]]:
    """The page of a real run of every kind of document, and its metrics.json."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    file = write_jsonl(folder / "rows.jsonl", [article(n) for n in range(1, 130)] + [{"id": "blank", "text": " "}])
    with file.open("a") as rows:
        rows.write("{broken\n" + json.dumps(article(3)) + "\n")
        rows.write(json.dumps({**article(4), "text": "another text under a taken id"}) + "\n")
    (folder / "picture.xyz").write_bytes(bytes(range(256)))
    settings = {"group_bytes": 20_000, "shards": 3, "index_type": "IVF16,SQ8", "recall_target": 0.9}
    summary = ingest(tmp_path, folder, max_failed=0.2, **settings)
    runs = tmp_path / "store" / "runs" / summary.job_id
    return (runs / "report.html").read_text(), json.loads((runs / "metrics.json").read_text())


def test_the_page_shows_the_figures_of_the_run(
    browser: Browser, tmp_path: Path, page_of_a_run: tuple[str, dict[str, Any]]
) -> None:
    text, metrics = page_of_a_run
    page = opened(browser, tmp_path, text)
    counts = metrics["counts"]
    assert page.title() == "Published snapshot 1 of test"
    facts = dict(zip(page.locator("dt").all_inner_texts(), page.locator("dd").all_inner_texts(), strict=True))
    assert facts["documents indexed"] == f"{counts['indexed']:,}"
    assert facts["chunks"] == f"{counts['chunks']:,}"
    assert facts["index type"] == f"3 shards of IVF16,SQ8, recall@10 {metrics['recall']['recall']:.3f}"

    def figures(title: str) -> dict[str, str]:
        chart = page.locator("figure").filter(has=page.get_by_text(title, exact=True))
        labels, notes = chart.locator(".label").all_inner_texts(), chart.locator(".note b").all_inner_texts()
        return dict(zip(labels, notes, strict=True))

    assert figures("Files") == {"listed": "2", "read": "1", "unchanged, not opened": "0", "failed": "1"}
    assert figures("Documents") == {
        "produced": str(counts["documents"]),
        "failed": str(counts["failed"]),
        "duplicates": str(counts["duplicates"]),
        "without text": str(counts["empty"]),
        "indexed": str(counts["indexed"]),
    }
    stages = figures("Stages")
    total = sum(stage["seconds"] for stage in metrics["usage"].values())
    assert list(stages) == list(metrics["usage"])
    for name, stage in metrics["usage"].items():
        assert stages[name] == f"{stage['seconds']:.1f} s, {stage['seconds'] / total:.0%}"
    assert f"What took longest is {metrics['bottleneck']['stage']}" in page.inner_text("main")
    rows = [int(figure.replace(",", "")) for figure in figures("Live rows of each shard").values()]
    assert (len(rows), sum(rows)) == (metrics["shards"], counts["chunks"])
    failed = dict(re.findall(r"^(bad-json|duplicate-id|unknown-format)\t(\d+)$", page.inner_text("main"), re.MULTILINE))
    assert {reason: int(number) for reason, number in failed.items()} == metrics["reasons"]
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE, {"width": 700, "height": 600}])
def test_the_page_fits_every_width_with_enough_contrast(
    browser: Browser, tmp_path: Path, scheme: Any, viewport: Any
) -> None:
    page = opened(browser, tmp_path, made_up("wordwithoutspaces" * 12), viewport=viewport, color_scheme=scheme)
    for number in range(page.locator("summary").count()):
        page.locator("summary").nth(number).click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(LOW_CONTRASTS) == []
    assert page.get_by_role("img").count() >= 20
    assert all(len(chart.get_attribute("aria-label") or "") > 5 for chart in page.get_by_role("img").all())
    page.close()


def test_hostile_text_is_shown_and_not_obeyed(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, tmp_path, made_up(HOSTILE))
    assert page.title() == HOSTILE
    assert page.locator("script, img, iframe, link").count() == 0
    page.close()


@hypothesis.settings(max_examples=25)
@given(st.text(max_size=40).filter(lambda text: text.strip()))
def test_no_text_becomes_a_tag(text: str) -> None:
    usual = [tag for tag, _ in Words(made_up("word")).tags]
    assert [tag for tag, _ in Words(made_up(text + "<b>")).tags] == usual


def test_the_page_of_a_huge_run_is_small() -> None:
    assert len(made_up("word", workers=5000, pieces=20_000, letters=5000)) < 1_000_000


def test_many_shards_are_shown_by_how_they_are_spread() -> None:
    words = Words(shards(manifest_of([shard(n, 1000 + n) for n in range(500)]))).text
    assert "How many shards hold so many live rows" in words
    counts = [int(number) for number in re.findall(r"<b>([\d,]+)</b>", shards(manifest_of([shard(0, 5)] * 500)))]
    assert counts == [500]


def test_an_exact_index_needs_no_gate() -> None:
    found = Findings(candidate=manifest_of([shard(0, 5)]).model_copy(update={"recall": None}))
    assert "Flat is exact" in Words(recall(found, 0.95)).text
