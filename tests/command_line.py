"""The command line for tests: run in this process or as a process of its own, and what every mistake owes the user."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster import cli
from ray_jobs.index.snapshot import Snapshot
from ray_jobs.storage import LocalStorage

TANDEM = [sys.executable, "-m", "cluster.cli"]
ROOT = Path(__file__).parent.parent
FAKE = ("--embedder.engine", "fake")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def refused(self, *fragments: str, code: int | None = None) -> None:
        """Check that it failed with one line on standard error that holds all of `fragments`."""
        lines = [line for line in self.err.splitlines() if not _is_progress(line)]
        assert self.code in (1, 2), self
        assert code is None or self.code == code, self
        assert len(lines) == 1, self
        assert lines[0].startswith("error: "), self
        assert "Traceback" not in self.err + self.out
        for fragment in fragments:
            assert fragment in lines[0], (fragment, self)

    def succeeded(self) -> str:
        """Check that it succeeded, and return what it printed."""
        assert self.code == 0, self
        return self.out


def _is_progress(line: str) -> bool:
    stages = (
        "read",
        "embed",
        "build",
        "search",
        "merge",
        "stage",
        "decide",
        "write",
        "find",
        "mine",
        "rewrite",
        "take",
        "bury",
        "ledger",
        "select",
        "match",
        "settle",
        "living",
        "orphans",
        "revive",
        "compare",
    )
    return line.split()[0] in stages if line.strip() else False


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Ended:
    """Run one command in this process."""
    capsys.readouterr()
    code = cli.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return Ended(code, captured.out, captured.err)


def start(environment: Mapping[str, str], folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start one command as a process of its own, standing in `folder`."""
    return subprocess.Popen(
        [*TANDEM, *map(str, arguments)],
        env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> Ended:
    """Wait for a command and return how it ended."""
    out, err = process.communicate(timeout=120)
    return Ended(process.returncode, out, err)


def write_notes(folder: Path) -> Path:
    """A small corpus: six notes."""
    folder.mkdir(parents=True)
    for number, animal in enumerate(("cat", "dog", "fox", "owl", "bee", "elk")):
        (folder / f"{animal}.txt").write_text(f"The {animal} is animal number {number}. It lives in house {number}.")
    return folder


def write_articles(path: Path, count: int) -> Path:
    """A larger corpus: `count` articles of some 1,300 bytes."""
    with path.open("w") as file:
        for number in range(count):
            words = " ".join(f"word{(number * 7 + i * 13) % 997}" for i in range(160))
            file.write(json.dumps({"id": f"a{number}", "title": f"Article {number}", "text": words}) + "\n")
    return path


def copy_store(store: Path, target: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(store, target))


def rows(store: Path, index: str) -> list[dict[str, object]]:
    """Every live row of the live snapshot with its vector, in an order of its own."""
    snapshot = Snapshot.open(LocalStorage(store), index)
    found = []
    for shard in snapshot.partition.shards.values():
        table = shard.rows.table.drop_columns(["document", "metadata"]).take(shard.live_rows)
        vectors = shard.dense.vectors[shard.live_rows]
        found += [{**row, "vector": vector.tobytes()} for row, vector in zip(table.to_pylist(), vectors, strict=True)]
    return sorted(found, key=repr)
