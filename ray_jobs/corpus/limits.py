"""What one document may cost; beyond it the document alone is given up, with its reason (`reasons.py`).

Guaranteed: a document that stays within every limit is never given up for its cost. Not guaranteed: that a limit on
memory is a limit on the machine: each process that reads has a helper of its own, and may hold some ten times
`line_bytes` besides, for a line of nothing but tiny values.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

LINE_BYTES = 64 << 20


class Limits(BaseModel):
    """Bounds of one document."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float = Field(
        120, gt=0, description="seconds that the parser of a page, PDF, Word or Parquet file may take"
    )
    memory_bytes: int = Field(1 << 30, ge=1 << 25, description="bytes of memory that it may take")
    file_bytes: int = Field(256 << 20, ge=1, description="bytes of a file that is read whole")
    text_bytes: int = Field(64 << 20, ge=1, description="bytes of the text of one document")
    line_bytes: int = Field(LINE_BYTES, ge=1, description="bytes of one line of JSON Lines, or one row of CSV")
    expansion: float = Field(
        200, ge=1, description="times its size that a compressed file larger than text may unpack to"
    )
    unpacked_bytes: int = Field(64 << 30, ge=1, description="bytes that a compressed file may unpack to at most")

    def unpacked(self, size: int) -> int:
        """Bytes that a compressed file of `size` bytes may unpack to: a small file may be all repetition."""
        return min(self.unpacked_bytes, max(self.text_bytes, int(self.expansion * size)))
