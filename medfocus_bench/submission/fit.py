"""Whether an attribution fits the benchmark: what the schema cannot know, for the reader and the writer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from medfocus_bench.data.columns import Sample
from medfocus_bench.submission.schema import BOX_TOLERANCE, AttributionEntry


def misfits(
    entry: AttributionEntry, samples: Mapping[str, Sample], covers: str
) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """What is wrong with an entry, held against the samples that the submission `covers`.

    Each problem is the place inside the entry and the rest of the sentence.
    """
    sample = samples.get(entry.sample_id)
    if sample is None:
        yield ("sample_id",), f"no such sample in {covers}; remove it"
        return
    for number, (_, _, x2, y2) in enumerate(entry.boxes or ()):
        if x2 > sample.width + BOX_TOLERANCE or y2 > sample.height + BOX_TOLERANCE:
            yield (
                ("boxes", number),
                f"reaches out of the image of {sample.width} x {sample.height} pixels; "
                "boxes are in native pixels",
            )
