"""A toy benchmark with toy submissions: images of several sizes, something to evaluate within seconds.

Ellipses for lungs and blobs for findings; no model ever looked at them. It shows how the evaluator behaves
and says nothing about any method.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from medfocus_bench._version import __version__
from medfocus_bench.attribution.attribution import Attribution, Cost
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.sample import Sample
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.geometry import FloatArray, Frame
from medfocus_bench.submission.schema import MethodMetadata
from medfocus_bench.submission.writer import SubmissionWriter

_SIZES = ((224, 224), (512, 400), (320, 448), (640, 512))
_FINDINGS = {"nodule": 0.05, "mass": 0.1, "consolidation": 0.18, "effusion": 0.28}
_LVLMS = ("toy_a", "toy_b")
_LUNGS = {"right lung": (0.12, 0.15, 0.45, 0.85), "left lung": (0.55, 0.15, 0.88, 0.85)}


def write_toy(folder: str | Path, *, patients: int = 60, seed: int = 0, control: bool = False) -> Benchmark:
    """Writes `folder/benchmark` and submissions of falling quality under `folder/submissions`.

    With `control` they explain that split, too, with maps that find nothing, as a method does that reads a
    random decoder.
    """
    root = Path(folder)
    benchmark = write_benchmark(
        root / "benchmark", {"direct": _rows(patients, seed)}, name="toy", version=__version__
    )
    for name, (blur, shift, noise, description) in _METHODS.items():
        method = MethodMetadata(
            name=name, family="other", version="1", description=description, needs=["forward"], licence="MIT"
        )
        target = root / "submissions" / name
        covered = benchmark.part((), ["direct", "control"] if control else ["direct"])
        with SubmissionWriter(target, method, covered, submitters=["toy"], overwrite=True) as writer:
            for number, sample in enumerate(benchmark.samples):
                rng = np.random.default_rng((seed, 2, number))
                saliency = _distorted(sample, blur, shift, noise, rng)
                cost = Cost(forward_passes=1, seconds=0.0)
                writer.add(Attribution(sample.sample_id, saliency=saliency, cost=cost))
            for number, sample in enumerate(covered.derived.control if control else ()):
                found = np.random.default_rng((seed, 3, number)).random((16, 16))
                writer.add(Attribution(sample.sample_id, saliency=found.astype(np.float16)))
    return benchmark


_METHODS = {
    "oracle": (0.0, 0.0, 0.0, "The evidence region itself."),
    "blurred": (0.15, 0.0, 0.0, "The evidence region, much blurred."),
    "shifted": (0.03, 0.5, 0.0, "The evidence region, blurred and moved by half its size."),
    "noisy": (0.03, 0.0, 2.0, "The evidence region, blurred, in noise of twice its height."),
}


def _distorted(
    sample: Sample, blur: float, shift: float, noise: float, rng: np.random.Generator
) -> FloatArray:
    frame = Frame(sample.width, sample.height)
    sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
    moved = sample.boxes + shift * np.concatenate([sides, sides], axis=1)
    covered = ndimage.gaussian_filter(frame.coverage(moved), blur * max(frame.content_size))
    covered += noise * rng.standard_normal(covered.shape)
    return frame.embed(covered).astype(np.float16)


def _rows(patients: int, seed: int) -> Iterator[dict[str, Any]]:
    for patient in range(patients):
        rng = np.random.default_rng((seed, 1, patient))
        width, height = _SIZES[patient % len(_SIZES)]
        for number, finding in enumerate(rng.choice(list(_FINDINGS), size=2, replace=False).tolist()):
            index = 2 * patient + number
            box = _place(rng, width, height, _FINDINGS[finding])
            pixels = _radiograph(rng, width, height, box)
            for lvlm in _LVLMS:
                yield {
                    "sample_id": f"toy-{index:05d}-{lvlm}-direct",
                    "source": "toy",
                    "index": index,
                    "patient_id": f"p{patient:03d}",
                    "image": {"bytes": pixels, "path": None},
                    "width": width,
                    "height": height,
                    "finding": finding,
                    "question": f"Is there evidence of {finding} in the image?",
                    "answer": "Yes",
                    "lvlm": lvlm,
                    "mode": "direct",
                    "response": "Yes.",
                    "boxes": [box],
                    "evidence": "lesion",
                    "group": "grounded",
                    "anatomy": [
                        {"concept": name, "box": [x1 * width, y1 * height, x2 * width, y2 * height]}
                        for name, (x1, y1, x2, y2) in _LUNGS.items()
                    ],
                }


def _place(rng: np.random.Generator, width: int, height: int, size: float) -> list[float]:
    x1, y1, x2, y2 = _LUNGS["right lung" if rng.random() < 0.5 else "left lung"]
    half = size * rng.uniform(0.8, 1.2) / 2
    x, y = rng.uniform(x1 + 0.1, x2 - 0.1), rng.uniform(y1 + 0.15, y2 - 0.15)
    box = np.clip([x - half, y - half, x + half, y + half], 0, 1) * [width, height, width, height]
    return [float(edge) for edge in np.round(box)]


def _radiograph(rng: np.random.Generator, width: int, height: int, box: list[float]) -> bytes:
    y, x = np.mgrid[0:height, 0:width]
    grey = np.full((height, width), 0.65)
    for x1, y1, x2, y2 in _LUNGS.values():
        grey -= 0.4 * _ellipse(x / width, y / height, (x1, y1, x2, y2))
    grey += 0.3 * _ellipse(x, y, tuple(box))
    grey = ndimage.gaussian_filter(grey, 0.01 * width) + 0.02 * rng.standard_normal(grey.shape)
    file = BytesIO()
    Image.fromarray(np.round(np.clip(grey, 0, 1) * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _ellipse(x: FloatArray, y: FloatArray, box: tuple[float, ...]) -> FloatArray:
    x1, y1, x2, y2 = box
    across = (2 * x - x1 - x2) / (x2 - x1)
    down = (2 * y - y1 - y2) / (y2 - y1)
    return (across**2 + down**2 < 1).astype(np.float64)
