"""Open a submission: everything is checked first, then read one attribution at a time."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.resolve import BenchmarkLike, load_benchmark
from medfocus_bench.errors import SubmissionError
from medfocus_bench.submission.compatibility import incompatibilities, version_problem
from medfocus_bench.submission.counts import Counts, count
from medfocus_bench.submission.document import (
    DOCUMENT_NAME,
    DocumentError,
    Entries,
    ParsedDocument,
    parse_document,
    read_document,
    read_regular_file,
)
from medfocus_bench.submission.entry import to_attribution
from medfocus_bench.submission.maps import MapFileError, MapReader
from medfocus_bench.submission.raw import RawDocument
from medfocus_bench.submission.schema import AttributionEntry, BenchmarkRef, SubmissionDocument


@dataclass(frozen=True, slots=True)
class Submission:
    """A submission that passed every check. `sha256` is that of `submission.json`, which pins the maps.

    `document` is without its attributions, which are read one by one.
    """

    path: Path
    sha256: str
    document: SubmissionDocument
    _maps: MapReader | None
    _entries: Mapping[str, AttributionEntry] = field(repr=False)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Attribution]:
        """All attributions, each read when its turn comes."""
        return (found for key in self._entries if (found := self.attribution(key)) is not None)

    def __contains__(self, sample_id: str) -> bool:
        return sample_id in self._entries

    def attribution(self, sample_id: str) -> Attribution | None:
        """The attribution of one sample; None where the submission has none."""
        entry = self._entries.get(sample_id)
        if entry is None:
            return None
        if entry.map is None or self._maps is None or self.document.maps is None:
            return to_attribution(entry, None)
        return to_attribution(entry, self._maps.read(sample_id), self.document.maps.frame)


def open_submission(
    path: str | Path, benchmark: BenchmarkLike | None = None, *, any_version: bool = False
) -> Submission:
    """The submission at `path`: its folder, or the `submission.json` in it.

    With a `benchmark` (one that is loaded, its folder or its name), also checks that the submission is of it
    and fits its samples; `any_version` lets it be of another version. Raises SubmissionError with every
    problem found.
    """
    found = inspect_submission(Path(path), _opened(benchmark), any_version=any_version)
    if found.problems or found.submission is None:
        raise SubmissionError(found.problems)
    return found.submission


def reopen_submission(path: Path, sha256: str, wanted: Collection[str]) -> Submission:
    """The submission folder at `path`, which was valid when its document had this `sha256`.

    Only the `wanted` samples are read, and nothing else is checked again, in a fraction of the time of
    `open_submission`. Raises SubmissionError for another document or other maps.
    """
    file = path / DOCUMENT_NAME
    data = read_regular_file(file)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SubmissionError(f"{path}: is not the submission that was scored")
    value = json.loads(data)
    listed = value.pop("attributions")
    entries = [AttributionEntry.model_validate(entry) for entry in listed if entry["sample_id"] in wanted]
    document = SubmissionDocument.model_validate({**value, "attributions": []})
    maps = None
    if document.maps is not None:
        maps = MapReader(path / document.maps.file)
        if maps.sha256() != document.maps.sha256:
            raise SubmissionError(f"{path / document.maps.file}: is not the file of maps that was scored")
    return Submission(file, sha256, document, maps, {entry.sample_id: entry for entry in entries})


class Problems(list[str]):
    """Every problem of a submission, a sentence each, and the counts of a valid one.

    `counts` is None where there is a problem: the maps of an invalid submission are not read.
    """

    def __init__(self, problems: Iterable[str] = (), counts: Counts | None = None) -> None:
        super().__init__(problems)
        self.counts = counts

    @property
    def warnings(self) -> list[str]:
        """Sentences about valid content that may be unintended, such as samples without an attribution."""
        return self.counts.warnings if self.counts else []


def validate(
    path: str | Path, benchmark: BenchmarkLike | None = None, *, any_version: bool = False
) -> Problems:
    """Every problem of the submission at `path`, a sentence each; empty for a valid one.

    The list's `warnings` and `counts` tell how many attributions explain nothing; give the `benchmark` to
    count missing samples, too.

    >>> import medfocus_bench as mb
    >>> list(mb.validate("no-such-folder"))
    ['no-such-folder: does not exist; give a submission folder or the submission.json in it']
    """
    opened = _opened(benchmark)
    return inspect_submission(Path(path), opened, any_version=any_version).validated(opened)


@dataclass(frozen=True, slots=True)
class Inspection:
    """A submission whose document was read, parsed and held against its maps once.

    `parsed` and `raw` are None where the document cannot be read, `submission` where it is unsound.
    """

    problems: tuple[str, ...]
    submission: Submission | None = None
    parsed: ParsedDocument | None = None
    raw: RawDocument | None = None
    maps: MapReader | None = None

    def validated(self, benchmark: Benchmark | None) -> Problems:
        """The problems; of a sound submission, what it says of the samples of `benchmark`."""
        if self.problems or self.submission is None:
            return Problems(self.problems)
        declared = self.submission.document.benchmark
        part = benchmark and benchmark.select(declared.configs, declared.splits)
        try:
            return Problems(counts=count(self.submission, None if part is None else len(part.samples)))
        except SubmissionError as problem:
            return Problems(problem.problems)


def _opened(benchmark: BenchmarkLike | None) -> Benchmark | None:
    return None if benchmark is None else load_benchmark(benchmark)


def inspect_submission(
    path: Path, benchmark: Benchmark | None = None, *, any_version: bool = False
) -> Inspection:
    """As `open_submission`, but returns the problems beside whatever is sound."""
    file = path if path.suffix == ".json" else path / DOCUMENT_NAME
    if not os.path.lexists(path):
        return Inspection((f"{path}: does not exist; give a submission folder or the {DOCUMENT_NAME} in it",))
    try:
        raw = read_document(file)
    except DocumentError as problem:
        return Inspection((str(problem),))
    parsed = parse_document(raw, str(file))
    check = _Check(raw.head, str(file), parsed)
    problems = [*parsed.problems, *check.duplicates()]
    maps, map_problems = check.maps(file.parent)
    problems += map_problems
    if benchmark is not None:
        problems += check.fits(benchmark, any_version)
    submission = None
    if parsed.document is not None:
        sha256 = hashlib.sha256(raw.data).hexdigest()
        submission = Submission(file, sha256, parsed.document, maps, _BySample(parsed.attributions))
    return Inspection(tuple(problems), submission, parsed, raw, maps)


class _BySample(Mapping[str, AttributionEntry]):
    """The attributions of a document by sample_id, decoded on access."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._places = {sample_id: index for index, sample_id in entries.ids.items()}

    def __getitem__(self, sample_id: str) -> AttributionEntry:
        return self._entries[self._places[sample_id]]

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self._places  # the mixin's would decode the entry

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@dataclass(frozen=True, slots=True)
class _Check:
    """The checks that the schema cannot express, on the valid parts of a document."""

    head: Any
    name: str
    parsed: ParsedDocument

    def _at(self, index: int, *rest: int | str) -> str:
        return self.parsed.at(self.name, index, *rest)

    def duplicates(self) -> Iterator[str]:
        seen = Counter(self.parsed.attributions.ids.values())
        for index, sample_id in self.parsed.attributions.ids.items():
            if seen[sample_id] > 1:
                yield f"{self._at(index)}: the sample stands {seen[sample_id]} times; keep one entry"

    def maps(self, folder: Path) -> tuple[MapReader | None, list[str]]:
        ids = self.parsed.attributions.ids
        wanted = {ids[index]: index for index in sorted(self.parsed.mapped)}
        declared = self.parsed.maps
        if declared is None:
            lacks = wanted and self.head.get("maps") is None
            return None, [f'{self.name}: /maps: is required, since samples have "map": true'] * bool(lacks)
        path = folder / declared.file
        try:
            reader = MapReader(path)
        except MapFileError as problem:
            return None, [str(problem)]
        problems = [
            f'{self._at(i)}: has "map": true, but {path} holds no map of that key'
            for key, i in wanted.items()
            if key not in reader.keys
        ]
        unusable = {key: trouble for key in sorted(reader.keys) if (trouble := reader.problem(key))}
        stray = reader.keys - wanted.keys() - unusable.keys() if self.parsed.complete else ()
        problems += [f"{path}: the map {key[:200]!r} {trouble}" for key, trouble in unusable.items()]
        problems += [
            f'{path}: the map {key[:200]!r} belongs to no sample with "map": true; remove it or add the entry'
            for key in sorted(stray)
        ]
        if not problems and reader.sha256() != declared.sha256:
            problems.append(f"{self.name}: /maps/sha256: is not that of {path}; the file was changed")
        return reader, problems

    def fits(self, benchmark: Benchmark, any_version: bool) -> Iterator[str]:
        made_for = self.parsed.benchmark
        if made_for is None:
            return
        if made_for.dataset != benchmark.name:
            yield (
                f"{self.name}: /benchmark/dataset: the submission is of {made_for.dataset!r}, "
                f"this benchmark is {benchmark.name!r}"
            )
            return
        if made_for.fingerprint != benchmark.fingerprint and not any_version:
            entries = list(self.parsed.attributions.ids.values())
            yield f"{self.name}: /benchmark/fingerprint: {version_problem(made_for, benchmark, entries)}"
        unknown = [
            f"{self.name}: /benchmark/{kind}: no {name!r} in the benchmark, only {', '.join(known)}"
            for kind, names, known in (
                ("configs", made_for.configs, benchmark.configs),
                ("splits", made_for.splits, benchmark.known_splits),
            )
            for name in names
            if name not in known
        ]
        yield from unknown
        if not unknown:
            yield from self._samples(benchmark.select(made_for.configs, made_for.splits), made_for)

    def _samples(self, part: Benchmark, covered: BenchmarkRef) -> Iterator[str]:
        selected = {sample.sample_id: sample for sample in part.samples}
        covers = f"{', '.join(covered.configs)} / {', '.join(covered.splits)}"
        if not selected:
            yield f"{self.name}: /benchmark: the benchmark holds no samples in {covers}"
            return
        lacking = set(self.parsed.attributions.ids.values()) - selected.keys()
        rows = part.ungrounded(lacking) if lacking else {}
        if rows:
            counts = Counter(rows.values())
            listed = ", ".join(f"{group} {number}" for group, number in sorted(counts.items()))
            yield (
                f"{self.name}: /attributions: {len(rows)} are of rows of the dataset that are not grounded "
                f"({listed}), such as {min(rows)}: nothing says which region drives those answers, so they "
                "are not samples; leave them out"
            )
        for index, entry in self.parsed.attributions.items():
            if entry.sample_id in rows:
                continue
            for at, problem in incompatibilities(entry, selected, covers):
                yield f"{self._at(index, *at)}: {problem}"
