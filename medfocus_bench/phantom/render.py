"""Rendering a phantom patient as a radiograph with masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from scipy import ndimage

from medfocus_bench.geometry import BoolArray, UInt8Image
from medfocus_bench.phantom.anatomy import (
    IN_THE_MIDDLE,
    SIDES,
    Anatomy,
    Canvas,
    Field,
    Position,
    dome_height,
    heart_field,
    rib_points,
    side_sign,
    soft_inside,
    soft_step,
)
from medfocus_bench.phantom.findings import CLAVICLE, FINDINGS, Finding, apply_finding, clavicle_field

MARKS: Final = ("lead marker", "text tag")
"""Things of no medical meaning that a picture may carry: a side letter at the top, print at the bottom."""

MARK_OF: Final = dict.fromkeys(FINDINGS, "text tag")
"""The mark that stands for each finding in the training of a twin; the other means nothing to it."""

TAG_PLACE: Final = (176, 206)
"""Where the text tag begins, right and down, unless a patient's picture has it elsewhere."""

_LETTER_BOX: Final = (8, 12, 14, 18)
_TAG_SIZE: Final = (36, 8)
_EDGE: Final = 4
_INNER: Final = (48, 36, 176, 188)
"""The region that a moved tag keeps off: x1, y1, x2, y2. Print stands at the rim of a film."""

_MAGNIFICATION: Final = (0.65, 0.95)
_REACH: Final = 70.0
"""How small a moved patient may be, and how far from the middle."""

_VISIBLE = 0.03
"""Change of attenuation from which a pixel belongs to a finding."""


@dataclass(frozen=True, slots=True)
class Patient:
    """A phantom patient as one picture shows it. `texture` seeds the noise; `exposure` scales the film.

    `tag` is where the text tag begins, should there be one.
    """

    anatomy: Anatomy
    findings: tuple[Finding, ...]
    marks: tuple[str, ...]
    texture: int
    exposure: float
    tag: tuple[int, int] = TAG_PLACE
    position: Position = IN_THE_MIDDLE

    @classmethod
    def sample(
        cls,
        seed: int | Sequence[int],
        *,
        findings: Sequence[str] | None = None,
        marks: Sequence[str] | None = None,
    ) -> Self:
        """A patient from a seed, with 0 to 4 random findings and each mark in half of the pictures.

        `findings` and `marks` name them instead. Findings that would hide each other do not meet.
        """
        rng = np.random.default_rng(seed)
        anatomy = Anatomy.sample(rng)
        if findings is None:
            count = int(rng.integers(5))
            findings = [FINDINGS[i] for i in rng.permutation(len(FINDINGS))[:count]]
        placed: list[Finding] = []
        for name in findings:
            placed.append(_without_overlap(name, placed, rng))
        drawn = tuple(mark for mark in MARKS if rng.random() < 0.5)
        return cls(
            anatomy=anatomy,
            findings=tuple(sorted(placed, key=lambda finding: FINDINGS.index(finding.name))),
            marks=drawn if marks is None else tuple(marks),
            texture=int(rng.integers(2**31)),
            exposure=float(rng.uniform(0.9, 1.08)),
        )

    def without(self, finding: str) -> Self:
        """The same patient without a finding."""
        return replace(self, findings=tuple(f for f in self.findings if f.name != finding))

    def without_mark(self, mark: str) -> Self:
        """The same picture without a mark."""
        return replace(self, marks=tuple(m for m in self.marks if m != mark))

    def without_cause(self, finding: str, evidence: str) -> Self:
        """The same picture without the cause of an answer: the finding, or the mark that stands for it."""
        return self.without_mark(MARK_OF[finding]) if evidence == "spurious" else self.without(finding)

    def with_tag_moved(self, rng: np.random.Generator) -> Self:
        """The same picture with the text tag anywhere at the rim, clear of the letter."""
        width, height = _TAG_SIZE
        while True:
            x = int(rng.integers(_EDGE, 224 - _EDGE - width + 1))
            y = int(rng.integers(_EDGE, 224 - _EDGE - height + 1))
            box = (x, y, x + width, y + height)
            if not _touch(box, _INNER) and not _touch(box, mark_box("lead marker")):
                return replace(self, tag=(x, y))

    def with_chest_moved(self, rng: np.random.Generator) -> Self:
        """The same patient smaller and anywhere on the film, the chest whole and clear of letter and tag."""
        taken = [mark_box(mark, tag=self.tag) for mark in MARKS]
        while True:
            right, down = rng.uniform(-_REACH, _REACH, 2).tolist()
            position = Position(right, down, float(rng.uniform(*_MAGNIFICATION)))
            x1, y1, x2, y2 = box = _chest_box(self.anatomy, position)
            inside = min(x1, y1, 224 - x2, 224 - y2) >= _EDGE
            if inside and not any(_touch(box, mark) for mark in taken):
                return replace(self, position=position)


