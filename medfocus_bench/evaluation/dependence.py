"""Dependence on the model: the part of a method's evidence AP that goes when the decoder is drawn at random.

The split `control` puts questions of the benchmark to copies of their LVLMs whose decoder was drawn at
random, with the same picture, question and response (as Adebayo et al., "Sanity Checks for Saliency Maps",
NeurIPS 2018). Whatever a method still finds there it did not read from the model.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import rankdata

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.data.derived import CONTROL
from medfocus_bench.data.sample import Sample
from medfocus_bench.evaluation.evidence import Evidence, evidence_of
from medfocus_bench.evaluation.figures import Number, Score
from medfocus_bench.evaluation.groups import Group, Groups
from medfocus_bench.evaluation.lowpass import SaliencyMap, lowpassed
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.evaluation.ranking import ranking_scores
from medfocus_bench.geometry import FloatArray, explains
from medfocus_bench.submission.schema import Strict

RANKED_FROM: Final = 0.5
"""A method whose dependence is less is shown, and not ranked."""

_STEP: Final = 4
"""Every fourth pixel of a low-passed map is ranked for its correlation: between them it hardly changes."""

Find = Callable[[str], Attribution | None]
"""The attribution of a sample by its id; None where it is missing."""


class LVLMDependence(Strict):
    """Mean evidence AP on the questions of one LVLM, trained and with a random decoder; the dependence."""

    trained: Number
    random: Number
    model_dependence: Number


class Dependence(Strict):
    """How much of what a method finds depends on the model.

    `questions` of the split, `attributed` of them with an attribution for both decoders, of `patients`.
    `trained` and `random`: evidence AP over the same questions. `rank_correlation`: Spearman's, of the
    low-passed maps for the two decoders, over the `attributed` ones; None without any. `ranked`: whether the
    method takes a place in rankings; `reason` says why not. `nulls`: the dependence of null controls.
    """

    questions: int
    attributed: int
    patients: int
    trained: Score
    random: Score
    model_dependence: Score
    rank_correlation: Score | None
    lvlms: dict[str, LVLMDependence]
    nulls: dict[str, Number]
    ranked: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Question:
    """A question of `control`, as resampling sees it: patients are drawn, LVLMs are the ones there are."""

    patient: Hashable
    evidence: str
    model: str
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Evidence AP of n questions for both decoders, (n,) each, and the rank correlation of the maps (n,).

    Where an attribution of the random decoder is missing its AP is that of the trained one: leaving questions
    out makes no method look better. The correlation is NaN where either is missing.
    """

    trained: FloatArray
    random: FloatArray
    correlation: FloatArray


def dependence_of(
    find: Find,
    control: Sequence[Sample],
    settings: Settings,
    nulls: Mapping[str, Compared] | None = None,
) -> Dependence:
    """The dependence of a method on the model, with its intervals over patients.

    For each cell of LVLM, kind of evidence and source, model_dependence = 1 - max(0, AP random) / AP trained
    over the same questions, no less than 0; it is 0 where AP trained is 0 or less, as nothing was found that
    could depend on the model. The mean is macro over the cells. Its interval is that of the mean of each
    question's influence on the ratio (the delta method), cut to [0, 1].

    Args:
        find: gives the attributions of the method.
        control: the samples of the split.
        settings: of the bootstrap.
        nulls: the scores of null controls, by name.

    """
    compared = compare_decoders(find, control)
    questions = [_Question(s.patient, s.evidence, trained_lvlm(s), s.source) for s in control]
    groups = Groups.of(questions, by=("evidence", "model", "source"))
    group = groups.macro()
    values = np.stack([compared.trained, compared.random, influences(compared, group)], axis=1)
    trained, random, dependence = (Score.of(one) for one in groups.means(values, [group], settings)[0])
    dependence = Score(
        mean=dependence.mean, low=max(0.0, dependence.low), high=min(1.0, max(0.0, dependence.high))
    )
    attributed = int(np.isfinite(compared.correlation).sum())
    ranked, reason = _ranked(trained.mean, dependence.mean, attributed, len(control))
    return Dependence(
        questions=len(control),
        attributed=attributed,
        patients=groups.patients,
        trained=trained,
        random=random,
        model_dependence=dependence,
        rank_correlation=_mean_correlation(compared.correlation, questions, settings),
        lvlms=_by_lvlm(compared, questions),
        nulls={name: _dependence(null, group) for name, null in (nulls or {}).items()},
        ranked=ranked,
        reason=reason,
    )


