"""The figures that every section of a report is made of."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from medfocus_bench.evaluation.statistics import Interval
from medfocus_bench.submission.schema import Strict

Number = Annotated[float, Field(allow_inf_nan=False)]


class Stated(Strict):
    """Its fields that are None are left out where it is written; the schema is that of the fields."""

    @model_serializer(mode="wrap")
    def _without_none(self, plain: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]
        return {key: value for key, value in plain(self).items() if value is not None}


class Score(Stated):
    """A mean with its 95 % interval.

    `spread`: the least and the greatest mean of an LVLM, for the headline; None, and left out, elsewhere.
    """

    mean: Number
    low: Number
    high: Number
    spread: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None

    @classmethod
    def of(cls, interval: Interval, *, spread: bool = False) -> Self:
        """An interval as it is written."""
        return cls(
            mean=interval.mean,
            low=interval.low,
            high=interval.high,
            spread=list(interval.spread) if spread and interval.spread else None,
        )
