"""The one conversion between an `Attribution` and its entry in a submission."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from medfocus_bench.attribution.attribution import Attribution, Cost
from medfocus_bench.data.sample import Sample
from medfocus_bench.errors import SubmissionError
from medfocus_bench.geometry import MapFrame
from medfocus_bench.submission.compatibility import incompatibilities
from medfocus_bench.submission.document import json_pointer, parse_attribution
from medfocus_bench.submission.schema import AttributionEntry


def to_entry(
    attribution: Attribution, samples: Mapping[str, Sample], covers: str, source: str
) -> AttributionEntry:
    """The entry of an attribution in a submission; its map goes to the map store.

    Args:
        attribution: Of one sample.
        samples: The samples of the submission, by their ids.
        covers: How messages name the part of the benchmark that the samples are.
        source: The start of every message: a folder or a method.

    Raises SubmissionError for an attribution that breaks the format.

    """
    name = f"{source}: {attribution.sample_id}"
    entry = parse_attribution(_fields(attribution), name)
    problems = [
        f"{json_pointer(at, name)}: {problem}" for at, problem in incompatibilities(entry, samples, covers)
    ]
    if problems:
        raise SubmissionError(problems)
    return entry


def to_attribution(
    entry: AttributionEntry, saliency: npt.NDArray[np.generic] | None, frame: MapFrame = "model"
) -> Attribution:
    """The attribution of an entry with its map, which covers `frame`; None for an entry of boxes."""
    return Attribution(
        entry.sample_id,
        saliency=saliency,
        boxes=None if entry.boxes is None else np.array(entry.boxes, dtype=np.float64).reshape(-1, 4),
        concepts=entry.concepts or {},
        tokens=[(token.text, token.score) for token in entry.tokens or ()],
        cost=Cost(**entry.cost.model_dump()) if entry.cost else Cost(),
        frame=frame if entry.map else "model",
    )


def _fields(attribution: Attribution) -> dict[str, Any]:
    fields: dict[str, Any] = {"sample_id": attribution.sample_id}
    if attribution.boxes is None:
        fields["map"] = True
    else:
        fields["boxes"] = attribution.boxes.tolist()
    if attribution.concepts:
        fields["concepts"] = {name: float(score) for name, score in attribution.concepts.items()}
    if attribution.tokens:
        fields["tokens"] = [{"text": text, "score": float(score)} for text, score in attribution.tokens]
    measured = {name: value for name, value in asdict(attribution.cost).items() if value is not None}
    return fields | ({"cost": measured} if measured else {})
