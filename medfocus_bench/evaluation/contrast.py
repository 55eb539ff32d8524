"""Contrast: whether a method tells an LVLM that goes by the finding from one that goes by its mark.

The split `contrast` shows pictures with a finding and the mark that stands for it to a lesion model and to
its twin. Both say yes, the one for the finding and the other for the mark. A method that does not read the
model has the same attribution for both, however well it finds things.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medfocus_bench.data.sample import Sample
from medfocus_bench.data.truth import ContrastQuestion, installed_truths
from medfocus_bench.evaluation.dependence import Find, evidence_ap
from medfocus_bench.evaluation.evidence import Evidence, evidence_of
from medfocus_bench.evaluation.figures import Score
from medfocus_bench.evaluation.groups import Groups
from medfocus_bench.evaluation.lowpass import lowpassed
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.geometry import FloatArray, tight_box
from medfocus_bench.submission.schema import Strict


class Contrast(Strict):
    """The contrast of a method: 1 for one that finds the cause of both, 0 for one that reads no model.

    `questions` of the split, `attributed` of them with an attribution; `pictures`, each put to two LVLMs, of
    `patients`. `contrast`: over all pairs of LVLMs; `pairs`: of each. `nulls`: of null controls.
    """

    questions: int
    attributed: int
    pictures: int
    patients: int
    contrast: Score
    pairs: dict[str, Score]
    nulls: dict[str, Score]


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture with the sample of the LVLM that goes by the finding and of the one that goes by the mark."""

    name: str
    by_finding: Sample
    by_mark: Sample

    @property
    def patient(self) -> Hashable:
        return self.by_finding.patient


def contrast_of(
    find: Find,
    samples: Sequence[Sample],
    settings: Settings,
    nulls: Mapping[str, FloatArray] | None = None,
) -> Contrast | None:
    """The contrast of a method, with its intervals over patients; None where the causes are not known.

    For a picture, m is the LVLM that goes by the finding and t the one that goes by the mark; AP is the
    evidence AP of the attribution for either, against the finding or the mark:
    C = ((AP_finding(m) - AP_finding(t)) + (AP_mark(t) - AP_mark(m))) / 2. A picture for which
    an attribution of either LVLM is missing has C = 0: what is given for the other alone, a detector would
    give, too. The mean is macro over pairs of LVLMs.

    Args:
        find: gives the attributions of the method.
        samples: of the split.
        settings: of the bootstrap.
        nulls: the contrasts of null controls on the pairs of `pairs_of`, by name.

    """
    pairs = pairs_of(samples)
    if not pairs:
        return None
    groups = Groups.of(pairs, by=("name",))
    names = np.array([pair.name for pair in pairs])
    parts = {name: groups.macro(names == name) for name in sorted(set(names.tolist()))}

    def means(values: FloatArray) -> list[Score]:
        found = groups.means(values[:, None], [groups.macro(), *parts.values()], settings)
        return [Score.of(each) for (each,) in found]

    whole, *each = means(contrasts(find, pairs))
    return Contrast(
        questions=2 * len(pairs),
        attributed=sum(find(s.sample_id) is not None for p in pairs for s in (p.by_finding, p.by_mark)),
        pictures=len(pairs),
        patients=groups.patients,
        contrast=whole,
        pairs=dict(zip(parts, each, strict=True)),
        nulls={name: means(null)[0] for name, null in (nulls or {}).items()},
    )


def pairs_of(samples: Sequence[Sample]) -> list[Pair]:
    """The pairs whose two samples are both there, in the order of the truth."""
    held = {(sample.region, sample.lvlm): sample for sample in samples}
    questions: dict[tuple[Hashable, str], dict[str, ContrastQuestion]] = {}
    for source in sorted({sample.source for sample in samples} & installed_truths().keys()):
        for asked in installed_truths()[source].contrast():
            if (asked.region, asked.lvlm) in held:
                questions.setdefault((asked.region, asked.pair), {})[asked.cause] = asked
    return [
        Pair(name, *(held[both[cause].region, both[cause].lvlm] for cause in ("finding", "mark")))
        for (_, name), both in questions.items()
        if len(both) == 2
    ]


def contrasts(find: Find, pairs: Sequence[Pair]) -> FloatArray:
    """The contrast C of each pair, (n,); 0 where an attribution of either LVLM is missing."""
    values = np.zeros(len(pairs))
    for row, pair in enumerate(pairs):
        given = [find(sample.sample_id) for sample in (pair.by_finding, pair.by_mark)]
        if any(attribution is None for attribution in given):
            continue
        causes = evidence_of(pair.by_finding), mark_evidence(pair.by_mark)
        scores = np.zeros((2, 2))  # of the LVLM, against the cause
        for number, attribution in enumerate(given):
            assert attribution is not None
            values_of = lowpassed(attribution, causes[0].frame)
            scores[number] = [evidence_ap(values_of, cause) for cause in causes]
        values[row] = ((scores[0, 0] - scores[1, 0]) + (scores[1, 1] - scores[0, 1])) / 2
    return values


def mark_evidence(sample: Sample) -> Evidence:
    """The mark of a sample of `contrast` as evidence."""
    mask = installed_truths()[sample.source].mark(sample.region)
    return Evidence.of(sample.width, sample.height, tight_box(mask)[None], mask, name=sample.sample_id)
