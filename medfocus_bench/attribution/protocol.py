"""What an attribution method is, and what it returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from medfocus_bench.geometry import FloatArray, MapFrame, as_boxes

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM
    from medfocus_bench.lvlm.example import EncodedExample, Target

Need = Literal["forward", "gradients", "attentions", "text"]
MethodFamily = Literal["attention", "gradient", "prompting", "perturbation", "concept", "null", "other"]


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """What a method says of one response: a map or boxes, and what it can say besides.

    `saliency` (rows, columns): at any resolution, over the model frame (see `TokenGrid.saliency` and
    `InputView.saliency`) or, where `frame` is "image", over the image as it was before it was padded; `boxes`
    (n, 4): native pixels. Exactly one of the two; a map without anything in it or no boxes at all mean that
    the method found no explanation. `intervals`: the 95 % intervals (low, high) of the scores of concepts,
    where the method knows them. `diagnostics`: figures by which the method judges itself, such as the
    completeness of an integral. Raises ValueError for another shape.
    """

    saliency: npt.NDArray[np.generic] | None = None
    boxes: FloatArray | None = None
    tokens: tuple[tuple[str, float], ...] = ()
    concepts: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    frame: MapFrame = "model"

    def __post_init__(self) -> None:
        if (self.saliency is None) == (self.boxes is None):
            raise ValueError("an explanation is either a map or boxes")
        if self.saliency is not None and np.ndim(self.saliency) != 2:
            raise ValueError(f"a map has the shape (rows, columns), not {np.shape(self.saliency)}")
        if self.boxes is not None:
            object.__setattr__(self, "boxes", as_boxes(self.boxes))


class Method(Protocol):
    """An attribution method with its hyperparameters, the fields of a frozen dataclass.

    `needs` says what it takes of the model: forward passes, gradients, attention weights, or only its text.
    Field defaults are the settings under which it is reported.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    family: ClassVar[MethodFamily]
    needs: ClassVar[tuple[Need, ...]]
    description: ClassVar[str]
    paper: ClassVar[str | None]

    def explain(
        self, lvlm: HuggingFaceLVLM, reading: EncodedExample, *, target: Target = "response", seed: int = 0
    ) -> Explanation:
        """What in the image made the model give this response."""
        ...


class TunableMethod(Method, Protocol):
    """A method some of whose hyperparameters are chosen on the dev split."""

    def candidates(self, lvlm: HuggingFaceLVLM) -> Iterable[Mapping[str, Any]]:
        """The values to try, by the names of the fields."""
        ...


class QuicklyTunableMethod(TunableMethod, Protocol):
    """A method that gets the explanations of many candidates from the same passes."""

    def explain_candidates(
        self,
        lvlm: HuggingFaceLVLM,
        reading: EncodedExample,
        candidates: Sequence[Mapping[str, Any]],
        *,
        target: Target = "response",
        seed: int = 0,
    ) -> list[Explanation]:
        """What `explain` gives with each of the candidates."""
        ...