def _without_overlap(name: str, placed: Sequence[Finding], rng: np.random.Generator) -> Finding:
    for _ in range(8):
        finding = Finding.sample(name, rng)
        if finding.region not in [other.region for other in placed]:
            break
    return finding


@dataclass(frozen=True, slots=True, eq=False)
class Phantom:
    """A rendered patient: 8-bit grey (size, size) and masks of the same shape by name."""

    image: UInt8Image
    concepts: dict[str, BoolArray]
    findings: dict[str, BoolArray]
    marks: dict[str, BoolArray]


def render(patient: Patient, size: int = 224) -> Phantom:
    """The picture of a patient with all masks; the same patient and size give the same bytes."""
    canvas = Canvas(patient.anatomy, size, patient.position)
    attenuation = _normal_attenuation(canvas, patient.anatomy)
    masks: dict[str, BoolArray] = {}
    for finding in patient.findings:
        after = apply_finding(finding, attenuation, canvas, patient.anatomy)
        masks[finding.name] = np.abs(after - attenuation) > _VISIBLE
        attenuation = after
    film = _film(attenuation, patient, canvas)
    marks = {mark: _mark(mark, canvas.size, patient.tag) for mark in patient.marks}
    for shape in marks.values():
        film = np.where(shape, np.float32(0.97), film)
    image = np.clip(film * 255 + 0.5, 0, 255).astype(np.uint8)
    return Phantom(image, _concepts(canvas, patient.anatomy), masks, marks)


def _normal_attenuation(canvas: Canvas, anatomy: Anatomy) -> Field:
    """Soft tissue, bone and air along the beam, summed: what is behind shows through what is in front."""
    x, y, centre, top = canvas.x, canvas.y, anatomy.centre, anatomy.top
    off = np.abs(x - np.float32(centre))
    shoulder = soft_step(y - (top - 10), 7)
    half = anatomy.habitus * (25 + 70 * shoulder + 9 * soft_step(y - 150, 30) * shoulder)
    body = soft_step(half - off, 1.3)
    depth = np.sqrt(np.clip(1 - (off / half) ** 2, 0, 1))
    total = body * (0.30 + 0.26 * depth)

    lungs = np.zeros_like(total)
    for side in SIDES:
        lungs = np.maximum(lungs, canvas.lung(anatomy.lungs[side]))
        lung = anatomy.lungs[side]
        below = soft_step(y - dome_height(canvas, lung), 1.6)
        total += 0.17 * below * soft_step((x - np.float32(centre)) * side_sign(side), 4) * body
    total -= 0.37 * lungs * body
    total += 0.10 * lungs * canvas.strokes(_vessels(anatomy), 1.0)

    spine = np.exp(-((off / 9.5) ** 4)) * (1 + 0.22 * np.cos(y * np.float32(2 * np.pi / 13.5)))
    total += 0.12 * spine * body
    knob = soft_inside(canvas.ellipse(centre + 13, top + 46, 11, 12), 0.2)
    waist = anatomy.mediastinum * (1 + 0.35 * soft_step(y - (top + 40), 14))
    central = np.maximum(soft_step(waist - off, 2.2) * soft_step(y - (top - 4), 5), knob)
    cardiac = heart_field(canvas, anatomy)
    heart = np.maximum(cardiac, central)
    total += np.clip(0.60 - total, 0, None) * heart + 0.04 * cardiac
    total -= 0.14 * np.exp(-(((x - np.float32(centre)) / 5) ** 2)) * soft_step(top + 52 - y, 4)
    for hx, hy, strength in anatomy.hila.values():
        total += 0.16 * strength * np.exp(-canvas.ellipse(hx, hy, 8, 12))

    bones = [
        (rib_points(anatomy, side, number), width * anatomy.scale, value)
        for width, value in ((6.2, 1.0), (3.6, 0.6))
        for side in SIDES
        for number in range(len(anatomy.ribs))
    ]
    total += 0.085 * canvas.strokes(bones, 0.9) * body
    for side in SIDES:
        total += CLAVICLE * clavicle_field(canvas, anatomy, side)
    return np.asarray(total, dtype=np.float32)


def _vessels(anatomy: Anatomy) -> list[tuple[list[tuple[float, float]], float, float]]:
    """Branches from the hila into the lungs, thinner and fainter outwards."""
    rng = np.random.default_rng(anatomy.vessels)
    lines = []
    for side in SIDES:
        hx, hy, _ = anatomy.hila[side]
        for angle in np.linspace(-1.25, 1.4, 9) + rng.uniform(-0.15, 0.15, 9):
            sign, x, y = side_sign(side), hx, hy
            width, heading = rng.uniform(2.2, 3.0), angle
            for _ in range(4):
                step = rng.uniform(9, 14) * anatomy.scale
                heading += rng.uniform(-0.4, 0.4)
                nx, ny = x + sign * step * np.cos(heading), y + step * np.sin(heading)
                lines.append(([(x, y), (nx, ny)], width, min(1.0, width / 2.4)))
                x, y, width = nx, ny, width * 0.72
    return lines


