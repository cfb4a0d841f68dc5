"""The record of a run: what is told while it goes on is what has happened, and what it comes to is found again."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from ingest_runs import article, ingest, live, write_jsonl

from ray_jobs.errors import NotFoundError, RejectedError, StorageError
from ray_jobs.ingest import dispatch, job, pieces
from ray_jobs.ingest.config import IngestConfig
from ray_jobs.ingest.delete import DeleteConfig
from ray_jobs.ingest.delete import run as delete
from ray_jobs.ingest.report import last
from ray_jobs.storage import LocalStorage
from ray_jobs.storage.journal import read_lines

pytest_plugins = ["in_process"]
pytestmark = pytest.mark.usefixtures("in_process")

Capsys = pytest.CaptureFixture[str]
DIVIDED = {"group_bytes": 20_000, "shards": 3}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [article(n) for n in range(2, 60)] + [article(3), {"id": "blank", "text": ""}]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    with file.open("a") as stream:
        stream.write("{broken\n")
    return file


def events_of(folder: Path, job_id: str) -> list[dict[str, Any]]:
    lines = read_lines(LocalStorage(folder / "store"), f"runs/{job_id}/events.jsonl")
    return [json.loads(line) for line in lines]


def jobs(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "store" / "runs").iterdir())


def test_the_events_add_up_to_what_the_summary_says(tmp_path: Path, source: Path) -> None:
    summary = ingest(tmp_path, source, max_failed=0.1, **DIVIDED)
    events = events_of(tmp_path, summary.job_id)
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    assert (events[0]["event"], events[0]["command"], events[-1]["event"]) == ("run", "ingest", "published")
    told = [event for event in events if event["event"] == "piece"]
    assert len({(piece["stage"], piece["number"]) for piece in told}) == len(told)
    read = [piece for piece in told if piece["stage"] == "read"]
    embedded = [piece for piece in told if piece["stage"] == "embed"]
    assert len(read) > 2
    assert sum(piece["documents"] for piece in read) == summary.counts.documents
    assert sum(piece["bytes"] for piece in read) == source.stat().st_size
    assert sum(piece.get("chunks", 0) for piece in embedded) == summary.counts.chunks
    failed: Counter[str] = sum((Counter(piece.get("failed", {})) for piece in told), Counter())
    assert failed == summary.reasons == {"bad-json": 1}
    for name, usage in summary.usage.items():
        own = [piece for piece in told if piece["stage"] == name]
        assert usage.pieces + usage.found == len(own)
        assert usage.busy_seconds == pytest.approx(sum(piece["seconds"] for piece in own), abs=0.01 * len(own))
        assert next(event["event"] for event in events if event.get("stage") == name) == "begin"
        (end,) = [event for event in events if event["event"] == "end" and event["stage"] == name]
        assert end["seconds"] == pytest.approx(summary.seconds[name], abs=0.002)


def test_the_events_of_a_run_can_be_read_while_it_goes_on(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[dict[str, Any]]] = []
    real = dispatch.decide

    def looking(*arguments: Any, **named: Any) -> Any:
        seen.append(events_of(tmp_path, *jobs(tmp_path)))
        return real(*arguments, **named)

    monkeypatch.setattr(dispatch, "decide", looking)
    ingest(tmp_path, source, max_failed=0.1, **DIVIDED)
    (events,) = seen
    assert (events[-1]["event"], events[-1]["stage"]) == ("end", "read")
    assert sum(event.get("documents", 0) for event in events) == 61


class Killed(BaseException):
    """The process is gone."""


def test_a_run_that_was_killed_leaves_its_events_and_the_next_has_its_own(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = job._verify
    monkeypatch.setattr(job, "_verify", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        ingest(tmp_path, source, max_failed=0.1, **DIVIDED)
    (killed,) = jobs(tmp_path)
    monkeypatch.setattr(job, "_verify", real)
    summary = ingest(tmp_path, source, max_failed=0.1, **DIVIDED)
    before, after = events_of(tmp_path, killed), events_of(tmp_path, summary.job_id)
    assert before[-1]["event"] == "end"
    assert {event["event"] for event in before} == {"run", "begin", "piece", "end"}
    found = [event for event in after if event["event"] == "piece" and event["found"]]
    assert len(found) == sum(summary.found.values()) > 0
    # What was found costs nothing, and has no rate.
    assert (summary.usage["read"].pieces, summary.usage["read"].documents) == (0, 0)
    text = Path(str(summary.report)).read_text()
    assert "A run that did not end had finished" in text


def test_an_interrupted_run_says_so(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_verify", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        ingest(tmp_path, source, max_failed=0.1)
    assert events_of(tmp_path, *jobs(tmp_path))[-1]["event"] == "interrupted"


def test_the_summary_is_stored_and_says_where_the_report_is(tmp_path: Path, source: Path) -> None:
    summary = ingest(tmp_path, source, max_failed=0.1, **DIVIDED)
    folder = tmp_path / "store" / "runs" / summary.job_id
    assert (folder / "metrics.json").read_text() == summary.model_dump_json(indent=1)
    assert IngestConfig.model_validate_json((folder / "config.json").read_text()).index == "test"
    lines = summary.lines()
    assert lines[-1] == f"report    {folder / 'report.html'}"
    assert (folder / "report.html").is_file()
    told = "\n".join(lines)
    assert re.search(r"^rates     read [\d.,]+ documents/s, [\d.,]+ MB/s; .*embed .* chunks/s", told, re.MULTILINE)
    assert re.search(r"^slowest   [\w ]+: \d+% of the time, its places \d+% busy; ", told, re.MULTILINE)
    assert re.search(r"^cost      [\d.e-]+ core-hours \([\d.e-]+ busy\)$", told, re.MULTILINE)
    assert summary.cost is not None
    assert summary.cost.core_hours >= sum(summary.seconds.values()) / 3600 * 0.99


def test_a_run_that_was_refused_leaves_a_report_and_says_where(tmp_path: Path, source: Path) -> None:
    with pytest.raises(RejectedError, match=r"max_failed=0\.01: .*; more in .*/report\.html$") as refused:
        ingest(tmp_path, source)
    page = Path(str(refused.value).rsplit("; more in ", 1)[1])
    text = page.read_text()
    assert "Nothing was published to test" in text
    assert "bad-json" in text
    assert events_of(tmp_path, page.parent.name)[-1]["event"] == "failed"


def test_recall_below_its_target_is_shown_by_nprobe(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(300)])
    with pytest.raises(RejectedError) as refused:
        ingest(tmp_path, source, index_type="IVF16,PQ1x4", recall_target=1.0)
    text = Path(str(refused.value).rsplit("; more in ", 1)[1]).read_text()
    assert "target 1 not reached" in text
    measured = [event for event in events_of(tmp_path, *jobs(tmp_path)) if event["event"] == "recall"]
    assert {event["nprobe"] for event in measured} == {1, 2, 4, 8, 16}
    assert max(event["recall"] for event in measured) < 1
    for event in measured:
        assert f'<td data-label="recall@10">{event["recall"]:.4f}</td>' in text


def test_a_store_that_takes_no_report_has_a_snapshot_all_the_same(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LocalStorage.create

    def full(self: LocalStorage, key: str, data: bytes) -> None:
        if key.endswith("report.html"):
            raise StorageError("no space left")
        real(self, key, data)

    monkeypatch.setattr(LocalStorage, "create", full)
    summary = ingest(tmp_path, source, max_failed=0.1)
    assert (summary.outcome, summary.report, live(tmp_path).number) == ("published", None, 1)
    assert not any(line.startswith("report") for line in summary.lines())


def test_the_last_report_is_found_by_the_name_of_the_index(tmp_path: Path, source: Path, capsys: Capsys) -> None:
    store = tmp_path / "store"
    first = ingest(tmp_path, source, max_failed=0.1)
    ingest(tmp_path, source, max_failed=0.1, index="other")
    found = run(capsys, "index", "report", "test", "--store", store).succeeded()
    assert found == f"{first.report}\n"
    deleted = delete(DeleteConfig(ids=("a5",), index="test", store=str(store)))
    assert deleted.report is not None
    told = json.loads(run(capsys, "index", "report", "test", "--store", store, "--snapshot", 2, "--json").succeeded())
    assert told == {"job_id": deleted.job_id, "report": deleted.report, "snapshot": 2}
    storage = LocalStorage(store)
    assert last(storage, "test", 1).report == first.report
    # Ids of runs sort by the second; of two within one either may be the last.
    assert last(storage, "test").report in (first.report, deleted.report)
    with pytest.raises(NotFoundError, match="index=absent: no such index"):
        last(storage, "absent")
    Path(str(first.report)).unlink()
    with pytest.raises(NotFoundError, match=r"snapshot=1: no run in .* has left a report of it"):
        last(storage, "test", 1)


def test_a_worker_says_how_often_its_task_was_tried_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "retries", lambda: 2)
    source = write_jsonl(tmp_path / "a.jsonl", [article(n) for n in range(1, 5)])
    assert ingest(tmp_path, source).usage["read"].retries == 2
