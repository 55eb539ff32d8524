"""Entropic unbalanced optimal transport between images, on the grid of their pixels.

Two non-negative images a and b, each scaled to mass 1, and the cost C of moving mass from pixel s to pixel t.
The plan P >= 0 minimises

    <C, P> + eps R(P) + lam KL(P 1 | a) + lam KL(P^T 1 | b)

so that mass may be created or destroyed at a price. Two formulations are in use, and they are different
problems (mass 6.36 against 0.62 in one example):

* `entropy`: R(P) = sum P (log P - 1), the kernel is K = exp(-C / eps). The paper's code solves this; in POT
  `reg_type="entropy"`.
* `kl`: R(P) = KL(P | a b^T), the kernel is a b^T exp(-C / eps). The paper's equation 6; POT's
  `reg_type="kl"`.

Either is solved by the scalings u = (a / K v)^f and v = (b / K^T u)^f with f = lam / (lam + eps), and
P = diag(u) K diag(v). With the squared Euclidean distance on a grid exp(-C / eps) is the outer product of one
kernel along y and one along x: a step is two small matrix products, and no plan is ever held.

Where images lie far apart for their eps, the kernel between them is less than a float64 can hold, while the
scalings are more: their product, the plan, is an ordinary number. It is then computed with logarithms, from
end to end. A plan whose own entries are below the smallest float64 has the mass 0, and none is ever NaN.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from medfocus_bench.errors import require
from medfocus_bench.geometry import FloatArray

Formulation = Literal["entropy", "kl"]
Solver = Literal["auto", "separable", "log", "pot"]

_GUARD: Final = 1e-18
"""Added to every denominator, as the paper's code does: it decides where the kernel underflows."""

_LEAST_EPS: Final = 1e-6
"""Below it the logarithms of the scalings, about cost / eps, have too few digits left behind the point."""

_FAR_ABOVE_GUARD: Final = 1e6
"""How many times the guard every denominator has to be: the guard then changes no scaling by a millionth."""

_LARGEST_FACTOR: Final = 200.0
"""Up to this log_u + log_v a product that underflows, below 1e-308, is below 1e-221 in the plan: nothing."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The objective and the stopping rule: stop when the changes of u sum to less than `tolerance`."""

    eps: float = 0.05
    lam: float = 0.1
    formulation: Formulation = "entropy"
    max_iterations: int = 500
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if not (self.eps > 0 and self.lam > 0 and self.max_iterations >= 1):
            raise ValueError("transport needs eps > 0, lam > 0 and at least one iteration")
        if not (self.eps >= _LEAST_EPS and np.isfinite(self.eps) and np.isfinite(self.lam)):
            raise ValueError(f"transport needs eps >= {_LEAST_EPS:g}, and a finite eps and lam")

    @property
    def exponent(self) -> float:
        return self.lam / (self.lam + self.eps)


