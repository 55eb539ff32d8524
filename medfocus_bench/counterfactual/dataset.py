"""The causal filter over a source, and the dataset that its records make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medfocus_bench.counterfactual.records import Failure, Verification, read_verifications
from medfocus_bench.data.attach import Attached, write_attached, write_pointers
from medfocus_bench.data.columns import IMAGES
from medfocus_bench.data.medground import PublishedRecord
from medfocus_bench.data.questions import GREEDY, Mode, Question
from medfocus_bench.data.rows import split_of
from medfocus_bench.data.sources.protocol import Annotation, Skip, Source, Split
from medfocus_bench.data.sources.reading import iter_questions
from medfocus_bench.errors import InputError

NAME = "medfocus/cxr-causal"


def source_questions(annotations: Iterable[Annotation], root: Path) -> Iterator[Question | Failure]:
    """The questions with their pictures, and a failure for each whose picture cannot be used, in order."""
    failures: list[Failure] = []

    def note(annotation_source: str, skip: Skip) -> None:
        assert skip.index is not None
        failures.append(Failure(annotation_source, skip.index, "lesion", skip.reason))

    listed = list(annotations)
    source = listed[0].source if listed else ""
    for question in iter_questions(listed, root, lambda skip: note(source, skip)):
        yield from failures
        failures.clear()
        yield question
    yield from failures


def records_file(folder: Path, source: str, lvlm: str, mode: Mode, split: Split = "test") -> Path:
    """The file of the records of one run of the filter."""
    return folder / f"{source}-{split}-{lvlm}-{mode}.jsonl"


def all_records(folder: Path, source: Source) -> list[Verification]:
    """The records of all runs over a source in a folder: every LVLM, mode and split.

    Raises InputError without any, if two runs asked the same, or if a file holds another source.
    """
    files = sorted(folder.glob(f"{source.name}-*.jsonl"))
    records: list[Verification] = []
    place_of: dict[tuple[str, int, str, str], Path] = {}
    for path in files:
        for record in read_verifications(path):
            if record.source != source.name:
                raise InputError(f"{path}: holds records of {record.source}, not of {source.name}")
            key = (record.source, record.index, record.lvlm, record.mode)
            if key in place_of:
                raise InputError(f"{path}: asks again what {place_of[key]} asked; remove one of the files")
            place_of[key] = path
            records.append(record)
    if not records:
        raise InputError(
            f"{folder}: holds no records {source.name}-*.jsonl; `medfocus-bench verify --source "
            f"{source.name} --lvlm KEY --root COPIES --editor inpainting --out {folder}` writes them"
        )
    return sorted(records, key=lambda r: (r.index, r.lvlm, r.mode))


@dataclass(frozen=True, slots=True)
class Pointers:
    """The files of pointers that were written, with their number of rows."""

    rows: dict[str, int]


def build_dataset(
    source: Source,
    work: Path,
    root: Path | None,
    out: Path,
    *,
    version: str = "1.0.0",
    pointers: bool = False,
    overwrite: bool = False,
) -> Attached | Pointers:
    """The config of a source from all records in `work`: local with boxes, or pointers that may be shared.

    Raises InputError as `all_records` and `write_attached`; for a local one the root has to be given.
    """
    records = all_records(work, source)
    if pointers:
        return Pointers(write_pointers(map(pointer_row, records), out, overwrite=overwrite))
    if root is None:
        raise InputError("give --root, the folder of your copies, or --pointers for a config without boxes")
    return write_attached(
        list(_asked_rows(records)), root, out, name=NAME, version=version, overwrite=overwrite
    )


def _asked_rows(records: Sequence[Verification]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Rows with the finding that was asked about, which joining holds against the table's."""
    for record in records:
        row = pointer_row(record) | {"finding": record.finding}
        yield row["sample_id"], split_of(row), row


def pointer_row(record: Verification | PublishedRecord) -> dict[str, Any]:
    """The row of a record that points to its picture by source and index: it holds nothing of the source."""
    return {
        "sample_id": f"{record.source}-{record.index:05d}-{record.lvlm}-{record.mode}",
        "source": record.source,
        "index": record.index,
        "answer": "Yes",
        "lvlm": record.lvlm,
        "mode": record.mode,
        "response": record.responses["original"],
        "evidence": record.evidence,
        "group": record.group,
        **{f"answer_{name}": record.responses[name] for name in IMAGES},
        **{f"log_odds_{name}": record.log_odds.get(name) for name in (*IMAGES, "sham")},
        "decoding": None if record.decoding == GREEDY else record.decoding,
    }
