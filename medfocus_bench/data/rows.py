"""From what the causal filter found out about a question to a row of the dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from medfocus_bench.answers import parse_verdict
from medfocus_bench.data.columns import IMAGES
from medfocus_bench.data.questions import prompt
from medfocus_bench.data.sources.protocol import split_of_index
from medfocus_bench.geometry import FloatArray

Group = Literal["incorrect", "ungrounded", "grounded"]


def group_of(responses: Mapping[str, str]) -> Group:
    """The paper's rule: right on the original, flipped by the foreground edit, kept by both backgrounds.

    An answer without a verdict is neither right nor a flip.
    """
    said = {image: parse_verdict(responses[image]) for image in IMAGES}
    if said["original"] != "yes":
        return "incorrect"
    kept = said["background"] == said["background_normal"] == "yes"
    return "grounded" if said["foreground"] == "no" and kept else "ungrounded"


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