def _ranked(trained: float, dependence: float, attributed: int, questions: int) -> tuple[bool, str | None]:
    if attributed < questions:
        return (
            False,
            f"only {attributed} of {questions} questions of {CONTROL} are attributed for both decoders",
        )
    if trained <= 0:
        return False, "it finds nothing that could depend on the model"
    if dependence < RANKED_FROM:
        return False, (
            f"its dependence on the model is {dependence:.2f}, below {RANKED_FROM}: it finds the evidence "
            "with a random decoder, too"
        )
    return True, None


def compare_decoders(find: Find, control: Sequence[Sample]) -> Compared:
    """Score the attributions of every question for both decoders."""
    trained, random, correlation = np.zeros((3, len(control)))
    for row, sample in enumerate(control):
        assert sample.derived_from is not None
        evidence = evidence_of(sample)
        pair = [find(name) for name in (sample.derived_from, sample.sample_id)]
        maps = [None if one is None else lowpassed(one, evidence.frame) for one in pair]
        trained[row], random[row] = (0.0 if one is None else evidence_ap(one, evidence) for one in maps)
        if maps[1] is None:
            random[row] = trained[row]
        correlation[row] = np.nan if maps[0] is None or maps[1] is None else rank_correlation(*maps)  # type: ignore[arg-type]
    return Compared(trained, random, correlation)


def evidence_ap(values: SaliencyMap, evidence: Evidence) -> float:
    """The evidence AP of a low-passed map; 0 for one that says nothing."""
    if not explains(values):
        return 0.0
    return ranking_scores(values, evidence.pixels, evidence.counted).evidence_ap


def rank_correlation(first: SaliencyMap, second: SaliencyMap) -> float:
    """Spearman's correlation of two low-passed maps of one shape, of every fourth row and column.

    1 for two flat maps, which say the same, and 0 where only one is flat.
    """
    one, other = (rankdata(values[::_STEP, ::_STEP], axis=None) for values in (first, second))
    one, other = one - one.mean(), other - other.mean()
    flat = [not values.any() for values in (one, other)]
    if any(flat):
        return float(all(flat))
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))


def influences(compared: Compared, group: Group) -> FloatArray:
    """Values (n,) whose mean over each cell of the group is its dependence, and their spread that of it.

    With t and r the scores of a question, their means T and R and the ratio q = max(0, R) / T, the value is
    1 - q + (q (t - T) - (r - R)) / T; where q is above 1, the dependence 0 takes the place of 1 - q.
    """
    values = np.zeros(len(compared.trained))
    for members in group.cells:
        trained, random = compared.trained[members], compared.random[members]
        if trained.mean() > 0:
            ratio = max(0.0, random.mean()) / trained.mean()
            apart = ratio * (trained - trained.mean()) - (random - random.mean())
            values[members] = max(0.0, 1 - ratio) + apart / trained.mean()
    return values


def _dependence(compared: Compared, group: Group) -> float:
    values = influences(compared, group)
    means = [values[members].mean() for members in group.cells]
    return float(np.dot(group.weights, means))


def _by_lvlm(compared: Compared, questions: Sequence[_Question]) -> dict[str, LVLMDependence]:
    found = {}
    models = np.array([question.model for question in questions])
    for model in sorted(set(models.tolist())):
        members = models == model
        group = Groups.of(questions, by=("evidence", "model", "source")).macro(members)
        found[model] = LVLMDependence(
            trained=float(compared.trained[members].mean()),
            random=float(compared.random[members].mean()),
            model_dependence=_dependence(compared, group),
        )
    return found


def _mean_correlation(
    correlation: FloatArray, questions: Sequence[_Question], settings: Settings
) -> Score | None:
    known = np.isfinite(correlation)
    if not known.any():
        return None
    kept = [question for question, one in zip(questions, known, strict=True) if one]
    groups = Groups.of(kept, by=("evidence", "model", "source"))
    return Score.of(groups.means(correlation[known][:, None], [groups.macro()], settings)[0][0])


def trained_lvlm(sample: Sample) -> str:
    """The key of the LVLM of which that of a sample of `control` is a copy."""
    return sample.lvlm.rpartition("@")[0]


def wanted_ids(control: Iterable[Sample]) -> set[str]:
    """The samples whose attributions the comparison reads."""
    return {name for sample in control for name in (sample.sample_id, sample.derived_from) if name}