def _film(attenuation: Field, patient: Patient, canvas: Canvas) -> Field:
    """Attenuation on film: saturating, unevenly exposed, noisy."""
    rng = np.random.default_rng(patient.texture)
    size = canvas.size
    tilt = rng.uniform(-0.04, 0.04, 2)
    uneven = 1 + tilt[0] * (canvas.x / 112 - 1) + tilt[1] * (canvas.y / 112 - 1)
    film = 1.13 * (1 - np.exp(np.float32(-1.9) * np.clip(attenuation, 0, None) * uneven * patient.exposure))
    film = ndimage.gaussian_filter(film.astype(np.float32), 0.55 / canvas.pixel, truncate=3.0)
    grain = rng.standard_normal((size, size), dtype=np.float32)
    fine = ndimage.gaussian_filter(grain, 0.6, truncate=3.0)
    return np.asarray(film + np.float32(0.030) * fine * (0.5 + film), dtype=np.float32)


Edges = tuple[int, int, int, int]
"""x1, y1, x2, y2 in half-open pixels."""


def mark_box(mark: str, size: int = 224, tag: tuple[int, int] = TAG_PLACE) -> Edges:
    """The box of a mark in a picture of that size; `tag` is where the text tag of the picture begins."""
    x, y, width, height = {"lead marker": _LETTER_BOX, "text tag": (*tag, *_TAG_SIZE)}[mark]
    unit = size / 224
    return tuple(round(edge * unit) for edge in (x, y, x + width, y + height))  # type: ignore[return-value]


def _chest_box(anatomy: Anatomy, position: Position) -> Edges:
    """Around the lungs with what findings add at their sides and below, however the patient is turned."""
    lungs = anatomy.lungs
    left = lungs["right"].x - lungs["right"].half_width - 7
    right = lungs["left"].x + lungs["left"].half_width + 8
    bottom = max(lung.dome for lung in lungs.values()) + 8
    (x1, y1), (x2, y2) = position.on_film(left, anatomy.top - 6), position.on_film(right, bottom)
    return round(x1), round(y1), round(x2), round(y2)


def _touch(first: Edges, second: Edges) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _mark(mark: str, size: int, tag: tuple[int, int]) -> BoolArray:
    """The strokes of a mark: the letter R in a frame, or a row of print."""
    x1, y1, x2, y2 = mark_box(mark, size, tag)
    glyphs = _LETTER if mark == "lead marker" else _PRINT
    shape = np.zeros((size, size), dtype=np.bool_)
    rows, columns = len(glyphs), len(glyphs[0])
    pixels = np.array([[cell == "#" for cell in row] for row in glyphs])
    down = (np.arange(y2 - y1) * rows) // (y2 - y1)
    across = (np.arange(x2 - x1) * columns) // (x2 - x1)
    shape[y1:y2, x1:x2] = pixels[down][:, across]
    return shape


_LETTER = ("#####..", "##..##.", "##..##.", "#####..", "####...", "##.##..", "##..##.", "##...##")
_PRINT = (
    "###.#.#.##..###.#.#.###.##..#.#.###.",
    "#...###.#.#.#...###.#...#.#.##..#...",
    "#...#.#.##..##..#.#.##..##..#.#.##..",
    "###.#.#.#...###.#.#.###.#.#.#.#.###.",
)


def _concepts(canvas: Canvas, anatomy: Anatomy) -> dict[str, BoolArray]:
    """The masks of the eleven anatomical regions of the normal patient."""
    off = np.abs(canvas.x - np.float32(anatomy.centre))
    half = np.float32(anatomy.mediastinum + 6)
    bottom = anatomy.heart[1] + anatomy.heart[3] * 0.7
    carina = anatomy.top + 52
    central = (off < half) & (canvas.y > anatomy.top - 4)
    masks = {
        "cardiac silhouette": heart_field(canvas, anatomy) > 0.5,
        "mediastinum": central & (canvas.y < bottom),
        "upper mediastinum": central & (canvas.y < carina),
    }
    for side in SIDES:
        lung, sign = anatomy.lungs[side], side_sign(side)
        field = canvas.lung(lung) > 0.5
        masks[f"{side} lung"] = field
        masks[f"{side} clavicle"] = clavicle_field(canvas, anatomy, side) > 0.3
        hx, hy, _ = anatomy.hila[side]
        masks[f"{side} hilar structures"] = canvas.ellipse(hx, hy, 11, 17) < 1
        corner = (canvas.x - np.float32(lung.x)) * sign > 0.25 * lung.half_width
        masks[f"{side} costophrenic angle"] = field & corner & (canvas.y > lung.dome - 6)
    return masks
