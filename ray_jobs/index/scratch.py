"""A folder for files about to be uploaded, on a disk that may refuse them.

Guaranteed: what the operating system refuses while such files are written (no space, no permission) is a StorageError
that says what to do. Not guaranteed: that the disk still has space when the files are uploaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.errors import StorageError
from ray_jobs.storage import Storage, explain_os_error

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@contextmanager
def scratch(storage: Storage) -> Iterator[Path]:
    """The store's scratch folder; raises StorageError for what the disk refuses inside the block."""
    try:
        with storage.scratch() as folder:
            yield folder
    except OSError as error:
        raise StorageError(f"store={storage.uri}: cannot write there: {explain_os_error(error)}") from error


def write_faiss(index: Any, path: Path) -> None:
    """Write a FAISS index; raises OSError when the disk refuses, which FAISS's own writer may only print."""
    import faiss

    with path.open("wb") as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))


def write_array(array: npt.NDArray[np.generic], path: Path) -> None:
    """Write the values of an array in their order; raises OSError with its cause, which `tofile` hides."""
    with path.open("wb") as file:
        file.write(array.data.cast("B") if array.size else b"")
