"""Rendering a phantom with all its masks."""

from __future__ import annotations

from medfocus_bench.phantom.render import Patient, render
from tests.speed.timing import report, seconds


def run() -> None:
    patients = [Patient.sample(seed) for seed in range(40)]
    each = seconds(lambda: [render(patient) for patient in patients], repeats=3) / len(patients)
    report("rendering a phantom at 224 x 224", f"{each * 1e3:.1f} ms", "<= 20 ms", each <= 0.02)