@dataclass(frozen=True, slots=True, eq=False)
class Transport:
    """Plans between n pairs of images on one grid, as scalings: nothing of the size of a plan is held.

    `source`, `target` (n, height, width): the images, of mass 1. `log_u`, `log_v` (n, height, width): what
    the outer product of `exp(-C / eps)` is scaled with, -inf where the mass is zero; with the `kl`
    formulation the images are part of it. `scale` (n,): what squared distances, in pixels of the grid, were
    divided by. `iterations` (n,).
    """

    problem: Problem
    source: FloatArray
    target: FloatArray
    scale: FloatArray
    log_u: FloatArray
    log_v: FloatArray
    iterations: npt.NDArray[np.intp]

    def push(self, shares: npt.ArrayLike, pair: int = 0) -> FloatArray:
        """The mass that arrives at each target pixel from parts of the source.

        `shares` (m, height, width): how much of each source pixel belongs to each of m parts, as masks of
        concepts say. Returns (m, height, width).
        """
        parts = np.asarray(shares, dtype=np.float64)
        return self._moved(pair, self.log_u[pair], self.log_v[pair], parts)

    @property
    def rows(self) -> FloatArray:
        """The mass that leaves each source pixel: (n, height, width)."""
        everything = np.ones((1, *self.source.shape[1:]))
        pairs = range(len(self.scale))
        return np.stack([self._moved(n, self.log_v[n], self.log_u[n], everything)[0] for n in pairs])

    @property
    def columns(self) -> FloatArray:
        """The mass that arrives at each target pixel: (n, height, width)."""
        everything = np.ones((1, *self.source.shape[1:]))
        return np.stack([self.push(everything, pair)[0] for pair in range(len(self.scale))])

    @property
    def mass(self) -> FloatArray:
        """The sum of each plan: (n,). 0 where the plan is less than a float64 can hold, never NaN."""
        return np.asarray(self.rows.sum((1, 2)))

    @property
    def cost(self) -> FloatArray:
        """sum(C P), with C in squared pixels of the grid, not divided by the scale: (n,)."""
        everything = np.ones((1, *self.source.shape[1:]))
        costs = []
        for pair in range(len(self.scale)):
            u, v = self.log_u[pair], self.log_v[pair]
            costs.append(sum(self._moved(pair, u, v, everything, weighted=axis).sum() for axis in (0, 1)))
        return np.array(costs)

    @property
    def value(self) -> FloatArray:
        """The objective of the plan, with the cost divided by the scale: (n,)."""
        rows, columns, scaled = self.rows, self.columns, self.cost / self.scale
        eps, lam = self.problem.eps, self.problem.lam
        mass = rows.sum((1, 2))
        # sum P log P: the logarithm of the plan is log_u + log_v - C / eps.
        entropy = _product(rows, self.log_u) + _product(columns, self.log_v) - scaled / eps
        if self.problem.formulation == "kl":
            entropy += 1 - _product(rows, _log(self.source)) - _product(columns, _log(self.target))
        marginals = _divergence(rows, self.source) + _divergence(columns, self.target)
        return np.asarray(scaled + eps * (entropy - mass) + lam * marginals)

    def plan(self, pair: int = 0) -> FloatArray:
        """The whole plan (height * width, height * width), large: to look at."""
        ys, xs = (squared_distances(side) for side in self.source.shape[1:])
        cost = (ys[:, None, :, None] + xs[None, :, None, :]).reshape(2 * (self.source[0].size,))
        scaled = self.log_u[pair].reshape(-1, 1) - cost / (self.scale[pair] * self.problem.eps)
        return np.asarray(np.exp(scaled + self.log_v[pair].reshape(1, -1)))

    def _moved(
        self,
        pair: int,
        sender: FloatArray,
        receiver: FloatArray,
        parts: FloatArray,
        weighted: int | None = None,
    ) -> FloatArray:
        """exp(receiver) * K (exp(sender) * part) for each of `parts` (m, height, width).

        `weighted`: the axis along which every movement counts as often as its squared distance.
        """
        distances = [squared_distances(side) for side in self.source.shape[1:]]
        width = self.scale[pair] * self.problem.eps
        largest = sender.max(), receiver.max()
        if sum(largest) <= _LARGEST_FACTOR:
            # With their largest taken out neither exponential overflows.
            sent, arrived = np.exp(sender - largest[0]), np.exp(receiver - largest[1])
            factors = [np.exp(-far / width) for far in distances]
            if weighted is not None:
                factors[weighted] = factors[weighted] * distances[weighted]
            return np.asarray((factors[0] @ (sent * parts) @ factors[1]) * arrived * np.exp(sum(largest)))
        logarithms = [-far / width for far in distances]
        if weighted is not None:
            logarithms[weighted] = logarithms[weighted] + _log(distances[weighted])
        return np.stack([np.exp(receiver + _through(sender + _log(part), *logarithms)) for part in parts])


