"""Runs that write to one index tell each other, and a lost one is in nobody's way for long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import ROOT
from waiting import wait_for

from ray_jobs.errors import ConflictError
from ray_jobs.index import layout
from ray_jobs.ingest import lease
from ray_jobs.ingest.lease import COUNTS_SECONDS, held
from ray_jobs.storage import LocalStorage

DEADLINE_SECONDS = 30.0
HOLD = (
    "import sys, time; from pathlib import Path; from ray_jobs.ingest.lease import held; "
    "from ray_jobs.storage import LocalStorage; context = held(LocalStorage(Path(sys.argv[1])), 'x', 'first'); "
    "context.__enter__(); print('held', flush=True); time.sleep(600)"
)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the index `x`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def signs(storage: LocalStorage, index: str = "x") -> list[Path]:
    return sorted((storage.root / layout.leases(index)).glob("*.json"))


def elsewhere(storage: LocalStorage, seconds_ago: float, **changes: object) -> Path:
    """The last sign of a run on another machine."""
    with held(storage, "x", "second"):
        [own] = signs(storage)
        found = json.loads(own.read_text())
        now = own.stat().st_mtime
    sign = own.with_name("sign.json")
    sign.parent.mkdir(parents=True, exist_ok=True)
    sign.write_text(json.dumps({**found, "job_id": "first", "machine": "elsewhere", "writing": True, **changes}))
    os.utime(sign, (now - seconds_ago, now - seconds_ago))
    return sign


def test_a_second_run_is_told_who_writes(storage: LocalStorage, other: subprocess.Popen[str]) -> None:
    with (
        pytest.raises(ConflictError, match=rf"index=x: another run writes to it \(job first, process {other.pid} on"),
        held(storage, "x", "second"),
    ):
        pass
    assert len(signs(storage)) == 1
    with held(storage, "y", "third"):
        assert len(signs(storage, "y")) == 1


def test_a_killed_process_of_this_machine_is_in_nobodys_way(
    storage: LocalStorage, other: subprocess.Popen[str]
) -> None:
    other.kill()
    other.wait()
    with held(storage, "x", "second"):
        assert len(signs(storage)) == 1
    assert signs(storage) == []


def test_another_process_of_the_same_number_is_not_the_one_that_was(storage: LocalStorage) -> None:
    import socket

    elsewhere(storage, 0, machine=socket.gethostname(), process=os.getpid(), since=1.0)
    with held(storage, "x", "second"):
        assert len(signs(storage)) == 1


def test_a_sign_from_another_machine_counts_for_a_while(storage: LocalStorage) -> None:
    elsewhere(storage, COUNTS_SECONDS - 20)
    with pytest.raises(ConflictError, match=r"on elsewhere, .* for (19|20) s more"), held(storage, "x", "second"):
        pass
    elsewhere_sign = signs(storage)[0]
    elsewhere_sign.unlink()
    elsewhere(storage, COUNTS_SECONDS + 20)
    with held(storage, "x", "second"):
        assert elsewhere_sign not in signs(storage)


@pytest.mark.parametrize(("job_id", "yields"), [("first", True), ("third", False)])
def test_of_two_that_look_at_the_same_time_the_first_one_writes(
    storage: LocalStorage, job_id: str, yields: bool
) -> None:
    elsewhere(storage, 0, job_id=job_id, writing=False)
    if yields:
        with pytest.raises(ConflictError, match="job first"), held(storage, "x", "second"):
            pass
    else:
        with held(storage, "x", "second"):
            assert len(signs(storage)) == 2


def test_whoever_writes_gives_sign_after_sign_and_leaves_none(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.01)
    with held(storage, "x", "first"):
        first = signs(storage)
        wait_for(lambda: signs(storage) and signs(storage)[-1] not in first, DEADLINE_SECONDS)
    assert signs(storage) == []


def test_what_is_no_sign_is_swept(storage: LocalStorage) -> None:
    storage.create(f"{layout.leases('x')}/a.json", b"{")
    with held(storage, "x", "first"):
        assert len(signs(storage)) == 1
