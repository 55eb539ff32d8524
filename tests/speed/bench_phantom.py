"""Rendering a phantom with all its masks."""

from __future__ import annotations

from collections.abc import Iterator

from medfocus_bench.phantom.render import Patient, render
from tests.speed.figures import Figure, seconds
from tests.speed.machine import Rates


def run(rates: Rates) -> Iterator[Figure]:
    patients = [Patient.sample(seed) for seed in range(40)]
    each = seconds(lambda: [render(patient) for patient in patients], repeats=3) / len(patients)
    phantom = render(patients[0])
    size = phantom.image.nbytes + sum(mask.nbytes for mask in phantom.concepts.values())
    limit = rates.of_bytes(each, size, "picture and masks, written once")
    yield Figure("rendering a phantom at 224 x 224", each * 1e3, "ms", "", "<= 20 ms", each <= 0.02, limit)
