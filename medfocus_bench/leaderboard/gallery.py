"""Pictures for a method's page: its best, its worst and random samples, with region and explanation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import numpy as np
from PIL import Image

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.sample import Sample
from medfocus_bench.drawing.colours import BACKGROUND
from medfocus_bench.drawing.overlay import dash_boxes, fit, overlay, plain
from medfocus_bench.engine.protocol import Engine, InProcess, Lost
from medfocus_bench.errors import InputError, SubmissionError, UnavailableError
from medfocus_bench.geometry import MODEL_SIZE
from medfocus_bench.leaderboard.result import Result
from medfocus_bench.leaderboard.scoring import part_of
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.submission.reader import Submission, reopen_submission

OPEN_SOURCES: Final = ("phantom",)
"""Whose pictures may be published; those of a licensed source never are."""

EACH: Final = 3
"""Pictures of each kind: the best, the worst, random ones."""

KINDS: Final = ("best", "worst", "random")

_LOT: Final = 20
"""Results whose galleries are drawn together."""

_SIDE: Final = 240
_GAP: Final = 6
_QUALITY: Final = 72
_EFFORT: Final = 0
"""Of WebP's encoder: 4, its default, takes four times as long for a fifth fewer bytes."""

_MAX_TOKENS: Final = 120
_LEVELS: Final = 6


@dataclass(frozen=True, slots=True)
class TokenMark:
    """A token of the response, and how much it counts: 0 to 5."""

    text: str
    level: int


