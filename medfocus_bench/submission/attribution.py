"""What a method says of one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from medfocus_bench.geometry import FloatArray, Frame, MapFrame, as_boxes


@dataclass(frozen=True, slots=True)
class Cost:
    """What one attribution took; None where it was not measured."""

    forward_passes: int | None = None
    backward_passes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """A method's output for one sample: a map or boxes, optionally concept and token scores.

    `saliency` is 2-D at any resolution, over what `frame` says: the model frame (padding included), or the
    image as it was before it was padded; `boxes` are (n, 4) in the native frame, and mean their union. Either
    may be any array-like, but for masked arrays that mask something: what is under the mask is not known here
    to be nothing. Exactly one of the two is given. Raises ValueError otherwise.
    """

    sample_id: str
    saliency: npt.NDArray[np.generic] | None = None
    boxes: FloatArray | None = None
    concepts: Mapping[str, float] = field(default_factory=dict)
    tokens: Sequence[tuple[str, float]] = ()
    cost: Cost = Cost()
    frame: MapFrame = "model"

    def __post_init__(self) -> None:
        if (self.saliency is None) == (self.boxes is None):
            raise ValueError(f"{self.sample_id}: an attribution is either a map or boxes")
        if self.saliency is not None:
            object.__setattr__(self, "saliency", unmasked(self.saliency, f"{self.sample_id}: a map"))
            if self.saliency.ndim != 2:
                raise ValueError(f"{self.sample_id}: a map is 2-D, not of shape {self.saliency.shape}")
        if self.boxes is not None:
            object.__setattr__(
                self, "boxes", as_boxes(unmasked(self.boxes, f"{self.sample_id}: an array of boxes"))
            )

    def in_model_frame(self, frame: Frame) -> Attribution:
        """The same with its map over the model frame, the `frame` of the image; padding gets nothing."""
        if self.saliency is None or self.frame == "model":
            return self
        saliency = self.saliency
        if saliency.size > 0:
            with np.errstate(invalid="ignore", over="ignore"):
                saliency = frame.embed(saliency.astype(np.float64))
        return replace(self, saliency=saliency, frame="model")


def unmasked(values: npt.ArrayLike, name: str) -> npt.NDArray[np.generic]:
    """`values` as a plain array. Raises ValueError for a masked array of which something is masked."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(
            f"{name} has masked values, which stand for nothing here; fill them first: .filled(0) says that "
            "they are as low as 0"
        )
    return np.asarray(values)
