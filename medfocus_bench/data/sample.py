"""A sample: one (question, LVLM, mode), the unit of the benchmark."""

from __future__ import annotations

import re
import sys
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from medfocus_bench.data.columns import SAMPLE_ID_PATTERN, is_line
from medfocus_bench.data.concepts import concept_named
from medfocus_bench.data.images import header_size
from medfocus_bench.data.labels import LABELS
from medfocus_bench.data.pixels import PictureError
from medfocus_bench.data.questions import DECODINGS, GREEDY, MODES, prompt
from medfocus_bench.data.truth import Effects, Region, Truth, mask_of_boxes, truth_of
from medfocus_bench.errors import InputError, UnavailableError
from medfocus_bench.geometry import BoolArray, FloatArray, UInt8Image, as_boxes, clip_boxes
from medfocus_bench.text import tidy

MAX_SIDE: Final = 65_536

EVIDENCE_TOLERANCE: Final = 1.0
"""Native pixels by which an evidence box may stick out of the image (rounding) before it is an error."""

_SAMPLE_ID = re.compile(SAMPLE_ID_PATTERN)


class Content(Protocol):
    """The parts of a sample that are read when they are asked for."""

    @property
    def origin(self) -> Hashable:
        """The state of what is read: while it is equal, so are the pictures. None if it is not known."""
        ...

    def texts(self, sample_id: str) -> tuple[str | None, str | None]: ...

    def picture(self, sample_id: str, size: tuple[int, int]) -> UInt8Image: ...


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Sample:
    """One (question, LVLM, mode); `boxes` (n, 4) and `anatomy` (one box a concept) are native pixels.

    `image`, `question` and `response` are read from `content` each time they are asked for. Samples taken
    in the order of their benchmark are read in one pass over its files. `mask`, `counterfactual`, `tokens`,
    `token_effects`, `concept_effects` and `drop` are what is known beyond the row (see `data.truth`), of
    pictures that are those of the truth.

    >>> import medfocus_bench as mb
    >>> sample = mb.load_benchmark("phantom").samples[0]
    >>> sample.image.shape, sample.finding
    ((224, 224), 'cardiomegaly')
    """

    sample_id: str
    split: str
    source: str
    index: int
    patient_id: str
    width: int
    height: int
    finding: str
    lvlm: str
    mode: str
    evidence: str
    boxes: FloatArray
    anatomy: Mapping[str, FloatArray] = field(default_factory=dict)
    group: str = "grounded"
    decoding: str = GREEDY
    content: Content | None = None
    derived_from: str | None = None
    """Of a derived split: the sample whose picture it shows, in `control` that of the trained LVLM."""

    @classmethod
    def of_image(
        cls,
        image: UInt8Image,
        question: str,
        response: str | None = None,
        *,
        finding: str = "",
        name: str = "image",
        lvlm: str = "",
        mode: str = "direct",
    ) -> Sample:
        """A sample of an image of your own (height, width), uint8, whose evidence is not known.

        >>> sample = Sample.of_image(radiograph, "Is there a nodule?", finding="nodule")
        """
        if image.ndim != 2:
            raise InputError(f"{name}: an image is (height, width), not of shape {image.shape}")
        height, width = image.shape
        return cls(
            sample_id=name,
            split=mode,
            source=name,
            index=0,
            patient_id=name,
            width=width,
            height=height,
            finding=finding,
            lvlm=lvlm,
            mode=mode,
            evidence="lesion",
            boxes=np.zeros((0, 4)),
            content=_Given(image, question, response),
        )

    def __repr__(self) -> str:
        return (
            f"Sample({self.sample_id}: {self.finding or 'no finding'}, {self.width} x {self.height}, "
            f"{self.source} / {self.split}, {self.evidence}, {len(self.boxes)} box"
            f"{'' if len(self.boxes) == 1 else 'es'})"
        )

    @property
    def patient(self) -> tuple[str, str]:
        """The cluster of the sample in every bootstrap."""
        return self.source, self.patient_id

    @property
    def region(self) -> Region:
        """The evidence region, which several LVLMs and modes share."""
        return self.source, self.index, self.evidence

    @property
    def image(self) -> UInt8Image:
        """The picture as an LVLM is given it: (height, width), levels of 0 to 255, decoded at every access.

        Raises PictureError for one that cannot be decoded or is of another size, and UnavailableError where
        the benchmark has none.
        """
        return self._content.picture(self.sample_id, (self.width, self.height))

    @property
    def question(self) -> str:
        """The full question; a row without one asks about its finding in the benchmark's words."""
        return self._content.texts(self.sample_id)[0] or prompt(
            self.finding, "reasoning" if self.mode == "reasoning" else "direct"
        )

    @property
    def response(self) -> str | None:
        """The LVLM's response; None where the benchmark has none, so that the LVLM is asked."""
        return self._content.texts(self.sample_id)[1]

    @property
    def exact_mask(self) -> BoolArray | None:
        """The exact pixels of the cause: (height, width), native frame, read-only; None if boxes are all."""
        truth = self._truth
        return None if truth is None else truth.mask(self.region)

    @property
    def mask(self) -> BoolArray:
        """The pixels of the cause: (height, width), native frame, read-only.

        Where the exact ones are not known, those that the boxes cover at least half, and one at least. Raises
        UnavailableError for a sample without evidence.
        """
        exact = self.exact_mask
        if exact is not None:
            return exact
        if not len(self.boxes):
            raise UnavailableError(f"{self.sample_id}: has no evidence, so no mask of it")
        return mask_of_boxes(self.width, self.height, self.boxes.tobytes())

    @property
    def counterfactual(self) -> UInt8Image:
        """The picture without the cause, as `image`. Raises UnavailableError where it is not known."""
        truth = self._truth
        if truth is None:
            raise UnavailableError(
                f"{self.sample_id}: its picture without the {self.evidence} is not known, unlike those of a "
                "source that makes its pictures, such as phantom"
            )
        return truth.counterfactual(self.region)

    @property
    def tokens(self) -> tuple[str, ...] | None:
        """The tokens of the response as the LVLM wrote them; None where the effects are not known."""
        effects = self._effects
        return None if effects is None else effects.tokens

    @property
    def token_effects(self) -> npt.NDArray[np.float32] | None:
        """Log p(token | image) - log p(token | counterfactual) of each of `tokens`, or None: (n,), nats."""
        effects = self._effects
        return None if effects is None else effects.token_effects

    @property
    def concept_effects(self) -> Mapping[str, float] | None:
        """By concept, the drop of log p(response) when the part of the cause in it is healed, or None."""
        effects = self._effects
        return None if effects is None else effects.concept_effects

    @property
    def drop(self) -> float | None:
        """The drop of log p(response) when the whole cause is healed, in nats; None where it is not known."""
        effects = self._effects
        return None if effects is None else effects.drop

    @property
    def _effects(self) -> Effects | None:
        """The effects on this very response: that of another checkpoint may have the same id."""
        truth = self._truth
        effects = None if truth is None else truth.effects(self.sample_id)
        if effects is None or _letters("".join(effects.tokens)) != _letters(self.response or ""):
            return None
        return effects

    @property
    def _truth(self) -> Truth | None:
        """The truth of the sample, if it is known for this very picture."""
        if self.content is None:
            return None
        try:
            return truth_of(self.region, self.content.origin, lambda: self.image)
        except (PictureError, UnavailableError):
            return None

    @property
    def _content(self) -> Content:
        if self.content is None:
            raise UnavailableError(f"{self.sample_id}: has neither picture nor texts; load a benchmark")
        return self.content


