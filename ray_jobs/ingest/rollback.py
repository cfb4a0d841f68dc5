"""Rollback: an older snapshot's content becomes the newest one's.

Guaranteed: nothing is rewritten or lost; the new manifest names the objects of the older one, ledger included, so that
the next ingest adds again what was rolled away; a rollback can be rolled back.
"""

from __future__ import annotations

from ray_jobs.errors import UsageError
from ray_jobs.index import manifest
from ray_jobs.index.manifest import MadeBy, Manifest
from ray_jobs.index.verify import check_file
from ray_jobs.ingest.lease import held
from ray_jobs.storage import Storage, new_id


def rollback(storage: Storage, index: str, number: int) -> Manifest:
    """Publish the content of snapshot `number` anew.

    Raises NotFoundError for a snapshot that is not there, UsageError for the live one and for one whose objects are not
    all there, ConflictError while another run writes to the index.
    """
    job_id = new_id()
    with held(storage, index, job_id):
        live = manifest.read_live(storage, index)
        if number == live.number:
            raise UsageError(f"snapshot={number} is the live one of {index}; expected an older one")
        older = manifest.read(storage, index, number)
        problems = [problem for file in older.files() if (problem := check_file(storage, file))]
        if problems:
            raise UsageError(
                f"snapshot={number}: cannot be live again ({problems[0]}); nothing was changed, choose another one"
            )
        made = MadeBy.now(job_id, older.made_by.config_hash)
        again = older.model_copy(update={"number": live.number + 1, "parent": live.number, "made_by": made})
        manifest.commit(storage, again)
        return again
