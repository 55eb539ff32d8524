"""The effects of the phantom's causes on its models: which words hang on them, and through which concepts.

Measured by healing, that is by replacing pixels of the picture by those of its counterfactual. Every response
is teacher-forced as it stands in the track, in fp32. The shipped file is made by

    python -c "from medfocus_bench.phantom.effects import *; write_effects('effects.work')"

in half an hour on one core; stopped, the same line goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.concepts import COMPOSITES
from medfocus_bench.data.sample import Sample
from medfocus_bench.engine.protocol import Engine, InProcess, Lost
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.faithfulness import token_log_probs
from medfocus_bench.geometry import BoolArray
from medfocus_bench.journal import Journal
from medfocus_bench.lock import exclusive
from medfocus_bench.lvlm.fitting import fitting
from medfocus_bench.lvlm.registry import kept_lvlm
from medfocus_bench.phantom import EXACT
from medfocus_bench.phantom.render import render
from medfocus_bench.phantom.track import patient_of
from medfocus_bench.phantom.truth import EFFECTS_NAME, EFFECTS_SCHEMA, FOLDER
from medfocus_bench.progress import Progress, no_progress

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM

JOURNAL_NAME: Final = "effects.jsonl"
_BLOCK: Final = 8


def write_effects(
    work: str | Path,
    folder: str | Path = FOLDER,
    samples: Sequence[Sample] | None = None,
    *,
    engine: Engine | None = None,
    progress: Progress = no_progress,
) -> Path:
    """Measure the effects of samples of the track, by default of all, and write their file to `folder`.

    Each sample goes to a journal in `work` at once, and is not measured again. Raises InputError where
    another process writes there.
    """
    benchmark = shipped_track()
    samples = benchmark.samples if samples is None else samples
    path = Path(work) / JOURNAL_NAME
    with exclusive(path):
        journal = Journal(path, {"format": "medfocus-bench effects 1", "fingerprint": benchmark.fingerprint})
        lacking = [sample for sample in samples if sample.sample_id not in journal.records]
        made = (engine or InProcess()).run(measured_effects, _blocks(lacking))
        for _, record in progress(made, "Effects", len(lacking)):
            if isinstance(record, Lost):
                raise InputError(f"{path}: {record.reason}; the same call goes on from here")
            journal.add([record])
        rows = [journal.records[sample.sample_id] for sample in samples]
    out = Path(folder) / EFFECTS_NAME
    out.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, schema=EFFECTS_SCHEMA)
    pq.write_table(table, out, compression="zstd", compression_level=19, use_dictionary=True)
    return out


def shipped_track() -> Benchmark:
    """All samples of the shipped track."""
    from medfocus_bench.data.benchmark import read_benchmark
    from medfocus_bench.phantom import TRACK

    return read_benchmark(TRACK)


def measured_effects(samples: Sequence[Sample]) -> Iterator[dict[str, Any]]:
    """The work of an engine: the row of each sample of one LVLM."""
    lvlm = kept_lvlm(samples[0].lvlm, **EXACT)
    for sample in samples:
        yield effects_of(lvlm, sample)


def effects_of(lvlm: HuggingFaceLVLM, sample: Sample) -> dict[str, Any]:
    """The row of one sample in `EFFECTS_SCHEMA`."""
    response = sample.response
    if response is None:
        raise InputError(f"{sample.sample_id}: has no response")
    original, healed = sample.image, sample.counterfactual
    parts = _parts(sample)
    places = list(dict.fromkeys(part.tobytes() for part in parts.values() if part.any()))
    masks = [np.frombuffer(place, dtype=np.bool_).reshape(original.shape) for place in places]
    pictures = [original, healed, *(np.where(mask, healed, original) for mask in masks)]
    odds = fitting(lvlm, "effects", lambda: lvlm.token_log_odds(pictures, sample.question, response))
    log_probs = token_log_probs(odds)
    drops = log_probs[0].sum() - log_probs.sum(1)
    of_place = dict(zip(places, drops[2:].tolist(), strict=True))
    return {
        "sample_id": sample.sample_id,
        "tokens": list(lvlm.encode(original, sample.question, response).tokens),
        "token_effects": (log_probs[0] - log_probs[1]).tolist(),
        "concepts": list(parts),
        "concept_effects": [of_place.get(part.tobytes(), 0.0) for part in parts.values()],
        "drop": float(drops[1]),
    }


def _parts(sample: Sample) -> dict[str, BoolArray]:
    """The part of the cause that lies in each concept and composite of the picture."""
    regions = render(patient_of(sample.index, sample.evidence)).concepts
    unions = {
        name: np.logical_or.reduce([regions[member] for member in members])
        for name, members in COMPOSITES.items()
    }
    return {name: region & sample.mask for name, region in (*regions.items(), *unions.items())}


def _blocks(samples: Iterable[Sample]) -> Iterator[tuple[Sample, ...]]:
    """Samples in blocks of one LVLM each, an LVLM after the other."""
    of_lvlm: dict[str, list[Sample]] = {}
    for sample in samples:
        of_lvlm.setdefault(sample.lvlm, []).append(sample)
    for held in of_lvlm.values():
        waiting = iter(held)
        while block := tuple(islice(waiting, _BLOCK)):
            yield block
