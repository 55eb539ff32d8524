"""The submission document: typed, strict, and the source of the published JSON Schema.

`docs/submission.schema.json` and the copy beside this module are generated from these classes (`make
schemas`); a test keeps the three equal.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from medfocus_bench.data.columns import LINE_PATTERN, SAMPLE_ID_PATTERN
from medfocus_bench.geometry import MapFrame

SCHEMA_VERSION: Literal["1.0"] = "1.0"

MAX_BOXES_PER_SAMPLE = 100
MAX_MAP_SIDE = 2048
MAX_COORDINATE = 100_000
MAX_SCORE = 10**6
MAX_HYPERPARAMETER_BYTES = 64 * 1024

BOX_TOLERANCE = 0.01
"""Native pixels by which a box may stick out of the image (rounding) before it is an error."""

URL_PATTERN = r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?([/?#][!#-&(-;=?-\[\]-~]*)?$"
"""http or https and a host; `https://github.com@example.org/` would lead to the second of two."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**9)]
PartScore = Annotated[float, Field(ge=-MAX_SCORE, le=MAX_SCORE, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=20_000)]
Line = Annotated[str, Field(min_length=1, max_length=300, pattern=LINE_PATTERN)]
Title = Annotated[str, Field(min_length=1, max_length=60, pattern=LINE_PATTERN)]
Url = Annotated[str, Field(pattern=URL_PATTERN, max_length=1000)]
Identifier = Annotated[str, Field(pattern=SAMPLE_ID_PATTERN)]
ShortList = Annotated[list[int | Finite | Text], Field(max_length=1000, fail_fast=True)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _right_way_round(box: list[float]) -> list[float]:
    x1, y1, x2, y2 = box
    if not (x1 < x2 and y1 < y2 and (x2 - x1) * (y2 - y1) > 0):
        raise PydanticCustomError(
            "inside_out", "the box is inside out or empty; write [x1, y1, x2, y2] with x1 < x2 and y1 < y2"
        )
    return box


def _bounded(hyperparameters: dict[str, Any]) -> dict[str, Any]:
    size = len(json.dumps(hyperparameters, ensure_ascii=False).encode())
    if size > MAX_HYPERPARAMETER_BYTES:
        raise PydanticCustomError(
            "hyperparameters",
            "are {size} bytes of JSON; at most {most} are taken, so name a file of your code instead",
            {"size": size, "most": MAX_HYPERPARAMETER_BYTES},
        )
    return hyperparameters


Coordinate = Annotated[float, Field(ge=-BOX_TOLERANCE, le=MAX_COORDINATE, allow_inf_nan=False)]
SubmittedBox = Annotated[
    list[Coordinate], Field(min_length=4, max_length=4), AfterValidator(_right_way_round)
]


def _without_example(schema: dict[str, Any]) -> None:
    """The description in a JSON Schema is the docstring up to its example."""
    if "description" in schema:
        schema["description"] = schema["description"].partition("\n\n>>>")[0]


class Strict(BaseModel):
    """No coercion, no unknown keys, no assignment."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, json_schema_extra=_without_example)


class MethodMetadata(Strict):
    """The method that made the attributions.

    >>> import medfocus_bench as mb
    >>> about = {"name": "mine", "family": "other", "version": "1", "description": "The expert boxes."}
    >>> mb.MethodMetadata(**about).title
    'mine'
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    display_name: Title | None = None
    family: Literal["attention", "gradient", "prompting", "perturbation", "concept", "null", "other"]
    version: Line
    description: Text
    paper: Url | None = None
    code: Url | None = None
    licence: Line | None = None
    needs: list[Literal["forward", "gradients", "attentions", "text"]] = Field(
        default=[],
        max_length=4,
        description="The parts of the model that the method uses; empty for one that needs no model.",
    )
    hyperparameters: Annotated[
        dict[Line, bool | int | Finite | Text | ShortList | None],
        Field(max_length=1000, description=f"At most {MAX_HYPERPARAMETER_BYTES:,} bytes of JSON together."),
        AfterValidator(_bounded),
    ] = {}
    tuned_on_dev: bool = False

    @property
    def title(self) -> str:
        return self.display_name or self.name


class Submitter(Strict):
    """Who answers for the submission."""

    name: Line
    affiliation: Line | None = None
    url: Url | None = None


class BenchmarkRef(Strict):
    """The benchmark that was explained, exactly."""

    dataset: Line
    version: Line
    fingerprint: Digest
    configs: Annotated[list[Line], Field(min_length=1, max_length=100)]
    splits: Annotated[list[Line], Field(min_length=1, max_length=100)]


MAP_FILE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}\.safetensors$"
"""The name of the file of maps in a submission."""


class MapFile(Strict):
    """The safetensors file beside `submission.json` that holds the maps, keyed by sample_id."""

    file: Annotated[str, Field(pattern=MAP_FILE_PATTERN)]
    sha256: Digest
    frame: MapFrame = Field(
        default="model",
        description="The area that a map covers: the model frame (padding included), or the image alone.",
    )


class TokenScore(Strict):
    """The share of one token of the response in the explanation."""

    text: Annotated[str, Field(max_length=1000)]
    score: PartScore


class CostEntry(Strict):
    """The cost of one attribution."""

    forward_passes: Count | None = None
    backward_passes: Count | None = None
    seconds: Annotated[float, Field(ge=0, le=10**7, allow_inf_nan=False)] | None = None


def _one_of_map_and_boxes(schema: dict[str, Any]) -> None:
    schema["oneOf"] = [
        {"required": ["map"], "properties": {"map": {"const": True}, "boxes": {"type": "null"}}},
        {"required": ["boxes"], "properties": {"map": {"type": "null"}, "boxes": {"type": "array"}}},
    ]


class AttributionEntry(Strict):
    """One sample: `"map": true` where the map file holds it, or boxes in native pixels."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, json_schema_extra=_one_of_map_and_boxes
    )

    sample_id: Identifier
    map: Literal[True] | None = None
    boxes: Annotated[list[SubmittedBox], Field(max_length=MAX_BOXES_PER_SAMPLE)] | None = None
    concepts: Annotated[dict[Line, PartScore], Field(max_length=1000)] | None = None
    tokens: Annotated[list[TokenScore], Field(max_length=10_000, fail_fast=True)] | None = None
    cost: CostEntry | None = None

    @model_validator(mode="after")
    def _map_or_boxes(self) -> Self:
        if (self.map is None) == (self.boxes is None):
            raise PydanticCustomError("map_or_boxes", 'give either "map": true or "boxes", and not both')
        return self


class SubmissionDocument(Strict):
    """The content of `submission.json`."""

    schema_version: Literal["1.0"]
    method: MethodMetadata
    submitters: Annotated[list[Submitter], Field(min_length=1, max_length=100)]
    benchmark: BenchmarkRef
    maps: MapFile | None = None
    attributions: list[AttributionEntry]


def submission_json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of `submission.json`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://medfocus.github.io/medfocus-bench/submission.schema.json",
        **SubmissionDocument.model_json_schema(),
        "title": "medfocus-bench submission",
    }