@dataclass(frozen=True, slots=True)
class GalleryPicture:
    """One sample of a gallery. `file` is relative to the site; `tokens` may be empty."""

    kind: str
    file: str
    width: int
    height: int
    sample_id: str
    finding: str
    lvlm: str
    mode: str
    evidence: str
    score: float
    question: str
    response: str
    tokens: tuple[TokenMark, ...]
    concept: str | None
    shows: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A sample that the page of the method `name` shows."""

    name: str
    sample_id: str
    kind: str
    place: int
    score: float


def make_galleries(
    results: Sequence[Result],
    submissions: Path,
    benchmark: Benchmark,
    out: Path,
    *,
    opened: Mapping[str, Submission] | None = None,
    engine: Engine | None = None,
    progress: Progress = no_progress,
) -> dict[str, tuple[GalleryPicture, ...]]:
    """Draw the galleries of all results whose folder is in `submissions`; by the result's name.

    Files go to `out/gallery/<name>/`. A folder that is not the one that was scored is an InputError: the
    pictures would not be those of the scores. `engine` draws, if there is much.
    """
    shown = [result for result in results if (submissions / result.name).is_dir()]
    lots = [shown[start : start + _LOT] for start in range(0, len(shown), _LOT)]
    galleries: dict[str, tuple[GalleryPicture, ...]] = {}
    engine = InProcess() if engine is None or len(lots) < 2 else engine
    kept = opened or {} if isinstance(engine, InProcess) else {}  # workers open those of their lots
    draw = partial(_drawn, submissions=submissions, benchmark=benchmark, out=out, opened=kept)
    for _, drawn in progress(engine.run(draw, lots), "Drawing", len(lots)):
        if isinstance(drawn, Lost):
            raise OSError(f"the galleries cannot be drawn: {drawn.reason}")
        galleries |= drawn
    return galleries


def _drawn(results: Sequence[Result], **more: Any) -> Iterator[dict[str, tuple[GalleryPicture, ...]]]:
    yield _galleries(results, **more)


def _galleries(
    results: Sequence[Result],
    submissions: Path,
    benchmark: Benchmark,
    out: Path,
    opened: Mapping[str, Submission],
) -> dict[str, tuple[GalleryPicture, ...]]:
    """Those of a few results, of which each sample is decoded once."""
    chosen = {result.name: list(_choose(result, benchmark)) for result in results}
    wanted: dict[str, list[tuple[_Wanted, Submission]]] = {}
    for result in results:
        folder = submissions / result.name
        sample_ids = {one.sample_id for one in chosen[result.name]}
        sha256 = result.report.provenance.submission_sha256
        try:
            submission = opened.get(result.name) or reopen_submission(folder, sha256, sample_ids)
        except SubmissionError:
            raise InputError(f"{folder}: not what was scored as {result.name}; rebuild the result") from None
        for one in chosen[result.name]:
            wanted.setdefault(one.sample_id, []).append((one, submission))
    drawn: dict[_Wanted, GalleryPicture] = {}
    for sample in benchmark.samples:
        if sample.sample_id not in wanted:
            continue
        try:
            image = sample.image
        except UnavailableError:
            continue
        for one, submission in wanted[sample.sample_id]:
            drawn[one] = _draw(one, submission.attribution(sample.sample_id), sample, image, out)
    return {name: tuple(drawn[one] for one in found if one in drawn) for name, found in chosen.items()}


def _choose(result: Result, benchmark: Benchmark) -> Iterator[_Wanted]:
    """The samples to show: best and worst by the headline, then random ones.

    Of one patient only one sample is taken, so that the pictures differ.
    """
    scored = list(_scored_samples(result, benchmark))
    ordered = sorted(scored, key=lambda item: (-item[1], item[0].sample_id))
    rng = np.random.default_rng((0, crc32(result.name.encode())))
    shuffled = [scored[number] for number in rng.permutation(len(scored))]
    taken: set[tuple[str, str]] = set()
    for kind, candidates in zip(KINDS, (ordered, ordered[::-1], shuffled), strict=True):
        place = 0
        for sample, score in candidates:
            if place == EACH:
                break
            if sample.patient in taken:
                continue
            taken.add(sample.patient)
            yield _Wanted(result.name, sample.sample_id, kind, place, score)
            place += 1


def _scored_samples(result: Result, benchmark: Benchmark) -> Iterator[tuple[Sample, float]]:
    """The samples that a result covers with their headline, which stands in the order of the ids."""
    declared = result.report.benchmark
    part = benchmark.select(declared.configs, declared.splits)
    of_cell: dict[object, list[Sample]] = {}
    for sample in sorted(part.samples, key=lambda sample: sample.sample_id):
        of_cell.setdefault(part_of(sample), []).append(sample)
    for cell in result.headline.cells:
        samples = of_cell.get(cell.part, [])
        if len(samples) != len(cell.score):
            raise InputError(f"{result.name}: its result does not fit {benchmark.folder}; rebuild it")
        if cell.source in OPEN_SOURCES:
            yield from zip(samples, cell.score, strict=True)


def _draw(
    chosen: _Wanted,
    attribution: Attribution | None,
    sample: Sample,
    image: np.ndarray[tuple[int, int], np.dtype[np.uint8]],
    out: Path,
) -> GalleryPicture:
    size = fit(sample.width, sample.height, (_SIDE, _SIDE))
    left = plain(image, size)
    explained = None if attribution is None else overlay(image, attribution, size, MODEL_SIZE, left)
    right = explained if explained is not None else left.point(lambda value: value * 0.35)
    for picture in (left, right):
        dash_boxes(picture, sample.boxes * np.array([size[0] / sample.width, size[1] / sample.height] * 2))
    sheet = Image.new("RGB", (2 * size[0] + _GAP, size[1]), BACKGROUND)
    sheet.paste(left, (0, 0))
    sheet.paste(right, (size[0] + _GAP, 0))
    file = f"gallery/{chosen.name}/{chosen.kind}-{chosen.place + 1}.webp"
    path = out / file
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "WEBP", quality=_QUALITY, method=_EFFORT)
    return GalleryPicture(
        kind=chosen.kind,
        file=file,
        width=sheet.width,
        height=sheet.height,
        sample_id=sample.sample_id,
        finding=sample.finding,
        lvlm=sample.lvlm,
        mode=sample.mode,
        evidence=sample.evidence,
        score=chosen.score,
        question=sample.question[:2000],
        response=(sample.response or "")[:2000],
        tokens=_marks(attribution),
        concept=_concept(attribution),
        shows=_shows(attribution, explained is not None),
    )


def _shows(attribution: Attribution | None, explains: bool) -> str:
    if attribution is None:
        return "nothing: the sample is missing"
    if not explains:
        return "nothing: the explanation is empty or everywhere the same"
    if attribution.saliency is not None:
        return "its map, from dark (low) to pale yellow (high)"
    return "its boxes in yellow"


def _concept(attribution: Attribution | None) -> str | None:
    if attribution is None or not attribution.concepts:
        return None
    return max(attribution.concepts, key=lambda name: attribution.concepts[name])[:100]


def _marks(attribution: Attribution | None) -> tuple[TokenMark, ...]:
    """Tokens with levels relative to the largest score of the response."""
    if attribution is None or not attribution.tokens:
        return ()
    tokens = attribution.tokens[:_MAX_TOKENS]
    largest = max(0.0, *(score for _, score in tokens))
    return tuple(
        TokenMark(text[:100], round((_LEVELS - 1) * (max(score, 0.0) / largest)) if largest > 0 else 0)
        for text, score in tokens
    )
