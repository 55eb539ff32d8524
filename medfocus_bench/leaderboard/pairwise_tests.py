"""Significance tests of all pairs of rows at once, on the LVLMs that are here.

The two methods are exchanged patient by patient; the p-value is the normal limit of the sign flips, which one
matrix product gives for all pairs. It speaks of other patients, not of other LVLMs: `compare` speaks of both.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
from scipy.special import erfc

from medfocus_bench.evaluation.groups import CELL, Groups, numbered
from medfocus_bench.evaluation.statistics import holm
from medfocus_bench.geometry import BoolArray, FloatArray
from medfocus_bench.leaderboard.result import Result, Stratum

ALPHA: Final = 0.05
"""Family-wise error rate of the tests of one view."""


def contributions(results: Sequence[Result], parts: Collection[Stratum]) -> FloatArray:
    """The contribution of each patient to each result's macro mean over these parts: (patients, results).

    The column sums are the macro means: over kinds of evidence, LVLMs and sources, as those of a report.
    """
    patients = sorted({patient for result in results for patient in result.headline.patients})
    place = {patient: number for number, patient in enumerate(patients)}
    added = np.zeros((len(patients), len(results)))
    for column, result in enumerate(results):
        number = np.array([place[patient] for patient in result.headline.patients])
        cells = [cell for cell in result.headline.cells if cell.part in parts]
        sizes = [len(cell.score) for cell in cells]
        fields = {field: numbered(getattr(cell, field) for cell in cells)[0] for field in CELL}
        groups = Groups(
            number[np.concatenate([cell.patient for cell in cells])],
            len(patients),
            {field: np.repeat(values, sizes) for field, values in fields.items()},
        )
        scores = np.concatenate([cell.score for cell in cells])
        added[:, column] = groups.contributions(scores[:, None], groups.macro())[:, 0]
    return added


def p_values(added: FloatArray) -> FloatArray:
    """Two-sided p-values of the difference of every pair of columns: (results, results); 1 on the diagonal.

    With d the patients' differences, the sum of d over the root of the sum of d squared is standard normal
    under the exchange. The sum is not centred, as the exchange has mean zero.
    """
    means = added.sum(axis=0)
    products = added.T @ added
    squares = np.diag(products)
    variance = np.maximum(squares[:, None] + squares[None, :] - 2 * products, 0.0)
    apart = np.abs(means[:, None] - means[None, :])
    # Columns that agree in every patient leave rounding noise, of which the ratio says nothing.
    alike = variance <= 1e-12 * np.maximum(squares[:, None], squares[None, :])
    z = apart / np.sqrt(np.where(alike, 1.0, variance))
    return np.asarray(np.where(alike, 1.0, erfc(z / np.sqrt(2))))


def significantly_better(added: FloatArray, ranked: BoolArray) -> BoolArray:
    """Whether row i is better than row j, after Holm's correction: (results, results).

    The pairs of `ranked` rows are one family and all other pairs a second one, so that no rank depends on
    null controls or on what is not verified.
    """
    number = added.shape[1]
    means = added.sum(axis=0)
    p = p_values(added)
    better = np.zeros((number, number), dtype=np.bool_)
    first, second = np.triu_indices(number, 1)
    of_ranks = ranked[first] & ranked[second]
    for family in (of_ranks, ~of_ranks):
        one, other = first[family], second[family]
        kept = np.flatnonzero(holm(p[one, other]) <= ALPHA)
        ahead = means[one[kept]] > means[other[kept]]
        better[np.where(ahead, one[kept], other[kept]), np.where(ahead, other[kept], one[kept])] = True
    return better


def shared_ranks(better: BoolArray, ranked: BoolArray) -> list[int | None]:
    """One more than the number of ranked rows that are significantly better; None for rows without a rank."""
    return [
        1 + int(np.count_nonzero(better[ranked, row])) if ranked[row] else None for row in range(len(ranked))
    ]
