"""Whether two rankings of the same methods agree: Kendall's tau-b and its p by permutation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from math import factorial, sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

from medfocus_bench.geometry import FloatArray

DRAWS: Final = 100_000
"""Random orders behind a p-value; up to 8 methods all orders are tried."""

_ALL_ORDERS: Final = 8


def kendall(
    first: Sequence[float], second: Sequence[float], *, draws: int = DRAWS, seed: int = 0
) -> tuple[float | None, float | None]:
    """Kendall's tau-b of two lists of scores, and its two-sided p by permutation; None where all of one tie.

    tau-b = (C - D) / sqrt((n0 - n1) (n0 - n2)) with C pairs in the same order, D in opposite ones, n0 pairs
    in all, n1 and n2 tied in either list (Kendall 1945). p is the share of orders of the second list with at
    least the same |C - D|: of all orders up to 8 methods, else of `draws` seeded ones, the observed one
    included.
    """
    x, y = (order_signs(np.asarray(values, dtype=np.float64)) for values in (first, second))
    pairs = sqrt(float(np.abs(x).sum()) * float(np.abs(y).sum()))
    if pairs == 0:
        return None, None
    observed = int((x * y).sum())
    count = len(x)
    if count <= _ALL_ORDERS:
        orders = np.array(list(permutations(range(count))), dtype=np.intp)
        hits, total = _as_far(x, y, orders, observed), factorial(count)
    else:
        rng = np.random.default_rng(seed)
        drawn = rng.permuted(np.tile(np.arange(count), (draws, 1)), axis=1)
        hits, total = 1 + _as_far(x, y, drawn, observed), draws + 1
    return observed / pairs, hits / total


def order_signs(values: FloatArray) -> npt.NDArray[np.int64]:
    """For each pair of values (n,) whether the first is higher (1), lower (-1) or the same (0): (n, n)."""
    return np.sign(values[:, None] - values[None, :]).astype(np.int64)


def _as_far(
    x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], orders: npt.NDArray[np.intp], observed: int
) -> int:
    """How many orders of the second list are as far from no association as the observed one."""
    sums = np.zeros(len(orders), dtype=np.int64)
    for one, other in zip(*np.nonzero(np.triu(x, 1)), strict=True):
        sums += x[one, other] * y[orders[:, one], orders[:, other]]
    return int(np.count_nonzero(2 * np.abs(sums) >= abs(observed)))