def transport(
    source: npt.ArrayLike,
    target: npt.ArrayLike,
    problem: Problem | None = None,
    *,
    scale: npt.ArrayLike = 1.0,
    solver: Solver = "auto",
) -> Transport:
    """Transports images (n, height, width) or (height, width), non-negative, onto others of the same shape.

    A single source or target is paired with each of the others. C is the squared distance in pixels divided
    by `scale`, one number or one a pair. Solvers: `separable`, with the guard of the paper's code; `log`, the
    same in logarithms, without one; `pot`, Python Optimal Transport. `auto` is separable, and in logarithms
    for a pair for which the guard or an underflow would have decided.
    Raises ValueError for other shapes, negative or non-finite values, an image without mass and a scale that
    is not positive; InputError for `pot` where that library is missing.
    """
    problem = problem or Problem()
    a, b = np.broadcast_arrays(_checked(source, "source"), _checked(target, "target"))
    scales = np.broadcast_to(np.asarray(scale, dtype=np.float64), len(a))
    if not (np.isfinite(scales) & (scales > 0)).all():
        raise ValueError("the scale of the cost has to be positive and finite")
    solve = _SOLVERS[solver]
    solved = [
        solve(*images, problem, float(one))
        for images, one in zip(zip(a, b, strict=True), scales, strict=True)
    ]
    log_u, log_v, iterations = (np.array(part) for part in zip(*solved, strict=True))
    return Transport(problem, a, b, scales, log_u, log_v, iterations)


def squared_distances(side: int) -> FloatArray:
    """Squared distances between the pixels of a line: (side, side)."""
    places = np.arange(side, dtype=np.float64)
    return np.asarray((places[:, None] - places[None, :]) ** 2)


def _scale(
    a: FloatArray,
    b: FloatArray,
    problem: Problem,
    forward: Callable[[FloatArray], FloatArray],
    backward: Callable[[FloatArray], FloatArray],
) -> tuple[FloatArray, FloatArray, int, float]:
    """The scalings by fixed-point iteration; `forward` is K v, `backward` K^T u.

    With the number of iterations, and the smallest denominator of the last one where there is mass.
    """
    u, v = (a > 0).astype(np.float64), (b > 0).astype(np.float64)
    count, change = 0, np.inf
    while count < problem.max_iterations and not change < problem.tolerance:
        count, before = count + 1, u
        received = forward(v)
        u = (a / (received + _GUARD)) ** problem.exponent
        sent = backward(u)
        v = (b / (sent + _GUARD)) ** problem.exponent
        change = float(np.abs(u - before).sum())
    return u, v, count, float(np.minimum(received[a > 0].min(), sent[b > 0].min()))


_Solved = tuple[FloatArray, FloatArray, int]


def _automatic(a: FloatArray, b: FloatArray, problem: Problem, scale: float) -> _Solved:
    with np.errstate(over="ignore", invalid="ignore"):
        solved, least = _separable_and_least(a, b, problem, scale)
    is_sound = least >= _FAR_ABOVE_GUARD * _GUARD and max(solved[0].max(), solved[1].max()) < np.inf
    return solved if is_sound else _logarithmic(a, b, problem, scale)


def _separable_and_least(
    a: FloatArray, b: FloatArray, problem: Problem, scale: float
) -> tuple[_Solved, float]:
    down, across = (np.exp(-squared_distances(side) / (scale * problem.eps)) for side in a.shape)
    own_a, own_b = (a, b) if problem.formulation == "kl" else (1.0, 1.0)
    u, v, count, least = _scale(
        a,
        b,
        problem,
        lambda x: own_a * (down @ (own_b * x) @ across),
        lambda x: own_b * (down @ (own_a * x) @ across),
    )
    return (_log(own_a * u), _log(own_b * v), count), least


def _logarithmic(a: FloatArray, b: FloatArray, problem: Problem, scale: float) -> _Solved:
    """As `_separable_and_least`, with logarithms and without the guard."""
    down, across = (-squared_distances(side) / (scale * problem.eps) for side in a.shape)
    log_a, log_b = _log(a), _log(b)
    own_a, own_b = (log_a, log_b) if problem.formulation == "kl" else (0.0, 0.0)

    def scaled(image: FloatArray, log_image: FloatArray, moved: FloatArray) -> FloatArray:
        # With `kl` the image's own factor cancels: K = a b^T exp(-C / eps).
        left = -moved if problem.formulation == "kl" else log_image - moved
        return np.where(image > 0, problem.exponent * left, -np.inf)

    log_u, log_v = np.where(a > 0, 0.0, -np.inf), np.where(b > 0, 0.0, -np.inf)
    for count in range(1, problem.max_iterations + 1):
        before = log_u[a > 0]
        log_u = scaled(a, log_a, _through(own_b + log_v, down, across))
        log_v = scaled(b, log_b, _through(own_a + log_u, down, across))
        if np.abs(log_u[a > 0] - before).max() < problem.tolerance:
            return own_a + log_u, own_b + log_v, count
    return own_a + log_u, own_b + log_v, problem.max_iterations


