"""Null controls: "explanations" that look at no model.

A method that does not beat them has shown where findings tend to be, not what the model used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zlib import crc32

import numpy as np
from PIL import Image
from scipy import ndimage

from medfocus_bench._version import __version__
from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.resolve import BenchmarkLike, load_benchmark
from medfocus_bench.data.sample import Sample
from medfocus_bench.errors import InputError, UnavailableError
from medfocus_bench.geometry import FloatArray, Frame, clip_boxes, rasterise
from medfocus_bench.submission.schema import MethodMetadata
from medfocus_bench.submission.writer import SubmissionWriter

NULL_PREFIX: Final = "null:"
"""Before the name of a null control where a submission could stand."""

LUNGS: Final = ("left lung", "right lung")

_TOKEN_GRID = 16
_PRIOR_GRID = 64

Attributions = Iterator[tuple[Sample, Attribution]]


@dataclass(frozen=True, slots=True)
class NullControl:
    """One null control; `make` yields an attribution for every sample, in any order."""

    name: str
    title: str
    description: str
    make: Callable[[Sequence[Sample], int], Attributions]

    def method(self) -> MethodMetadata:
        """The control as the method of a submission."""
        return MethodMetadata(
            name=f"null-{self.name}",
            display_name=self.title,
            family="null",
            version=__version__,
            description=self.description,
            licence="MIT",
        )


def null_control(name: str) -> NullControl:
    """The control of that name. Raises InputError that lists the names."""
    if name not in NULL_CONTROLS:
        raise InputError(f"no null control {name!r}; there are {', '.join(NULL_CONTROLS)}")
    return NULL_CONTROLS[name]


def write_null(
    name: str, benchmark: BenchmarkLike, folder: str | Path, *, seed: int = 0, overwrite: bool = False
) -> Path:
    """Write a null control as a submission to `benchmark` (or to what it names) and return its folder.

    Raises UnavailableError where the benchmark lacks what the control needs.
    """
    control = null_control(name)
    target, benchmark = Path(folder), load_benchmark(benchmark)
    writer = SubmissionWriter(
        target, control.method(), benchmark, submitters=["medfocus-bench"], overwrite=overwrite
    )
    try:
        with writer:
            for _, attribution in control.make(benchmark.samples, seed):
                writer.add(attribution)
    except UnavailableError as error:
        raise UnavailableError(f"{benchmark.folder}: {error}") from None
    return target


def _rng(seed: int, control: str, sample: Sample) -> np.random.Generator:
    return np.random.default_rng((seed, crc32(control.encode()), crc32(sample.sample_id.encode())))


def _whole_image(samples: Sequence[Sample], seed: int) -> Attributions:
    for sample in samples:
        whole = np.array([[0, 0, sample.width, sample.height]], dtype=np.float64)
        yield sample, Attribution(sample.sample_id, boxes=whole)


def _centre_box(samples: Sequence[Sample], seed: int) -> Attributions:
    for sample in samples:
        sides = np.array([sample.width, sample.height] * 2, dtype=np.float64)
        yield sample, Attribution(sample.sample_id, boxes=(sides * [0.25, 0.25, 0.75, 0.75])[None])


def _random_boxes(samples: Sequence[Sample], seed: int) -> Attributions:
    for sample in samples:
        rng = _rng(seed, "random-boxes", sample)
        sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
        corners = rng.random(sides.shape) * ([sample.width, sample.height] - sides)
        covering = (sides > 0).all(axis=1)
        boxes = np.concatenate([corners, corners + sides], axis=1)[covering]
        yield sample, Attribution(sample.sample_id, boxes=boxes)


def _random_map(samples: Sequence[Sample], seed: int) -> Attributions:
    for sample in samples:
        noise = _rng(seed, "random-map", sample).random((_TOKEN_GRID, _TOKEN_GRID))
        yield sample, Attribution(sample.sample_id, saliency=noise.astype(np.float16))


def _mean_map(samples: Sequence[Sample], seed: int) -> Attributions:
    """The mean expert region of the other patients, on the image's own axes.

    Of the patients with the same finding and kind of evidence in the same source; where there is no other,
    of all findings; where the patient is alone in the source, everywhere equal (and thus no explanation).
    """
    sums: dict[_Group, FloatArray] = defaultdict(lambda: np.zeros((_PRIOR_GRID, _PRIOR_GRID)))
    members: dict[_Group, int] = defaultdict(int)
    of_patient: dict[tuple[_Group, str], list[Sample]] = defaultdict(list)
    for sample in {sample.region: sample for sample in samples}.values():
        region = _on_unit_square(sample)
        for group in _groups(sample):
            sums[group] += region
            members[group] += 1
            of_patient[group, sample.patient_id].append(sample)
    for sample in samples:
        prior = np.zeros((_PRIOR_GRID, _PRIOR_GRID))
        for group in _groups(sample):
            own = of_patient[group, sample.patient_id]
            if members[group] > len(own):
                others = sums[group] - sum(_on_unit_square(of_own) for of_own in own)
                prior = np.clip(others, 0, None) / (members[group] - len(own))
                break
        framed = Frame(sample.width, sample.height).embed(prior)
        yield sample, Attribution(sample.sample_id, saliency=framed.astype(np.float16))


_Group = tuple[str, ...]


def _groups(sample: Sample) -> tuple[_Group, _Group]:
    wide = (sample.source, sample.evidence)
    return (*wide, sample.finding), wide


def _on_unit_square(sample: Sample) -> FloatArray:
    scale = np.array([sample.width, sample.height] * 2) / _PRIOR_GRID
    return rasterise(sample.boxes / scale, _PRIOR_GRID, _PRIOR_GRID)


def _both_lungs(samples: Sequence[Sample], seed: int) -> Attributions:
    for sample in samples:
        missing = [lung for lung in LUNGS if lung not in sample.anatomy]
        if missing:
            raise UnavailableError(f"{sample.sample_id} has no box of the {missing[0]} (column anatomy)")
        boxes = np.concatenate([sample.anatomy[lung] for lung in LUNGS])
        yield sample, Attribution(sample.sample_id, boxes=clip_boxes(boxes, sample.width, sample.height))


def _image_edges(samples: Sequence[Sample], seed: int) -> Attributions:
    for sample in samples:
        try:
            image = sample.image
        except UnavailableError:  # whose message names folders, which a report must not hold
            raise UnavailableError(f"{sample.sample_id} has no image (column image)") from None
        frame = Frame(sample.width, sample.height)
        resized = Image.fromarray(image.astype(np.float32) / np.float32(255)).resize(
            frame.content_size, Image.Resampling.BICUBIC
        )
        edges = ndimage.gaussian_gradient_magnitude(np.asarray(resized, dtype=np.float32), sigma=1.5)
        scaled = np.round(edges * (255 / max(float(edges.max()), 1e-12)))
        yield sample, Attribution(sample.sample_id, saliency=frame.embed(scaled).astype(np.uint8))


NULL_CONTROLS: Final[dict[str, NullControl]] = {
    control.name: control
    for control in (
        NullControl("whole-image", "Whole image", "One box around everything.", _whole_image),
        NullControl("centre-box", "Centre box", "The central half of each side.", _centre_box),
        NullControl(
            "random-boxes",
            "Random boxes",
            "The expert boxes' sizes at random places: the right area, no knowledge of the place.",
            _random_boxes,
        ),
        NullControl("random-map", "Random map", "Independent noise on a 16 x 16 grid.", _random_map),
        NullControl(
            "mean-map",
            "Mean expert map",
            "The mean expert region of the other patients with the same finding: the prior of the place.",
            _mean_map,
        ),
        NullControl(
            "both-lungs", "Both lungs", "The boxes of the two lungs, whatever is asked.", _both_lungs
        ),
        NullControl("image-edges", "Image edges", "The gradient magnitude of the image.", _image_edges),
    )
}
