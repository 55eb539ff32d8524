"""Check a user's copies of the licensed sources: which files are there, missing or unusable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medfocus_bench.data.pixels import PictureError
from medfocus_bench.data.questions import Question
from medfocus_bench.data.sources.protocol import Annotation, Annotations, Skip, Source, Split
from medfocus_bench.data.sources.reading import OtherCopyError, check_copy, locate, read_question
from medfocus_bench.data.sources.registry import installed_sources, open_source, published_sources
from medfocus_bench.data.sources.tables import find_table
from medfocus_bench.errors import InputError
from medfocus_bench.progress import Progress, no_progress


@dataclass(frozen=True, slots=True)
class Count:
    """The questions of a split: as published, in the table, and those whose picture can be used."""

    split: Split
    expected: int
    found: int
    usable: int


@dataclass(frozen=True, slots=True)
class Examination:
    """The check of one source.

    `problem` is why nothing of it can be used, if so: its table, or pictures of another copy. `notes` name
    optional files that are not there, `skips` are all rows and pictures that cannot be used, `samples` some
    decoded questions over the whole range.
    """

    source: Source
    table: Path | None
    problem: str | None
    notes: tuple[str, ...]
    counts: tuple[Count, ...]
    skips: tuple[Skip, ...]
    samples: tuple[Question, ...]

    @property
    def complete(self) -> bool:
        counts_hold = all(count.expected == count.found == count.usable for count in self.counts)
        return self.problem is None and counts_hold and not self.skips


def sources_to_examine(root: Path, names: Sequence[str]) -> list[Source]:
    """Those that are named; else the published ones, and any other of which there is a table."""
    if names:
        return [open_source(name) for name in dict.fromkeys(names)]
    return [
        source
        for name, source in installed_sources().items()
        if name in published_sources() or any((root / table).is_file() for table in source.tables)
    ]


def examine(
    source: str | Source,
    root: str | Path,
    *,
    samples: int = 4,
    decode_all: bool = False,
    progress: Progress = no_progress,
) -> Examination:
    """Read the table of a source (or of the one of that name) and the header of every picture.

    Some or all of the pictures are decoded. Raises InputError if the root is not a folder, and for an unknown
    source; whatever else is wrong is part of the result.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: is not a folder; give the one that holds your copies of the sources")
    if isinstance(source, str):
        source = open_source(source)
    try:
        table = find_table(root, source.tables)
        parts = [source.annotations(root, split) for split in source.expected]
    except InputError as error:
        return Examination(source, None, error.problems[0], (), (), (), ())
    try:
        for part in parts:
            check_copy(part, root)
    except OtherCopyError as error:
        none = tuple(Count(part.split, source.expected[part.split], part.found, 0) for part in parts)
        lost = tuple(skip for part in parts for skip in part.skips)
        return Examination(source, table, error.problems[0], (), none, lost, ())
    counts, skips = [], []
    for part in parts:
        check = read_question if decode_all else locate
        unusable = _unusable(part, root, check, progress)
        skips += [*part.skips, *unusable]
        usable = len(part.questions) - len(unusable)
        counts.append(Count(part.split, source.expected[part.split], part.found, usable))
    unused = {skip.index for skip in skips}
    usable_questions = [q for part in parts for q in part.questions if q.index not in unused]
    shown, failed = _samples(usable_questions, root, samples)
    notes = tuple(
        f"{root / place}: is not there; without it {lacking}"
        for place, lacking in source.optional.items()
        if not (root / place).is_file()
    )
    return Examination(source, table, None, notes, tuple(counts), (*skips, *failed), tuple(shown))


def _unusable(
    part: Annotations,
    root: Path,
    check: Callable[[Annotation, Path], object],
    progress: Progress,
) -> list[Skip]:
    skips = []
    for annotation in progress(part.questions, f"{part.source} {part.split}", len(part.questions)):
        try:
            check(annotation, root)
        except PictureError as error:
            skips.append(Skip(annotation.place, str(error), annotation.index))
    return skips


def _samples(annotations: Sequence[Annotation], root: Path, wanted: int) -> tuple[list[Question], list[Skip]]:
    """Questions at even distances, decoded; those that fail are skips."""
    places = np.linspace(0, len(annotations) - 1, min(wanted, len(annotations))).round().astype(int)
    shown: list[Question] = []
    failed: list[Skip] = []
    for place in dict.fromkeys(places.tolist()):
        try:
            shown.append(read_question(annotations[place], root))
        except PictureError as error:
            failed.append(Skip(annotations[place].place, str(error), annotations[place].index))
    return shown, failed
