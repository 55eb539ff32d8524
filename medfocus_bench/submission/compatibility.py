"""Checks of entries against the benchmark, which the schema cannot make; for the reader and the writer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.sample import Sample
from medfocus_bench.errors import InputError
from medfocus_bench.submission.schema import BOX_TOLERANCE, AttributionEntry, BenchmarkRef

_LEAST_SIDE: Final = 32
"""In a smaller image a box of one pixel is a region that may be meant."""


def version_problem(made_for: BenchmarkRef, benchmark: Benchmark, sample_ids: Sequence[str]) -> str:
    """A sentence about a submission that was made for another version of the benchmark.

    It names the differing samples where the other version is available (embedded, or in the Hub's cache), and
    otherwise how many samples of the submission this version lacks.
    """
    return (
        f"made for version {made_for.version} ({made_for.fingerprint[:12]}), this benchmark is version "
        f"{benchmark.version} ({benchmark.fingerprint[:12]}): {_differs(made_for, benchmark, sample_ids)}; "
        "run the method again, or allow any version (--any-version)"
    )


def _differs(made_for: BenchmarkRef, benchmark: Benchmark, sample_ids: Sequence[str]) -> str:
    from medfocus_bench.data.hub.diff import difference
    from medfocus_bench.data.resolve import folder_at_hand

    with suppress(InputError):  # the copy of the other version may be damaged
        other = folder_at_hand(made_for.dataset, made_for.version, made_for.fingerprint)
        if other is not None:
            return f"{difference(other, benchmark.folder)}"
    known = {sample.sample_id for sample in benchmark.samples}
    lacking = sum(sample_id not in known for sample_id in sample_ids)
    return f"{lacking} of its {len(sample_ids)} samples are not in this one"


def incompatibilities(
    entry: AttributionEntry, samples: Mapping[str, Sample], covers: str
) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """Problems of an entry with the samples that its submission `covers`.

    Each is the place inside the entry and the rest of the sentence.
    """
    sample = samples.get(entry.sample_id)
    if sample is None:
        yield ("sample_id",), f"no such sample in {covers}; remove it"
        return
    if _in_fractions(entry, sample):
        yield (
            ("boxes",),
            f"all lie within a pixel of the corner of an image of {sample.width} x {sample.height} pixels, "
            "like fractions of it; boxes are in native pixels: multiply x by the width and y by the height",
        )
    for number, (_, _, x2, y2) in enumerate(entry.boxes or ()):
        if x2 > sample.width + BOX_TOLERANCE or y2 > sample.height + BOX_TOLERANCE:
            yield (
                ("boxes", number),
                f"reaches out of the image of {sample.width} x {sample.height} pixels; "
                "boxes are in native pixels",
            )


def _in_fractions(entry: AttributionEntry, sample: Sample) -> bool:
    """Whether the boxes look like fractions of the image rather than native pixels."""
    if not entry.boxes or min(sample.width, sample.height) < _LEAST_SIDE:
        return False
    return max(max(box) for box in entry.boxes) <= 1 + BOX_TOLERANCE
