"""Explain a picture of the user's own with several methods: maps, boxes, overlays and a panel."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import Field

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.images import decode_uint8, header_size
from medfocus_bench.data.pixels import MAX_FILE_BYTES
from medfocus_bench.data.questions import GREEDY, Decoding
from medfocus_bench.data.sample import Sample
from medfocus_bench.drawing.concepts import ConceptDrawing, concept_panel
from medfocus_bench.drawing.overlay import fit, overlay, plain
from medfocus_bench.drawing.panel import TILE_SIZE, Tile, panel
from medfocus_bench.errors import InputError
from medfocus_bench.geometry import Frame, UInt8Image
from medfocus_bench.lvlm.fitting import OutOfMemoryError
from medfocus_bench.lvlm.grid import Preprocessing
from medfocus_bench.lvlm.protocol import NotFiniteError
from medfocus_bench.progress import Progress, no_progress
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.explaining import EXPECTED, encode, explain, reason
from medfocus_bench.runs.methods import MethodSpec, metadata
from medfocus_bench.runs.settings import write_document
from medfocus_bench.storage import atomic_folder, read_regular
from medfocus_bench.submission.entry import to_entry
from medfocus_bench.submission.maps import MAPS_NAME, MapWriter
from medfocus_bench.submission.schema import AttributionEntry, Finite, MethodMetadata, Strict

if TYPE_CHECKING:
    from medfocus_bench.lvlm.adapter import HuggingFaceLVLM

EXPLANATIONS_NAME: Final = "explanations.json"
PANEL_NAME: Final = "panel.png"
CONCEPTS_PREFIX: Final = "concepts-"
"""Before the name of a method's overlay: the panel of its concepts and tokens."""

_OVERLAY_SIZE: Final = (1024, 1024)
"""Width and height that an overlay has at most; a smaller picture keeps its own."""

_CONCEPTS_PICTURE: Final = 480
"""Sides that the picture of a panel of concepts has at most."""

_NEEDS_SAMPLES: Final = ("random-boxes", "mean-map", "both-lungs")
"""Null controls that need expert boxes, which a user's own image does not have."""

_SAMPLE_ID: Final = "picture"
_MODE: Final = "direct"
"""Whose tuned settings a picture is explained with."""


@dataclass(frozen=True, slots=True, eq=False)
class UserImage:
    """A picture of the user's own: the name of its file, and its pixels (height, width)."""

    name: str
    image: UInt8Image


@dataclass(frozen=True, slots=True, eq=False)
class PictureExplanation:
    """The attribution of one method, or in `error` one line with the reason why it failed.

    `entry` is the attribution as a submission states it; `intervals`: those of the scores of its concepts.
    """

    method: MethodMetadata
    attribution: Attribution | None = None
    entry: AttributionEntry | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ExplainedPicture:
    """A picture with the question, the response and what every method says of it."""

    picture: UserImage
    lvlm: str
    model_size: int
    question: str
    response: str
    config: RunConfig
    explanations: tuple[PictureExplanation, ...]


class ExplanationEntry(Strict):
    """One method of `explanations.json`."""

    method: MethodMetadata
    explanation: AttributionEntry | None = None
    diagnostics: dict[str, Finite] = Field(default_factory=dict)
    intervals: dict[str, tuple[Finite, Finite]] = Field(default_factory=dict)
    overlay: str | None = None
    error: str | None = None


class ExplanationsDocument(Strict):
    """The content of `explanations.json`; boxes are in pixels of the picture.

    `framing` to `pixels` say how the LVLM ran; documents of before they were kept have none.
    """

    image: str
    width: int
    height: int
    lvlm: str
    question: str
    response: str
    target: str
    seed: int
    decoding: Decoding = GREEDY
    framing: Preprocessing | None = None
    dtype: str | None = None
    quantise: str | None = None
    pixels: tuple[int, int] | None = None
    explanations: list[ExplanationEntry]


