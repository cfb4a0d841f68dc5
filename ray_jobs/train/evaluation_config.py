"""What is measured once a run is trained, before against after."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

SetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class EvaluationConfig(BaseModel):
    """Sets that base and result are compared on; none of it changes what is learned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    test: bool = Field(True, description="measure on held-out rows of the data: its test split, or what split says")
    retained: dict[SetName, str] = Field(
        {}, description="what must not be forgotten: names with prepared data sets, or Parquet files of one"
    )
    split: Literal["test", "validation"] = Field(
        "test",
        description="rows to measure on; validation: to choose between runs, whose test rows then stay unseen, as the "
        "trials of a search do; a retained set without that split is measured on its other one",
    )
    samples: int = Field(4, ge=0, description="of those rows, how many are shown with the output before and after")
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
