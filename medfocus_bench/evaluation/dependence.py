"""Dependence on the model: the part of a method's evidence AP that goes when the decoder is drawn at random.

The split `control` puts questions of the benchmark to copies of their LVLMs whose decoder was drawn at
random, with the same picture, question and response (as Adebayo et al., "Sanity Checks for Saliency Maps",
NeurIPS 2018). Whatever a method still finds there it did not read from the model.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
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
from medfocus_bench.geometry import BoolArray, FloatArray, explains
from medfocus_bench.submission.schema import Strict

RANKED_FROM: Final = 0.5
"""A method whose dependence is less is shown, and not ranked."""

LEAST_EXPLAINED: Final = 0.25
"""Questions explained with a random decoder over those with the trained one: with fewer, no rank."""

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

    A map that says nothing finds no evidence, which does not show that the model was read:
    `explained` has the questions on which it says something, of the trained LVLM and with a random decoder,
    and `where_explained` the dependence over the latter alone; None without any.
    """

    questions: int
    attributed: int
    patients: int
    trained: Score
    random: Score
    model_dependence: Score
    explained: tuple[int, int] | None = None
    where_explained: Score | None = None
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
    out makes no method look better. The correlation is NaN where either is missing. `explained` (n, 2):
    whether the attribution for either decoder says anything.
    """

    trained: FloatArray
    random: FloatArray
    correlation: FloatArray
    explained: BoolArray


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
    dependence = _cut(dependence)
    attributed = int(np.isfinite(compared.correlation).sum())
    explained = int(compared.explained[:, 0].sum()), int(compared.explained[:, 1].sum())
    where = _where_explained(compared, questions, settings)
    reason = (
        f"only {attributed} of {len(control)} questions of {CONTROL} are attributed for both decoders"
        if attributed < len(control)
        else _unranked(trained.mean, dependence.mean, explained, where)
    )
    return Dependence(
        questions=len(control),
        attributed=attributed,
        patients=groups.patients,
        trained=trained,
        random=random,
        model_dependence=dependence,
        explained=explained,
        where_explained=where,
        rank_correlation=_mean_correlation(compared.correlation, questions, settings),
        lvlms=_by_lvlm(compared, questions),
        nulls={name: _dependence(null, group) for name, null in (nulls or {}).items()},
        ranked=reason is None,
        reason=reason,
    )


def _unranked(
    trained: float, dependence: float, explained: tuple[int, int], where: Score | None
) -> str | None:
    """Why a method that explains every question takes no rank; None where it does."""
    if trained <= 0:
        return "it finds nothing that could depend on the model"
    if dependence < RANKED_FROM:
        return (
            f"its dependence on the model is {dependence:.2f}, below {RANKED_FROM}: it finds the evidence "
            "with a random decoder, too"
        )
    if where is None or explained[1] < LEAST_EXPLAINED * explained[0]:
        return (
            f"it says something on {explained[1]} questions of {CONTROL} with a random decoder, and on "
            f"{explained[0]} with the trained one: too few to tell whether it reads the model"
        )
    if where.mean < RANKED_FROM:
        return (
            f"where it says anything with a random decoder, on {explained[1]} questions of {CONTROL}, its "
            f"dependence on the model is {where.mean:.2f}, below {RANKED_FROM}"
        )
    return None


def _cut(dependence: Score) -> Score:
    return Score(mean=dependence.mean, low=max(0.0, dependence.low), high=min(1.0, max(0.0, dependence.high)))


def _where_explained(compared: Compared, questions: Sequence[_Question], settings: Settings) -> Score | None:
    """The dependence over the questions on which the attribution for the random decoder says anything."""
    said = compared.explained[:, 1]
    if not said.any():
        return None
    groups = Groups.of(
        [question for question, one in zip(questions, said, strict=True) if one],
        by=("evidence", "model", "source"),
    )
    part = Compared(
        compared.trained[said], compared.random[said], compared.correlation[said], compared.explained[said]
    )
    values = influences(part, groups.macro())[:, None]
    return _cut(Score.of(groups.means(values, [groups.macro()], settings)[0][0]))


def compare_decoders(find: Find, control: Sequence[Sample]) -> Compared:
    """Score the attributions of every question for both decoders."""
    trained, random, correlation = np.zeros((3, len(control)))
    explained = np.zeros((len(control), 2), dtype=np.bool_)
    for row, sample in enumerate(control):
        assert sample.derived_from is not None
        evidence = evidence_of(sample)
        pair = [find(name) for name in (sample.derived_from, sample.sample_id)]
        maps = [None if one is None else lowpassed(one, evidence.frame) for one in pair]
        explained[row] = [one is not None and explains(one) for one in maps]
        trained[row], random[row] = (0.0 if one is None else evidence_ap(one, evidence) for one in maps)
        if maps[1] is None:
            random[row] = trained[row]
        correlation[row] = np.nan if maps[0] is None or maps[1] is None else rank_correlation(*maps)  # type: ignore[arg-type]
    return Compared(trained, random, correlation, explained)


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
