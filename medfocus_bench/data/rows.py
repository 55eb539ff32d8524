"""From what the causal filter found out about a question to a row of the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from medfocus_bench.answers import parse_verdict
from medfocus_bench.data.columns import IMAGES
from medfocus_bench.data.questions import prompt
from medfocus_bench.data.sources.protocol import split_of_index
from medfocus_bench.geometry import FloatArray

Group = Literal["incorrect", "ungrounded", "grounded"]


class Answered(Protocol):
    """A question that was put to an LVLM with its four pictures: texts and log-odds by picture."""

    @property
    def source(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def evidence(self) -> str: ...
    @property
    def lvlm(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def responses(self) -> Mapping[str, str]: ...
    @property
    def log_odds(self) -> Mapping[str, float | None]: ...
    @property
    def group(self) -> Group: ...


def group_of(responses: Mapping[str, str]) -> Group:
    """The paper's rule: right on the original, flipped by the foreground edit, kept by both backgrounds.

    An answer without a verdict is neither right nor a flip.
    """
    said = {image: parse_verdict(responses[image]) for image in IMAGES}
    if said["original"] != "yes":
        return "incorrect"
    kept = said["background"] == said["background_normal"] == "yes"
    return "grounded" if said["foreground"] == "no" and kept else "ungrounded"


def pointer_row(record: Answered) -> dict[str, Any]:
    """What the model was shown is named by source and index alone: nothing of the source is in the row."""
    return {
        "sample_id": f"{record.source}-{record.index:05d}-{record.lvlm}-{record.mode}",
        "source": record.source,
        "index": record.index,
        "answer": "Yes",
        "lvlm": record.lvlm,
        "mode": record.mode,
        "response": record.responses["original"],
        "evidence": record.evidence,
        "group": record.group,
        **{f"answer_{name}": record.responses[name] for name in IMAGES},
        **{f"log_odds_{name}": record.log_odds.get(name) for name in (*IMAGES, "sham")},
    }


def complete_row(
    row: Mapping[str, Any],
    *,
    finding: str,
    patient_id: str,
    size: tuple[int, int],
    boxes: FloatArray,
    image: Mapping[str, Any] | None = None,
    image_ref: str | None = None,
    anatomy: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """A pointer's row with what it was asked about; `size` (width, height) is that of the picture."""
    width, height = size
    return {
        **row,
        "patient_id": patient_id,
        "image": image,
        "image_ref": image_ref,
        "width": width,
        "height": height,
        "finding": finding,
        "question": prompt(finding, row["mode"]),
        "boxes": boxes.tolist(),
        "anatomy": anatomy,
    }


def split_of(row: Mapping[str, Any]) -> str:
    """The split of a licensed row: that of its mode, or `dev` by its index."""
    return "dev" if split_of_index(row["index"]) == "dev" else str(row["mode"])
