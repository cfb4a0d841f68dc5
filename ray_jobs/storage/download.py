"""An object of a bucket as a local file: one request where it is small, ranges side by side where it is large.

Guaranteed: the file is whole and of one version of the object, or the call fails; memory is some MiB a range in flight,
whatever the object's size. Not guaranteed: that the file is gone after a failure; the caller removes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ray_jobs.storage.objects import BLOCK
from ray_jobs.storage.retry import persistently
from ray_jobs.storage.settings import StorageSettings

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ObjectStore


def fetch(store: ObjectStore, key: str, path: Path, settings: StorageSettings) -> None:
    """Write the object `key` into the new file `path`; raises what the client raises."""
    import obstore

    with path.open("xb") as file:
        descriptor = file.fileno()

        def whole() -> ObjectMeta | None:
            """Fetch a small object, or describe a large one."""
            result = obstore.get(store, key)
            meta = result.meta
            if meta["size"] > settings.part_bytes:
                return meta
            _write(result.stream(min_chunk_size=BLOCK), descriptor, 0, meta["size"])
            return None

        meta = persistently(whole, settings.retry_s)
        if meta is not None:
            _fetch_parts(store, key, descriptor, meta, settings)


def parts_of(size: int, part: int) -> list[tuple[int, int]]:
    """Ranges [start, end) of at most `part` bytes that cover `size` bytes."""
    return [(start, min(start + part, size)) for start in range(0, size, part)]


def _fetch_parts(store: ObjectStore, key: str, descriptor: int, meta: ObjectMeta, settings: StorageSettings) -> None:
    import obstore

    def one(start: int, end: int) -> None:
        options: GetOptions = {"range": (start, end), "if_match": meta["e_tag"]}
        _write(obstore.get(store, key, options=options).stream(min_chunk_size=BLOCK), descriptor, start, end)

    with ThreadPoolExecutor(settings.parallel, thread_name_prefix="download") as pool:
        running = [
            pool.submit(persistently, partial(one, start, end), settings.retry_s)
            for start, end in parts_of(meta["size"], settings.part_bytes)
        ]
        try:
            for part in running:
                part.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write(blocks: Iterable[object], descriptor: int, start: int, end: int) -> None:
    from obstore.exceptions import GenericError

    place = start
    for block in blocks:
        left = memoryview(block)  # type: ignore[arg-type]
        while left:
            written = os.pwrite(descriptor, left, place)
            place += written
            left = left[written:]
    if place != end:
        raise GenericError(f"{end - start} bytes were asked for and {place - start} came")
