"""The output of an attribution method for one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medfocus_bench.errors import first_line
from medfocus_bench.geometry import FloatArray, Frame, MapFrame, as_boxes


@dataclass(frozen=True, slots=True)
class Cost:
    """The passes through the model and the seconds of one attribution; None where not measured."""

    forward_passes: int | None = None
    backward_passes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """A method's output for one sample: a map or boxes, optionally the scores of concepts and tokens.

    Exactly one of `saliency` and `boxes` is given. An all-zero map or no boxes at all mean that the method
    found no explanation. Either may be any array-like, or a tensor of torch with whatever type, device and
    graph it has, but not a masked array that masks something: what the masked values stand for is unknown.

    Args:
        sample_id: Of the sample; methods leave it to their caller.
        saliency: (rows, columns) at any resolution, over what `frame` says; axes of length 1 before them, as
            other libraries return, are dropped.
        boxes: (n, 4), x1 y1 x2 y2 in native pixels; they mean their union.
        concepts: Score of each concept.
        tokens: Each token of the response with its score.
        cost: Passes and seconds; `Method.attribute` and runs measure them.
        frame: "model" (padding included), or "image" (the image before it was padded).
        intervals: 95 % intervals (low, high) of the scores of concepts, where known.
        diagnostics: Figures by which a method judges itself, such as the completeness of an integral.

    Raises ValueError for both or neither of map and boxes, and for arrays of other shapes.

    Example:
        >>> import numpy as np
        >>> from medfocus_bench import Attribution
        >>> Attribution("case-1", saliency=np.eye(16)).saliency.shape
        (16, 16)
        >>> Attribution("case-2", boxes=[[10, 10, 200, 180]]).boxes
        array([[ 10.,  10., 200., 180.]])

    """

    sample_id: str = ""
    saliency: npt.NDArray[np.generic] | None = None
    boxes: FloatArray | None = None
    concepts: Mapping[str, float] = field(default_factory=dict)
    tokens: Sequence[tuple[str, float]] = ()
    cost: Cost = Cost()
    frame: MapFrame = "model"
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    diagnostics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = f"{self.sample_id}: " if self.sample_id else ""
        if (self.saliency is None) == (self.boxes is None):
            raise ValueError(f"{name}an attribution is either a map or boxes")
        if self.saliency is not None:
            array = plain_array(self.saliency, f"{name}a map")
            object.__setattr__(self, "saliency", _one_map(array, name))
        if self.boxes is not None:
            object.__setattr__(self, "boxes", as_boxes(plain_array(self.boxes, f"{name}an array of boxes")))

    def in_model_frame(self, frame: Frame) -> Attribution:
        """The same with its map over the model frame, the `frame` of the image; padding gets nothing."""
        if self.saliency is None or self.frame == "model":
            return self
        saliency = self.saliency
        if saliency.size > 0:
            with np.errstate(invalid="ignore", over="ignore"):
                saliency = frame.embed(saliency.astype(np.float64))
        return replace(self, saliency=saliency, frame="model")


def plain_array(values: Any, name: str) -> npt.NDArray[np.generic]:
    """`values`, any array-like or a tensor of torch, as an array of numpy.

    A tensor may lie on any device, have a graph, and be of a type that numpy lacks, such as bfloat16, which
    becomes float32. Raises ValueError for a masked array of which something is masked, and for values that
    make no array.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(
            f"{name} has masked values, which stand for nothing here; fill them first: .filled(0) says that "
            "they are as low as 0"
        )
    try:
        if not (hasattr(values, "detach") and hasattr(values, "cpu")):
            return np.asarray(values)
        tensor = values.detach().cpu()
        try:
            return np.asarray(tensor)
        except TypeError:
            return np.asarray(tensor.float())
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"{name} cannot be made an array of: {first_line(error)}") from None


def _one_map(values: npt.NDArray[np.generic], name: str) -> npt.NDArray[np.generic]:
    """A map (rows, columns) of (rows, columns), (1, rows, columns) or (1, 1, rows, columns).

    Raises ValueError, with the way out, for other shapes.
    """
    found = values
    while 2 < found.ndim <= 4 and found.shape[0] == 1:
        found = found[0]
    if found.ndim == 2:
        return found
    said = f"{name}a map is 2-D, or 2-D behind axes of length 1, not of shape {values.shape}"
    if found.ndim == 3 and 3 in (found.shape[0], found.shape[2]):
        axis = -3 if found.shape[0] == 3 else -1
        raise ValueError(f"{said}: if these are attributions to three colours, add them up, .sum({axis})")
    raise ValueError(f"{said}: each sample has an attribution of its own, with one value a place")