def _pot(a: FloatArray, b: FloatArray, problem: Problem, scale: float) -> _Solved:
    require("ot.unbalanced")
    from ot.unbalanced import sinkhorn_unbalanced

    here, there = np.flatnonzero(a), np.flatnonzero(b)
    ys, xs = (squared_distances(side) for side in a.shape)
    cost = (np.kron(ys, np.ones_like(xs)) + np.kron(np.ones_like(ys), xs)) / scale
    with warnings.catch_warnings():
        # It says that it ignores a reference measure that was not given.
        warnings.simplefilter("ignore")
        _, log = sinkhorn_unbalanced(
            a.ravel()[here],
            b.ravel()[there],
            np.ascontiguousarray(cost[np.ix_(here, there)]),
            problem.eps,
            problem.lam,
            reg_type=problem.formulation,
            numItermax=problem.max_iterations,
            stopThr=problem.tolerance,
            log=True,
        )
    log_u, log_v = np.full(a.size, -np.inf), np.full(b.size, -np.inf)
    log_u[here], log_v[there] = log["logu"], log["logv"]
    own_a, own_b = (_log(a), _log(b)) if problem.formulation == "kl" else (0.0, 0.0)
    return own_a + log_u.reshape(a.shape), own_b + log_v.reshape(b.shape), len(log["err"])


_SOLVERS: Final[dict[str, Callable[[FloatArray, FloatArray, Problem, float], _Solved]]] = {
    "auto": _automatic,
    "separable": lambda *given: _separable_and_least(*given)[0],
    "log": _logarithmic,
    "pot": _pot,
}


def _checked(image: npt.ArrayLike, name: str) -> FloatArray:
    array = np.asarray(image, dtype=np.float64)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3:
        raise ValueError(f"the {name} has the shape (n, height, width), not {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(f"the {name} has negative or non-finite values")
    with np.errstate(over="ignore"):
        total = array.sum((1, 2), keepdims=True)
    if not (total > 0).all():
        raise ValueError(f"the {name} has no mass")
    if not np.isfinite(total).all():
        raise ValueError(f"the {name} has values that are too large to be added up")
    return np.asarray(array / total)


def _log(values: FloatArray) -> FloatArray:
    return np.log(values, out=np.full(values.shape, -np.inf), where=values > 0)


def _through(x: FloatArray, down: FloatArray, across: FloatArray) -> FloatArray:
    """log(K exp(x)) for the logarithms of a kernel along y and along x: one axis after the other."""
    along = _log_sum(x[:, None, :] + across[None, :, :])
    return _log_sum(along.T[None, :, :] + down[:, None, :])


def _log_sum(values: FloatArray) -> FloatArray:
    """log(sum(exp)) over the last axis; -inf for nothing but -inf."""
    largest = values.max(-1, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, 0.0)
    return _log(np.exp(values - largest).sum(-1)) + largest[..., 0]


def _product(mass: FloatArray, logarithm: FloatArray) -> FloatArray:
    """sum(mass * logarithm) over each image, where 0 times -inf is 0."""
    return np.asarray(np.where(mass > 0, mass * np.where(mass > 0, logarithm, 0.0), 0.0).sum((1, 2)))


def _divergence(mass: FloatArray, image: FloatArray) -> FloatArray:
    """KL(mass | image) of unnormalised images."""
    logarithms = _product(mass, _log(mass)) - _product(mass, _log(image))
    return np.asarray(logarithms - mass.sum((1, 2)) + image.sum((1, 2)))
