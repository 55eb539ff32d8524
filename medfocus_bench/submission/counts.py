"""Count the attributions of a valid submission, and those that may not be as intended.

Some explain nothing; the maps of some show signs that they lost something before they were stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.submission.map_quality import doubts


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of a submission; `samples` is None where no benchmark is given.

    `nothing` holds the sample_ids of attributions that explain nothing, by kind; `doubtful` those of maps
    with a sign of `map_quality.doubts`, and `figures` those of the first such map.
    """

    samples: int | None
    maps: int
    boxes: int
    nothing: Mapping[str, Sequence[str]]
    doubtful: Mapping[str, Sequence[str]] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)

    @property
    def attributed(self) -> int:
        return self.maps + self.boxes

    @property
    def summary(self) -> str:
        """Part of a sentence: attributions, maps and boxes."""
        covered = f"{self.attributed} attributions" if self.samples is None else self._of_samples
        return f"{covered}, {self.maps} by maps and {self.boxes} by boxes"

    @property
    def _of_samples(self) -> str:
        return f"{self.attributed} of {self.samples} samples"

    @property
    def warnings(self) -> list[str]:
        """A sentence for each kind of attribution that scores nothing, or whose map is doubtful."""
        found = [*_warnings(_KINDS, self.nothing), *self._doubts]
        if self.samples is not None and self.attributed < self.samples:
            found.insert(0, f"only {self._of_samples} have an attribution; what is missing scores 0")
        return found

    @property
    def _doubts(self) -> Iterator[str]:
        kinds = [(name, partial(sentence, figures=self.figures.get(name, ""))) for name, sentence in _DOUBTS]
        return _warnings(kinds, self.doubtful)


def count(attributions: Iterable[Attribution], samples: int | None) -> Counts:
    """Count attributions, each of which is read once."""
    kinds: dict[str, list[str]] = {}
    doubtful: dict[str, list[str]] = {}
    figures: dict[str, str] = {}
    maps = boxes = 0
    for attribution in attributions:
        if attribution.saliency is None:
            boxes += 1
            kind = None if attribution.boxes is not None and len(attribution.boxes) else "without_boxes"
        else:
            maps += 1
            kind = _kind(attribution.saliency)
            for sign, detail in ({} if kind else doubts(attribution.saliency)).items():
                doubtful.setdefault(sign, []).append(attribution.sample_id)
                figures.setdefault(sign, detail)
        if kind is not None:
            kinds.setdefault(kind, []).append(attribution.sample_id)
    return Counts(samples, maps, boxes, kinds, doubtful, figures)


def _kind(saliency: npt.NDArray[np.generic]) -> str | None:
    if saliency.size == 0:
        return "empty"
    finite = np.isfinite(saliency)
    if not finite.all():
        return "partly_finite" if finite.any() else "not_finite"
    if saliency.min() < saliency.max():
        return None
    return "constant" if saliency.any() else "zero"


_KINDS: Sequence[tuple[str, Callable[[str], str]]] = (
    ("not_finite", lambda them: f"{them} no finite value, which explains nothing"),
    ("partly_finite", lambda them: f"{them} a value that is NaN or infinite, which explains nothing"),
    ("zero", lambda them: f"{them} zeros only, which explains nothing; did small values underflow?"),
    ("constant", lambda them: f"{them} one value everywhere, which explains nothing"),
    ("empty", lambda them: f"{them} no pixel"),
    ("without_boxes", lambda them: f"{them} an empty list of boxes, which explains nothing"),
)


_DOUBTS: Sequence[tuple[str, Callable[..., str]]] = (
    (
        "subnormal",
        lambda them, figures: (
            f"{them} values that are subnormal in float16, under 0.00006, and have lost digits or vanished "
            f"(here {figures}); divide a map by its largest magnitude before it becomes float16"
        ),
    ),
    (
        "grid",
        lambda them, figures: (
            f"{them} the pixels of a coarse grid, each cell repeated (here {figures}); store the grid "
            "itself, which is resampled without steps"
        ),
    ),
    (
        "levels",
        lambda them, figures: (
            f"{them} far fewer levels than pixels (here {figures}), so that most of them tie"
        ),
    ),
)


def _warnings(
    kinds: Iterable[tuple[str, Callable[[str], str]]], found: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    for name, sentence in kinds:
        if ids := found.get(name):
            thing = "sample" if name == "without_boxes" else "map"
            many = f"{len(ids)} {thing}s have" if len(ids) > 1 else f"1 {thing} has"
            yield f"{sentence(many)} (the first is that of {ids[0]})"
