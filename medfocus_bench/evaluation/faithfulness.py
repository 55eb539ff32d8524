"""Faithfulness: whether the pixels that an attribution puts first are those that the answer hangs on.

For a sample whose counterfactual picture (the same patient without the cause) is known. Pixels are taken in
the order of the low-passed attribution, as many as `SHARES` of the image:

* *healing* gives the original picture the counterfactual's pixels there;
* *insertion* gives the counterfactual picture the original's.

With L the log-odds of the sample's own response, teacher-forced in fp32 (see `response_log_odds`), each
picture x has reached a part of the whole drop L(original) - L(counterfactual):

    healing(x) = (L(original) - L(x)) / drop        insertion(x) = (L(x) - L(counterfactual)) / drop

The area under either curve is the mean of its trapezoid over the log of the share. `faithfulness` is the mean
of both areas, held against two references on the same sample: the exact mask of the cause, and a seeded
random map of 16 x 16 cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final
from zlib import crc32

import numpy as np
import numpy.typing as npt
from pydantic import Field

from medfocus_bench.data.sample import Sample
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.figures import Score
from medfocus_bench.evaluation.groups import CELL, Groups, numbered
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.geometry import FloatArray, Frame, UInt8Image
from medfocus_bench.submission.schema import Finite, Line, Strict

SHARES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Of the image's pixels, padding left out, that are healed or inserted."""

RANDOM_CELLS: Final = 16
"""Cells a side of the random maps that stand for 0."""

MIN_DROP: Final = 1.0
"""Log-odds by which the whole cause has to move a response, or no share of that means anything."""

IndexArray = npt.NDArray[np.intp]
Picture = UInt8Image


def response_log_odds(tokens: npt.ArrayLike) -> FloatArray:
    """The log-odds of a whole response over all others, from those of its tokens (..., tokens): (...).

    p = prod p_t, so that log p = -sum log(1 + exp(-o_t)), and the others' share is that of the responses that
    leave it at one token, 1 - p = sum_t (1 - p_t) prod_{s<t} p_s. Of a direct answer these are the log-odds
    of its yes, but for what else than yes or no could be written. After a line of reasoning a yes only
    repeats what stands there: teacher-forced, its own log-odds do not move with the picture.
    """
    odds = np.asarray(tokens, dtype=np.float64)
    log_p, log_not = token_log_probs(odds), -np.logaddexp(0, odds)
    before = np.cumsum(log_p, axis=-1) - log_p
    return np.asarray(log_p.sum(-1) - np.logaddexp.reduce(before + log_not, axis=-1))


def token_log_probs(tokens: npt.ArrayLike) -> FloatArray:
    """The log-probabilities of tokens from their log-odds over all others."""
    return np.asarray(-np.logaddexp(0, -np.asarray(tokens, dtype=np.float64)))


def pixel_order(values: npt.NDArray[np.floating], frame: Frame, sample_id: str, seed: int = 0) -> IndexArray:
    """The pixels of the image, the highest values first: flat indices (height x width) of the native frame.

    Args:
        values: (content height, content width), a low-passed attribution in the model frame.
        frame: That of the image; a native pixel has the value at its centre's place in the model frame.
        sample_id: Ties are broken by a random order that depends on the sample and the seed alone, so that
            they favour no place, no region and no method.
        seed: Of that order.

    """
    rows, columns = (
        ((np.arange(native) + 0.5) * shown / native).astype(np.intp)
        for native, shown in zip((frame.height, frame.width), values.shape, strict=True)
    )
    native = values[np.ix_(rows, columns)].ravel()
    shuffled = np.random.default_rng((seed, crc32(sample_id.encode()))).permutation(native.size)
    return np.asarray(shuffled[np.argsort(-native[shuffled], kind="stable")])


def replaced(order: IndexArray, picture: Picture, by: Picture) -> Iterator[Picture]:
    """The picture with its first pixels, as many as each of `SHARES`, replaced by those of another one."""
    colours = picture.shape[2:]
    for share in SHARES:
        chosen = order[: max(1, round(share * order.size))]
        changed = picture.reshape(-1, *colours).copy()
        changed[chosen] = by.reshape(-1, *colours)[chosen]
        yield changed.reshape(picture.shape)


def curve_pictures(order: IndexArray, original: Picture, counterfactual: Picture) -> list[Picture]:
    """The pictures of both curves, healing first: 2 x len(SHARES)."""
    return [*replaced(order, original, counterfactual), *replaced(order, counterfactual, original)]


def random_map(sample_id: str, seed: int = 0) -> FloatArray:
    """The random map of a sample, (16, 16)."""
    name = crc32(b"faithfulness")
    rng = np.random.default_rng((seed, name, crc32(sample_id.encode())))
    return rng.random((RANDOM_CELLS, RANDOM_CELLS))


def area(shares_of_drop: npt.ArrayLike) -> FloatArray:
    """The mean height of curves (..., len(SHARES)) over the log of the share, by trapezoids: (...)."""
    heights, steps = np.asarray(shares_of_drop, dtype=np.float64), np.diff(np.log(SHARES))
    return np.asarray((heights[..., 1:] + heights[..., :-1]) / 2 @ (steps / steps.sum()))


@dataclass(frozen=True, slots=True)
class Areas:
    """The areas under the two curves of one attribution."""

    healing: float
    insertion: float

    @classmethod
    def of(cls, log_odds: npt.ArrayLike, original: float, counterfactual: float) -> Areas:
        """From the log-odds of the pictures of `curve_pictures`, and of the two ends; 0 without a drop."""
        healed, inserted = np.split(np.asarray(log_odds, dtype=np.float64), 2)
        drop = original - counterfactual
        if drop == 0:
            return cls(0.0, 0.0)
        return cls(float(area((original - healed) / drop)), float(area((inserted - counterfactual) / drop)))


