"""The figures that every section of a report is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from medfocus_bench.submission.schema import Strict

Number = Annotated[float, Field(allow_inf_nan=False)]


class Score(Strict):
    """A mean with its 95 % interval."""

    mean: Number
    low: Number
    high: Number
