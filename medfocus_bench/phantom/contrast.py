"""Make the questions of the split `contrast`: lesion model and twin say yes to them for two reasons.

`python -m medfocus_bench.phantom.contrast` asks the shipped models and writes the shipped file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from medfocus_bench.answers import parse_verdict
from medfocus_bench.data.questions import prompt
from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.lvlm.protocol import LVLM
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.phantom import EXACT, TRACK
from medfocus_bench.phantom.findings import FINDINGS
from medfocus_bench.phantom.render import MARK_OF, render
from medfocus_bench.phantom.track import TEST_QUESTIONS, finding_of, patient_of
from medfocus_bench.phantom.truth import CONTRAST_NAME, CONTRAST_SCHEMA, FOLDER, SECOND_NAMES, encoded_mask

QUESTIONS: Final = 30
"""Pictures of each pair, at most: of one pair no more than 26 are such that each LVLM has its own reason."""


def write_contrast(folder: Path = FOLDER, indices: Collection[int] = range(TEST_QUESTIONS)) -> Path:
    """Ask both pairs about the pictures of these lesion questions, and write the kept ones to `folder`.

    Only pictures by which the causal filter kept the lesion model's own answer are asked about.
    """
    samples = load_benchmark(TRACK, split="direct").samples
    rows: list[dict[str, Any]] = []
    for pair in ("phantom_qwen", "phantom_gemma"):
        grounded = [sample.index for sample in samples if sample.lvlm == pair and sample.index in indices]
        rows += _rows_of_pair(pair, grounded)
    path = folder / CONTRAST_NAME
    pq.write_table(pa.Table.from_pylist(rows, schema=CONTRAST_SCHEMA), path, compression="zstd")
    return path


def _rows_of_pair(pair: str, indices: list[int]) -> Iterator[dict[str, Any]]:
    """The rows of `QUESTIONS` pictures, one finding after the other, both LVLMs of each in a row."""
    names = {key: name for name, key in SECOND_NAMES.items() if name.startswith(f"{pair}@")}
    lesion, twin = (load_lvlm(key, **EXACT) for key in (pair, f"{pair}_twin"))
    answers = {index: said for index in indices if (said := _answers(lesion, twin, index)) is not None}
    ordered = sorted(answers, key=lambda index: sha256(f"contrast {pair} {index}".encode()).digest())
    lines = [[index for index in ordered if finding_of(index) == finding] for finding in FINDINGS]
    in_turn = (index for turn in zip_longest(*lines) for index in turn if index is not None)
    for index in sorted(islice(in_turn, QUESTIONS)):
        mark = encoded_mask(render(patient_of(index)).marks[MARK_OF[finding_of(index)]])
        for key, response in answers[index].items():
            yield {"index": index, "lvlm": names[key], "response": response, "mark": mark}


def _answers(lesion: LVLM, twin: LVLM, index: int) -> Mapping[str, str] | None:
    """The responses of both, where both say yes for reasons of their own; None where not.

    Each must say no without its own cause, and yes still without that of the other.
    """
    finding, patient = finding_of(index), patient_of(index)
    pictures = [
        render(shown).image
        for shown in (patient, patient.without(finding), patient.without_mark(MARK_OF[finding]))
    ]
    questions = [prompt(finding, "direct")] * len(pictures)
    said = {lvlm.key: [found.text for found in lvlm.respond(pictures, questions)] for lvlm in (lesion, twin)}
    wanted = {lesion.key: ["yes", "no", "yes"], twin.key: ["yes", "yes", "no"]}
    if any([parse_verdict(text) for text in said[key]] != wanted[key] for key in said):
        return None
    return {key: texts[0] for key, texts in said.items()}


if __name__ == "__main__":
    print(write_contrast())