@dataclass(frozen=True, slots=True)
class Reference:
    """The ends of a sample's curves, and the areas that stand for 1 and for 0."""

    sample_id: str
    original: float
    counterfactual: float
    mask: Areas
    random: Areas

    @property
    def applies(self) -> bool:
        """Whether the cause moves the response at all."""
        return self.original - self.counterfactual >= MIN_DROP


class FaithfulnessScores(Strict):
    """The scores of some samples, with how many they are and of how many patients."""

    samples: Annotated[int, Field(ge=1)]
    patients: Annotated[int, Field(ge=1)]
    faithfulness: Score
    healing: Score
    insertion: Score


class LVLMFaithfulness(FaithfulnessScores):
    """The faithfulness of a method to one LVLM."""

    lvlm: Line


class Faithfulness(FaithfulnessScores):
    """The faithfulness of a method: 0 for random maps, 1 for the exact mask of the cause; more is possible.

    The scores are macro means over (LVLM, source), as those of a report; `lvlms` has those of each LVLM.
    `unmoved`: samples that are left out, since the cause moves their response by less than `MIN_DROP`.
    `forward_passes`: of the method, a sample.
    """

    unmoved: Annotated[int, Field(ge=0)] = 0
    forward_passes: Finite
    lvlms: list[LVLMFaithfulness]


def sample_scores(
    samples: Sequence[Sample], areas: Mapping[str, Areas], references: Mapping[str, Reference]
) -> FloatArray:
    """Faithfulness, healing and insertion of each sample: (n, 3).

    A sample's own random map is taken off its area a, and what is left is divided by the means over its cell
    (its LVLM and source):

        (a - random) / (mean mask - mean random)

    so that the mean over a cell is the ratio of means, (mean a - mean random) / (mean mask - mean random),
    and no single sample whose mask does as little as its random map decides it. Faithfulness is the mean of
    healing and insertion. A sample without an entry in `areas`, one that explains nothing, has 0.

    Raises InputError where the masks of a cell do no more than random maps.
    """
    held = [references[sample.sample_id] for sample in samples]
    masks, randoms = (
        np.array([[area.healing, area.insertion] for area in found]).reshape(-1, 2)
        for found in ([one.mask for one in held], [one.random for one in held])
    )
    own = [areas.get(sample.sample_id, one.random) for sample, one in zip(samples, held, strict=True)]
    above = np.array([[area.healing, area.insertion] for area in own]).reshape(-1, 2) - randoms
    cells, count = numbered(tuple(getattr(sample, field) for field in CELL) for sample in samples)
    for cell in range(count):
        members = cells == cell
        scale = (masks[members] - randoms[members]).mean(0)
        if (scale <= 0).any():
            sample = samples[int(members.argmax())]
            raise InputError(
                f"healing the evidence of {sample.source} does no more to the answers of {sample.lvlm} than "
                "healing pixels at random, so that there is nothing to be faithful to"
            )
        above[members] /= scale
    return np.column_stack([above.mean(1), above])


def aggregate(
    samples: Sequence[Sample],
    areas: Mapping[str, Areas],
    references: Mapping[str, Reference],
    forward_passes: float,
    settings: Settings,
) -> Faithfulness:
    """The section of a report, from the areas of a method and the references of all `samples`.

    Intervals resample as those of all scores do, and hold the scale of each cell (`sample_scores`) fixed.
    Raises InputError where no sample's cause moves its response.
    """
    kept = [sample for sample in samples if references[sample.sample_id].applies]
    if not kept:
        raise InputError("the cause moves the response of no sample, so that nothing can be faithful to it")
    groups = Groups.of(kept)
    lvlms = sorted({sample.lvlm for sample in kept})
    of_lvlm = [np.array([sample.lvlm == lvlm for sample in kept]) for lvlm in lvlms]
    parts = [groups.macro(), *map(groups.macro, of_lvlm)]
    found = groups.means(sample_scores(kept, areas, references), parts, settings)
    names = ("faithfulness", "healing", "insertion")
    whole, *each = [
        dict(zip(("samples", "patients"), groups.counts(part), strict=True))
        | {name: Score.of(interval) for name, interval in zip(names, row, strict=True)}
        for part, row in zip(parts, found, strict=True)
    ]
    sections = [
        LVLMFaithfulness.model_validate({"lvlm": lvlm, **of}) for lvlm, of in zip(lvlms, each, strict=True)
    ]
    about = {"unmoved": len(samples) - len(kept), "forward_passes": forward_passes, "lvlms": sections}
    return Faithfulness.model_validate(whole | about)


def chosen_samples(samples: Sequence[Sample], count: int | None) -> list[Sample]:
    """So many of the samples, from every LVLM, mode and kind of evidence in turn; all for None.

    Which ones depends on their ids alone, and fewer are a part of more.
    """
    if count is None or count >= len(samples):
        return list(samples)
    strata: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in sorted(samples, key=lambda one: (crc32(one.sample_id.encode()), one.sample_id)):
        strata.setdefault((sample.lvlm, sample.mode, sample.evidence), []).append(sample)
    ranked = [(place, key, sample) for key, held in strata.items() for place, sample in enumerate(held)]
    ranked.sort(key=lambda one: one[:2])
    wanted = {sample.sample_id for _, _, sample in ranked[:count]}
    return [sample for sample in samples if sample.sample_id in wanted]
