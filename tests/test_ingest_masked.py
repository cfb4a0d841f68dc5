"""What is masked is stored nowhere, and a store never mixes texts that were masked in different ways."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingest_runs import all_rows, ingest, live, write_jsonl

from ray_jobs.errors import UsageError
from ray_jobs.storage import LocalStorage

pytest_plugins = ["in_process"]
pytestmark = pytest.mark.usefixtures("in_process")

SECRET = "ada.lovelace@example.com"
MASKED = {"mask": ["email", "iban"]}


def strings(folder: Path) -> list[str]:
    """Every text that an object of the store holds, decoded."""
    found = []
    for path in (folder / "store").rglob("*"):
        if path.suffix == ".parquet":
            found.append(str(pq.read_table(path).to_pydict()))
        elif path.suffix == ".arrow":
            found.append(str(pa.ipc.open_file(path).read_all().to_pydict()))
        elif path.is_file():
            found.append(path.read_bytes().decode("latin-1"))
    return found


def test_what_is_masked_is_in_no_object_of_the_store(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"id": "a", "title": f"Of {SECRET}", "text": f"Write to {SECRET} soon. " * 3},
        {"id": "b", "text": "The bank has DE89370400440532013000 in its books."},
    ]
    summary = ingest(tmp_path, write_jsonl(tmp_path / "a.jsonl", rows), deduplicate={"mode": "near"}, **MASKED)
    assert summary.masked == {"email": 4, "iban": 1}
    assert not any(part in text for text in strings(tmp_path) for part in (SECRET, "lovelac", "DE8937"))
    assert {str(row["text"])[:8] for row in all_rows(tmp_path)} == {"Write to", "The bank"}


def test_another_mask_over_stored_text_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"id": "a", "text": f"Write to {SECRET}."}])
    ingest(tmp_path, source)
    with pytest.raises(UsageError, match=r"mask=email,iban: index test holds text .* stored with mask=\(nothing\)"):
        ingest(tmp_path, source, **MASKED)
    assert live(tmp_path).number == 1
    ingest(tmp_path, source, index="masked", **MASKED)
    assert ingest(tmp_path, source, index="masked", mask=["iban", "email"]).outcome == "unchanged"
    assert list(LocalStorage(tmp_path / "store").list("indexes/masked"))
