"""Large files into a bucket, in parts.

Guaranteed: memory is bounded by the parts on their way, whatever the file's size; the object appears whole, of the
file's size, or not at all; parts that are not in it are dropped where the service is S3. Not guaranteed: that
two writers of one key are told apart, since an upload in parts has no precondition: keys of large files are unique. Of
a process that is killed, and on other services, parts stay until a rule of the bucket removes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ray_jobs.errors import StorageError
from ray_jobs.storage import s3
from ray_jobs.storage.objects import BLOCK
from ray_jobs.storage.retry import persistently
from ray_jobs.storage.settings import StorageSettings

if TYPE_CHECKING:
    from obstore import Attributes
    from obstore.store import ObjectStore

_MOST_PARTS = 9_000  # services take 10,000


def put_large(store: ObjectStore, key: str, path: Path, attributes: Attributes, settings: StorageSettings) -> None:
    """Upload the file `path` in parts; raises what the client raises, StorageError for an object of another size."""
    import obstore
    from obstore.store import S3Store

    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            obstore.put(
                store,
                key,
                file,
                attributes=attributes,
                use_multipart=True,
                chunk_size=part_size(size, settings.part_bytes),
                max_concurrency=settings.parallel,
            )
    finally:
        # Of an upload that succeeds, too: one whose answer was lost was begun twice.
        if isinstance(store, S3Store):
            s3.abort_uploads(store, key, settings)
    found = persistently(lambda: obstore.head(store, key), settings.retry_s)["size"]
    if found != size:
        raise StorageError(f"{key}: {found} bytes arrived of {size}; delete it and run the command again")


def part_size(size: int, wanted: int) -> int:
    """Bytes of a part, `wanted` or as many more as a file of `size` bytes needs to have few enough of them."""
    needed = -(-size // _MOST_PARTS)
    return max(wanted, -(-needed // BLOCK) * BLOCK)
