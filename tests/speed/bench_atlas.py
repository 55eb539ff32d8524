"""The atlas localiser: seconds an image; and its accuracy beside transport's on a number of phantoms:

python -m tests.speed.bench_atlas 24
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from time import process_time

import numpy as np

from medfocus_bench.data.concepts import CONCEPTS
from medfocus_bench.medfocus.concept_mask import tight_box
from medfocus_bench.medfocus.localisers import Localiser, localise
from medfocus_bench.medfocus.reference import phantom_pool
from medfocus_bench.phantom.render import Patient, render
from tests.speed.figures import Figure
from tests.speed.machine import Rates

SEED, BOUND = 41_000_000, 5.0


def run(rates: Rates) -> Iterator[Figure]:
    pool = phantom_pool()
    phantoms = [render(Patient.sample((SEED, 1000 + number))) for number in range(3)]
    times = []
    for phantom in phantoms:  # an image that was seen before costs nothing, so each is new
        start = process_time()
        localise(phantom.image, pool, "atlas")
        times.append(process_time() - start)
    first, other = times[0], float(np.median(times[1:]))
    masks = [mask for of_image in pool.masks for mask in of_image.values()]
    size = sum(array.nbytes for array in (*pool.images, *masks))
    yield Figure(
        f"atlas localiser, {len(pool)} references",
        other,
        "s",
        f"an image; {first:.1f} s the first",
        f"<= {BOUND:g} s",
        max(first, other) <= BOUND,
        rates.of_bytes(other, size, "pictures and masks of all references, read once"),
    )


def accuracy(count: int) -> None:
    """Mean box IoU by concept over phantoms that are not references, findings included."""
    pool = phantom_pool()
    found: dict[Localiser, list[list[float]]] = {"transport": [], "atlas": []}
    for number in range(count):
        phantom = render(Patient.sample((SEED, number)))
        for method, rows in found.items():
            regions = localise(phantom.image, pool, method)
            rows.append([_iou(regions[c].box, tight_box(phantom.concepts[c])) for c in CONCEPTS])
    means = [np.mean(rows, axis=0) for rows in found.values()]
    print(f"{count} phantoms{'':17}  " + "  ".join(f"{method:>9}" for method in found))
    for concept, *values in [*zip(CONCEPTS, *means, strict=True), ("mean", *(np.mean(m) for m in means))]:
        print(f"{concept:27}  " + "  ".join(f"{value:9.3f}" for value in values))


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    width, height = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None)
    areas = sum(float(np.prod(box[2:] - box[:2])) for box in (one, other))
    return float(width * height / (areas - width * height))


if __name__ == "__main__":
    accuracy(int(sys.argv[1]))
