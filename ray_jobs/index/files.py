"""Writers that let the disk's refusal through: FAISS's own only prints it, numpy's hides its cause.

Guaranteed: OSError with its errno when the disk refuses. Not guaranteed: atomicity.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def write_faiss(index: Any, path: Path) -> None:
    """Write a FAISS index; raises OSError when the disk refuses, which FAISS's own writer may only print."""
    import faiss

    with path.open("wb") as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))


def write_array(array: npt.NDArray[np.generic], path: Path) -> None:
    """Write the values of an array in their order; raises OSError with its cause, which `tofile` hides."""
    with path.open("wb") as file:
        file.write(array.data.cast("B") if array.size else b"")