def _letters(text: str) -> str:
    """A text without its white space, which tokens may begin with."""
    return "".join(text.split())


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    """Content that is held in memory."""

    image: UInt8Image
    question: str
    response: str | None
    origin: None = None

    def texts(self, sample_id: str) -> tuple[str | None, str | None]:
        return self.question, self.response

    def picture(self, sample_id: str, size: tuple[int, int]) -> UInt8Image:
        return self.image


def sample_of(row: Mapping[str, Any], split: str, content: Content | None = None) -> Sample:
    """A row as a Sample. Raises ValueError with a sentence that names the column at fault."""
    check_identity(row, split)
    if row["width"] is None and row["boxes"] is None:
        raise ValueError(
            "is a pointer to a licensed source, without boxes; join your copy to it with "
            "`medfocus-bench data attach FOLDER --root COPIES --out DIR`"
        )
    width, height = _side(row, "width"), _side(row, "height")
    _check_image(row.get("image"), width, height)
    return Sample(
        sample_id=row["sample_id"],
        split=sys.intern(split),
        source=_text(row, "source"),
        index=int(row["index"]),
        patient_id=_text(row, "patient_id"),
        width=width,
        height=height,
        finding=_finding(row),
        lvlm=_text(row, "lvlm"),
        mode=sys.intern(row["mode"]),
        evidence=sys.intern(row.get("evidence") or "lesion"),
        boxes=_evidence_boxes(row["boxes"], width, height),
        anatomy=_anatomy(row.get("anatomy")),
        group=sys.intern(row.get("group") or "grounded"),
        decoding=sys.intern(row.get("decoding") or GREEDY),
        content=content,
    )


