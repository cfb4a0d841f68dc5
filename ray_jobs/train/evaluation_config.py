"""What is measured once a run is trained, before against after."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class EvaluationConfig(BaseModel):
    """Sets that base and result are compared on; none of it changes what is learned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    test: bool = Field(True, description="measure on the test split of the data")
    retained: dict[SetName, str] = Field(
        {}, description="what must not be forgotten: names with prepared data sets, or files of rows; their test split"
    )
    samples: int = Field(4, ge=0, description="rows of the test split whose output is shown before and after")
    bootstrap: int = Field(1000, ge=100, description="draws behind an interval")
    limit: int | None = Field(
        None,
        ge=1,
        description="rows of a set at most, drawn by the seed; an embedder ranks their texts alone; None: all rows",
    )

    @property
    def wanted(self) -> bool:
        """Whether anything is to be measured."""
        return self.test or bool(self.retained)
