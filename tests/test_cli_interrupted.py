"""An ingest that is stopped, loses a worker or fills the disk: the old snapshot stays live, the next run is right."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import FAKE, copy_store, end, rows, run, start, write_articles, write_notes
from waiting import wait_beside

Capsys = pytest.CaptureFixture[str]

DEADLINE = 60.0
CHUNKING = ("--chunking.max-tokens", 16, "--chunking.overlap-tokens", 0, "--chunking.min-tokens", 1)
SETTINGS = (*FAKE, "--group-bytes", 16384, *CHUNKING, "--shards", 3)
GROUPS = 24


@pytest.fixture(scope="module")
def articles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of some 24 groups, each of many chunks, so that embedding lasts a while."""
    return write_articles(tmp_path_factory.mktemp("corpus") / "articles.jsonl", 300)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """A store with a first, small snapshot of the index `x`."""
    from cluster import cli

    folder = tmp_path_factory.mktemp("before")
    notes = write_notes(folder / "notes")
    assert cli.run(["ingest", str(notes), "--index", "x", "--store", str(folder / "store"), *FAKE]) == 0
    return folder / "store"


@pytest.fixture(scope="module")
def undisturbed(before: Path, articles: Path) -> list[dict[str, object]]:
    """What a run that nothing disturbs adds to that snapshot: every row and vector."""
    from cluster import cli

    store = copy_store(before, before.parent / "undisturbed")
    assert cli.run(["ingest", str(articles), "--index", "x", "--store", str(store), *map(str, SETTINGS)]) == 0
    return rows(store, "x")


def embedded_groups(store: Path) -> int:
    return len(list(store.glob("indexes/x/work/*/groups/*.arrow")))


def finished_groups(store: Path) -> int:
    return len(list(store.glob("indexes/x/work/*/receipts/embedded/*.json")))


def in_flight(store: Path) -> list[Path]:
    return [*store.glob("indexes/x/work/**/*.*"), *store.glob("indexes/x/leases/*")]


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_stopped_ingest_leaves_the_old_snapshot_live_and_the_same_command_goes_on(
    capsys: Capsys,
    cluster: dict[str, str],
    tmp_path: Path,
    before: Path,
    articles: Path,
    undisturbed: list[dict[str, object]],
    sent: signal.Signals,
    code: int,
) -> None:
    store = copy_store(before, tmp_path / "store")
    old = rows(store, "x")
    command = ("ingest", articles, "--index", "x", "--store", store, *SETTINGS)
    process = start(cluster, tmp_path, *command)
    wait_beside(process, lambda: finished_groups(store) > 0, DEADLINE)
    process.send_signal(sent)
    stopped = end(process)
    assert stopped.code == code
    if sent != signal.SIGKILL:
        assert stopped.err.splitlines()[-1] == (
            "interrupted; what was live is live; what it has finished is kept, run the same command to go on"
        )
    assert "Traceback" not in stopped.err
    assert rows(store, "x") == old
    assert "intact" in run(capsys, "index", "verify", "x", "--store", store).succeeded()
    finished = finished_groups(store)
    summary = json.loads(run(capsys, *command, "--json").succeeded())
    assert (summary["outcome"], summary["snapshot"]) == ("published", 2)
    assert summary["found"]["groups embedded"] >= finished > 0
    assert rows(store, "x") == undisturbed
    assert in_flight(store) == []


def workers_of(token: str, name: str) -> list[int]:
    """Processes of this test run's own cluster whose title holds `name`."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if name in (folder / "cmdline").read_text() and token.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_killed_worker_costs_no_row_and_adds_none(
    capsys: Capsys,
    cluster: dict[str, str],
    tmp_path: Path,
    before: Path,
    articles: Path,
    undisturbed: list[dict[str, object]],
) -> None:
    store = copy_store(before, tmp_path / "store")
    process = start(cluster, tmp_path, "ingest", articles, "--index", "x", "--store", store, *SETTINGS)
    wait_beside(process, lambda: embedded_groups(store) > 0, DEADLINE)
    killed = workers_of(cluster["RAY_AUTH_TOKEN"], "ray::MapWorker(MapBatches(Embed))")
    for worker in killed:
        os.kill(worker, signal.SIGKILL)
    assert embedded_groups(store) < GROUPS
    assert killed
    ended = end(process)
    assert "published snapshot 2" in ended.succeeded()
    assert "Traceback" not in ended.err
    assert in_flight(store) == []
    assert rows(store, "x") == undisturbed
    assert "intact" in run(capsys, "index", "verify", "x", "--store", store).succeeded()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_named_and_with_space_the_same_command_publishes(
    capsys: Capsys, small_disk: Path, before: Path, articles: Path, undisturbed: list[dict[str, object]]
) -> None:
    store = copy_store(before, small_disk / "store")
    old = rows(store, "x")
    command = ("ingest", articles, "--index", "x", "--store", store, *SETTINGS)
    run(capsys, *command).refused(str(store), "no space left", "choose another --store", code=1)
    assert rows(store, "x") == old
    assert "intact" in run(capsys, "index", "verify", "x", "--store", store).succeeded()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert "published snapshot 2" in run(capsys, *command).succeeded()
    assert rows(store, "x") == undisturbed