def check_identity(row: Mapping[str, Any], split: str) -> None:
    """Check what names a row, which a pointer to a licensed source has, too. Raises as `sample_of`."""
    sample_id, index, mode = row["sample_id"], row["index"], row["mode"]
    if not isinstance(sample_id, str) or not _SAMPLE_ID.fullmatch(sample_id):
        raise ValueError(f"sample_id {str(sample_id)[:100]!r} is not a plain identifier")
    if index is None or index < 0:
        raise ValueError(f"index {index} is not a rank in the source")
    _text(row, "lvlm")
    for column, words in LABELS.items():
        word = row.get(column)
        if word not in words and (word or column == "mode"):
            raise ValueError(f"{column} {str(word)[:100]!r} is not one of {', '.join(words)}")
    decoding = row.get("decoding") or GREEDY
    if decoding not in DECODINGS:
        raise ValueError(f"decoding {str(decoding)[:100]!r} is not one of {', '.join(DECODINGS)}")
    if split in MODES and split != mode:
        raise ValueError(f"mode is {mode}, but the file is named {split}; move the row, or rename the file")


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if not is_line(value):
        raise ValueError(f"{name} is empty or no short text on one line")
    return sys.intern(value)


def _finding(row: Mapping[str, Any]) -> str:
    """The name of the finding without invisible characters."""
    name = tidy(_text(row, "finding"))
    if not name:
        raise ValueError("finding is empty or no short text on one line")
    return sys.intern(name)


def _side(row: Mapping[str, Any], name: str) -> int:
    value = row[name]
    if not isinstance(value, int) or not 1 <= value <= MAX_SIDE:
        raise ValueError(f"{name} {value} is not within 1 and {MAX_SIDE}")
    return value


def _check_image(value: Any, width: int, height: int) -> None:
    """A picture whose header cannot be read is let be here: whoever decodes it names it."""
    size = header_size(value["bytes"]) if value and value["bytes"] else None
    if size is not None and size != (width, height):
        raise ValueError(f"image is {size[0]} x {size[1]} pixels, but width x height is {width} x {height}")


def _evidence_boxes(value: Any, width: int, height: int) -> FloatArray:
    if not value:
        raise ValueError("boxes is empty; licensed sources need their boxes attached first")
    if any(box is None or len(box) != 4 for box in value):
        raise ValueError("boxes are not all [x1, y1, x2, y2]")
    given = np.array(value, dtype=np.float64)
    boxes = clip_boxes(given, width, height)
    if np.abs(boxes - given).max() > EVIDENCE_TOLERANCE:
        raise ValueError(f"boxes reach out of the image of {width} x {height} pixels; give native pixels")
    if not ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / (width * height) > 0).any():
        raise ValueError("boxes cover nothing of the image")
    return boxes


def _anatomy(value: Any) -> Mapping[str, FloatArray]:
    entries = value or ()
    if any(not entry or not is_line(entry["concept"]) or not entry["box"] for entry in entries):
        raise ValueError("anatomy has an entry without a concept or without a box")
    names, boxes = ([entry[part] for entry in entries] for part in ("concept", "box"))
    fine = all(len(box) == 4 for box in boxes)  # then they are checked together: most rows have eleven
    each: Iterable[FloatArray] = as_boxes(boxes)[:, None] if fine else (as_boxes([box]) for box in boxes)
    return {concept_named(name): box for name, box in zip(names, each, strict=True)}