def read_picture(path: Path) -> UserImage:
    """A PNG or JPEG, of 8 or 16 bits and any size. Raises InputError for anything else."""
    try:
        data = read_regular(path, MAX_FILE_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if header_size(data) is None:
        raise InputError(f"{path}: is not a PNG or JPEG picture")
    return UserImage(path.name, decode_uint8(data, place=str(path)))


def explain_picture(
    picture: UserImage,
    question: str,
    lvlm: HuggingFaceLVLM,
    methods: Sequence[MethodSpec],
    *,
    response: str | None = None,
    finding: str | None = None,
    config: RunConfig | None = None,
    progress: Progress = no_progress,
) -> ExplainedPicture:
    """Explain the response of an LVLM to a question about a picture with every method.

    Args:
        picture: From `read_picture`.
        question: The prompt, as the LVLM is to read it.
        lvlm: From `load_lvlm`.
        methods: From `choose_methods`. One that fails is noted with its reason.
        response: The text to explain; by default the LVLM answers first.
        finding: The one that the question is about, for methods that remove it by an editor.
        config: Target, seed and how the LVLM runs.
        progress: Shows how many methods are done.

    Raises InputError for an empty question or response, a picture of a shape that the LVLM does not take, a
    null control that needs expert boxes, and settings that were tuned under other conditions.

    """
    config = config or RunConfig()
    image = picture.image
    if not question.strip():
        raise InputError("the question is empty; ask something about the picture")
    check_for_picture(methods)
    for chosen in methods:
        chosen.check_conditions(lvlm.key, _MODE, config)
    try:
        example = encode(lvlm, image, question, response, finding)
    except (NotFiniteError, OutOfMemoryError) as error:
        raise InputError(f"{picture.name}: {error}") from None
    except ValueError as error:
        raise InputError(f"{picture.name}: cannot be shown to {lvlm.key}: {reason(error)}") from None
    sample = Sample.of_image(image, question, example.response, name=_SAMPLE_ID, mode=_MODE)
    found: list[PictureExplanation] = []
    for chosen in progress(methods, lvlm.key, len(methods)):
        method = chosen.metadata
        try:
            if chosen.control is None:
                runner = chosen.load(lvlm.key, sample.mode)
                method = metadata(runner, chosen.source)
                attribution = explain(runner, lvlm, example, sample.sample_id, config)
            else:
                ((_, attribution),) = chosen.control.make([sample], config.seed)
            entry = to_entry(attribution, {sample.sample_id: sample}, "this picture", method.name)
        except EXPECTED as error:
            found.append(PictureExplanation(method, error=reason(error)))
            continue
        diagnostics = attribution.diagnostics
        figures = {name: float(value) for name, value in diagnostics.items() if np.isfinite(value)}
        found.append(PictureExplanation(method, attribution, entry, figures, attribution.intervals))
    return ExplainedPicture(
        picture=picture,
        lvlm=lvlm.key,
        model_size=example.frame.size,
        question=question,
        response=example.response,
        config=config,
        explanations=tuple(found),
    )


def check_for_picture(methods: Iterable[MethodSpec]) -> None:
    """Raise InputError for a null control that needs expert boxes, which a picture has not."""
    for chosen in methods:
        if chosen.control is not None and chosen.control.name in _NEEDS_SAMPLES:
            raise InputError(
                f"{chosen.control.name} is made from expert boxes, which one picture has not; leave it out"
            )


def write_picture(explained: ExplainedPicture, out: Path, *, overwrite: bool = False) -> Path:
    """Write the maps, `explanations.json`, an overlay for every method and the panel to the folder `out`.

    A method that names concepts gets a panel of its own, `concepts-<method>.png`. All of it or nothing.
    Raises InputError where `out` exists, unless it holds an earlier one of these and `overwrite` is given.
    """
    check_free(out, overwrite=overwrite)
    with atomic_folder(out) as work:
        _write(explained, work)
        check_free(out, overwrite=overwrite)
    return out


def check_free(out: Path, *, overwrite: bool) -> None:
    """Raise InputError for a folder that `write_picture` would not write to."""
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise InputError(f"{out}: exists already; choose another folder, or give --overwrite")
    if not (out / EXPLANATIONS_NAME).is_file():
        raise InputError(f"{out}: holds no {EXPLANATIONS_NAME}, so that it is not overwritten; remove it")


def draw_panel(explained: ExplainedPicture) -> Any:
    """The picture and all explanations side by side, a PIL image."""
    height, width = explained.picture.image.shape
    size = fit(width, height, TILE_SIZE)
    tiles = [Tile("Picture", f"{width} x {height}", plain(explained.picture.image, size))]
    tiles += [_tile(explained, one, size) for one in explained.explanations]
    return panel(tiles, explained.lvlm, explained.question, explained.response)


def _write(explained: ExplainedPicture, folder: Path) -> None:
    height, width = explained.picture.image.shape
    size = (width, height) if max(width, height) <= max(_OVERLAY_SIZE) else fit(width, height, _OVERLAY_SIZE)
    maps = MapWriter(folder / MAPS_NAME)
    entries: list[ExplanationEntry] = []
    for one in explained.explanations:
        name = None
        if one.attribution is not None:
            framed = one.attribution.in_model_frame(Frame(width, height, explained.model_size))
            if framed.saliency is not None:
                maps.add(one.method.name, framed.saliency)
            drawn = overlay(explained.picture.image, one.attribution, size, explained.model_size)
            name = f"{one.method.name}.png"
            (drawn or plain(explained.picture.image, size)).save(folder / name, "PNG")
            if one.attribution.concepts:
                _draw_concepts(explained, one).save(folder / f"{CONCEPTS_PREFIX}{name}", "PNG", optimize=True)
        entries.append(
            ExplanationEntry(
                method=one.method,
                explanation=one.entry,
                diagnostics=dict(one.diagnostics),
                intervals=dict(one.intervals),
                overlay=name,
                error=one.error,
            )
        )
    maps.finish()
    draw_panel(explained).save(folder / PANEL_NAME, "PNG", optimize=True)
    document = ExplanationsDocument(
        image=explained.picture.name,
        width=width,
        height=height,
        lvlm=explained.lvlm,
        question=explained.question,
        response=explained.response,
        target=explained.config.target_name,
        seed=explained.config.seed,
        decoding=explained.config.decoding,
        framing=explained.config.framing,
        dtype=explained.config.dtype,
        quantise=explained.config.quantise,
        pixels=explained.config.pixels,
        explanations=entries,
    )
    write_document(folder / EXPLANATIONS_NAME, document)


def _draw_concepts(explained: ExplainedPicture, one: PictureExplanation) -> Any:
    """The scores of concepts and tokens beside the picture with its region."""
    assert one.attribution is not None
    image = explained.picture.image
    size = fit(image.shape[1], image.shape[0], (_CONCEPTS_PICTURE, _CONCEPTS_PICTURE))
    drawn = overlay(image, one.attribution, size, explained.model_size)
    figures = ", ".join(f"{name} {value:.3g}" for name, value in one.diagnostics.items())
    return concept_panel(
        ConceptDrawing(
            title=one.method.title,
            question=explained.question,
            picture=drawn or plain(image, size),
            tokens=[(text, score) for text, score in one.attribution.tokens],
            concepts=one.attribution.concepts,
            intervals=one.intervals,
            response=explained.response,
            note=figures,
        )
    )


def _tile(explained: ExplainedPicture, one: PictureExplanation, size: tuple[int, int]) -> Tile:
    image = explained.picture.image
    if one.attribution is None:
        return Tile(one.method.title, "", plain(image, size), f"could not run: {one.error}")
    drawn = overlay(image, one.attribution, size, explained.model_size)
    if drawn is None:
        return Tile(one.method.title, _caption(one.attribution), plain(image, size), "no explanation")
    return Tile(one.method.title, _caption(one.attribution), drawn)


def _caption(attribution: Attribution) -> str:
    cost = attribution.cost
    passes = [
        f"{count} {name}"
        for count, name in ((cost.forward_passes, "forward"), (cost.backward_passes, "backward"))
        if count
    ]
    taken = f"{' + '.join(passes)}, {cost.seconds:.2g} s" if passes and cost.seconds is not None else ""
    count = 0 if attribution.boxes is None else len(attribution.boxes)
    boxes = f"{count} box" + ("es" if count > 1 else "") if count else ""
    return "; ".join(part for part in (taken, boxes) if part) or "looks at no model"
