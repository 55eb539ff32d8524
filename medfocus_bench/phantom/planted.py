"""Testing the planted causes: blanking the region against blanking as much elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from medfocus_bench.data.questions import Mode, Question, prompt
from medfocus_bench.evaluation.groups import Groups
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.evaluation.statistics import Interval
from medfocus_bench.geometry import UInt8Image
from medfocus_bench.lvlm.protocol import LVLM
from medfocus_bench.phantom import TWINS
from medfocus_bench.phantom.track import phantom_questions

_RANDOM_PLACES = 4


def planted_effect(lvlm: LVLM, indices: Iterable[int], mode: Mode = "direct", seed: int = 0) -> Interval:
    """Mean drop of the log-odds of yes when the cause is blanked, less the mean drop for random boxes.

    The cause is the lesion's box, or the mark's for a twin; the random boxes have its size and lie elsewhere.
    Both are filled with the mean grey around them. Paired by patient, with a 95 % interval.
    """
    rng = np.random.default_rng(seed)
    drops = []
    for question in phantom_questions(indices, "spurious" if lvlm.key in TWINS else "lesion"):
        box = question.boxes[0].astype(int)
        boxes = [box, *(_elsewhere(box, question.image.shape, rng) for _ in range(_RANDOM_PLACES))]
        pictures = [question.image, *(blank(question.image, place) for place in boxes)]
        asked = [prompt(question.finding, mode)] * len(pictures)
        before, cause, *others = (
            _odds(answer.log_odds, question) for answer in lvlm.respond(pictures, asked)
        )
        drops.append((before - cause) - float(np.mean([before - other for other in others])))
    patients = np.arange(len(drops))
    groups = Groups(patients, len(drops), {})
    return groups.means(np.array(drops)[:, None], [groups.pooled()], Settings(seed=seed))[0][0]


def blank(image: UInt8Image, box: npt.NDArray[np.int_], rim: int = 4) -> UInt8Image:
    """The picture with a box filled with the mean grey of a rim around it."""
    x1, y1, x2, y2 = box.tolist()
    around = np.zeros(image.shape, dtype=np.bool_)
    around[max(y1 - rim, 0) : y2 + rim, max(x1 - rim, 0) : x2 + rim] = True
    around[y1:y2, x1:x2] = False
    filled = image.copy()
    filled[y1:y2, x1:x2] = round(float(image[around].mean()))
    return filled


def _elsewhere(
    box: npt.NDArray[np.int_], shape: tuple[int, ...], rng: np.random.Generator
) -> npt.NDArray[np.int_]:
    """A box of the same size at a random place that shares as little as may be with the first."""
    width, height = int(box[2] - box[0]), int(box[3] - box[1])
    best, least = box, width * height + 1
    for _ in range(50):
        x, y = int(rng.integers(shape[1] - width + 1)), int(rng.integers(shape[0] - height + 1))
        across = max(0, min(x + width, int(box[2])) - max(x, int(box[0])))
        shared = across * max(0, min(y + height, int(box[3])) - max(y, int(box[1])))
        if shared < least:
            best, least = np.array([x, y, x + width, y + height]), shared
        if least == 0:
            break
    return best


def _odds(value: float | None, question: Question) -> float:
    if value is None:
        raise ValueError(f"{question.key}: the answer has no verdict, so no log-odds")
    return value
