"""Entropic unbalanced optimal transport between images, on the grid of their pixels.

Two non-negative images a and b, each scaled to mass 1, and the cost C of moving mass from pixel s to pixel t.
The plan P >= 0 minimises

    <C, P> + eps R(P) + lam KL(P 1 | a) + lam KL(P^T 1 | b)

so that mass may be created or destroyed at a price. Two formulations are in use, and they are different
problems (mass 6.36 against 0.62 in one example):

* `entropy`: R(P) = sum P (log P - 1), the kernel is K = exp(-C / eps). What the paper's code solves; in POT
  `reg_type="entropy"`.
* `kl`: R(P) = KL(P | a b^T), the kernel is a b^T exp(-C / eps). The paper's equation 6; POT's
  `reg_type="kl"`.

Either is solved by the scalings u = (a / K v)^f and v = (b / K^T u)^f with f = lam / (lam + eps), and
P = diag(u) K diag(v). With the squared Euclidean distance on a grid exp(-C / eps) is the outer product of one
kernel along y and one along x: a step is two small matrix products, and no plan is ever held.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from medfocus_bench.geometry import FloatArray

Formulation = Literal["entropy", "kl"]
Solver = Literal["auto", "separable", "log", "dense", "pot"]

_GUARD: Final = 1e-18
"""Added to every denominator, as the paper's code does: it decides where the kernel underflows."""

_LEAST: Final = 1e-300

_LOG_BELOW: Final = 0.01
"""Below this eps scalings overflow: the solver works with their logarithms."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is minimised, and when to stop: when the changes of u sum to less than `tolerance`."""

    eps: float = 0.05
    lam: float = 0.1
    formulation: Formulation = "entropy"
    max_iterations: int = 500
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if not (self.eps > 0 and self.lam > 0 and self.max_iterations >= 1):
            raise ValueError("transport needs eps > 0, lam > 0 and at least one iteration")

    @property
    def exponent(self) -> float:
        return self.lam / (self.lam + self.eps)


@dataclass(frozen=True, slots=True, eq=False)
class Transport:
    """Plans between n pairs of images on one grid, as scalings: nothing of the size of a plan is held.

    `source`, `target` (n, height, width): the images, of mass 1. `log_u`, `log_v` (n, height, width): what
    the outer product of `exp(-C / eps)` is scaled with, -inf where there is no mass; with the `kl`
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
        down, across = self._kernels(pair)
        sent, arrived, factor = self._scalings(pair)
        return np.asarray((down @ (sent * np.asarray(shares, dtype=np.float64)) @ across) * arrived * factor)

    @property
    def rows(self) -> FloatArray:
        """The mass that leaves each source pixel: (n, height, width)."""
        moved = []
        for pair in range(len(self.scale)):
            down, across = self._kernels(pair)
            sent, arrived, factor = self._scalings(pair)
            moved.append((down @ arrived @ across) * sent * factor)
        return np.stack(moved)

    @property
    def columns(self) -> FloatArray:
        """The mass that arrives at each target pixel: (n, height, width)."""
        everything = np.ones((1, *self.source.shape[1:]))
        return np.stack([self.push(everything, pair)[0] for pair in range(len(self.scale))])

    @property
    def mass(self) -> FloatArray:
        """The sum of each plan: (n,)."""
        return np.asarray(self.rows.sum((1, 2)))

    @property
    def cost(self) -> FloatArray:
        """sum(C P), with C in squared pixels of the grid, not divided by the scale: (n,)."""
        costs = []
        for pair in range(len(self.scale)):
            down, across = self._kernels(pair)
            sent, arrived, factor = self._scalings(pair)
            moved = (down * squared_distances(len(down))) @ sent @ across
            moved += down @ sent @ (across * squared_distances(len(across)))
            costs.append(float((moved * arrived).sum() * factor))
        return np.array(costs)

    @property
    def value(self) -> FloatArray:
        """What the plan minimises, with the cost divided by the scale: (n,)."""
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
        down, across = self._kernels(pair)
        sent, arrived, factor = self._scalings(pair)
        return np.asarray(sent.reshape(-1, 1) * np.kron(down, across) * (arrived.reshape(1, -1) * factor))

    def _kernels(self, pair: int) -> tuple[FloatArray, FloatArray]:
        return kernels(self.source.shape[1:], self.scale[pair] * self.problem.eps)

    def _scalings(self, pair: int) -> tuple[FloatArray, FloatArray, float]:
        """The exponentials with their largest taken out, so that neither overflows, and what that was."""
        largest = self.log_u[pair].max(), self.log_v[pair].max()
        sent, arrived = np.exp(self.log_u[pair] - largest[0]), np.exp(self.log_v[pair] - largest[1])
        return sent, arrived, float(np.exp(largest[0] + largest[1]))


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
    by `scale`, one number or one a pair. Solvers: `separable`; `log`, the same in logarithms; `dense`, which
    builds the kernel; `pot`, Python Optimal Transport. `auto` is separable, in logarithms under eps = 0.01.
    Raises ValueError for other shapes, negative or non-finite values, and an image without mass.
    """
    problem = problem or Problem()
    a, b = np.broadcast_arrays(_checked(source, "source"), _checked(target, "target"))
    scales = np.broadcast_to(np.asarray(scale, dtype=np.float64), len(a))
    if solver == "auto":
        solver = "log" if problem.eps < _LOG_BELOW else "separable"
    solve = _SOLVERS[solver]
    solved = [
        solve(*images, problem, float(one))
        for images, one in zip(zip(a, b, strict=True), scales, strict=True)
    ]
    log_u, log_v, iterations = (np.array(part) for part in zip(*solved, strict=True))
    return Transport(problem, a, b, scales, log_u, log_v, iterations)


def sinkhorn(
    a: npt.ArrayLike, b: npt.ArrayLike, cost: npt.ArrayLike, problem: Problem | None = None
) -> tuple[FloatArray, int]:
    """The plan (n, m) between histograms a (n,) and b (m,), scaled to mass 1, for any cost; and iterations.

    As the paper's code solves it, to the last bit.
    """
    problem = problem or Problem()
    first, second = (np.asarray(x, dtype=np.float64) / np.sum(x, dtype=np.float64) for x in (a, b))
    kernel = np.maximum(np.exp(-np.asarray(cost, dtype=np.float64) / problem.eps), _LEAST)
    if problem.formulation == "kl":
        kernel = first[:, None] * kernel * second[None, :]
    u, v, count = _scale(first, second, problem, lambda x: kernel @ x, lambda x: kernel.T @ x)
    return np.asarray(u[:, None] * kernel * v[None, :]), count


def squared_distances(side: int) -> FloatArray:
    """Squared distances between the pixels of a line: (side, side)."""
    places = np.arange(side, dtype=np.float64)
    return np.asarray((places[:, None] - places[None, :]) ** 2)


def kernels(shape: tuple[int, ...], width: float) -> tuple[FloatArray, FloatArray]:
    """exp(-squared distance / width) along y and along x."""
    height, breadth = (np.exp(-squared_distances(side) / width) for side in shape)
    return height, breadth


def _scale(
    a: FloatArray,
    b: FloatArray,
    problem: Problem,
    forward: Callable[[FloatArray], FloatArray],
    backward: Callable[[FloatArray], FloatArray],
) -> tuple[FloatArray, FloatArray, int]:
    """The scalings by fixed-point iteration; `forward` is K v, `backward` K^T u."""
    u, v = (a > 0).astype(np.float64), (b > 0).astype(np.float64)
    for count in range(1, problem.max_iterations + 1):
        before = u
        u = (a / (forward(v) + _GUARD)) ** problem.exponent
        v = (b / (backward(u) + _GUARD)) ** problem.exponent
        if np.abs(u - before).sum() < problem.tolerance:
            return u, v, count
    return u, v, problem.max_iterations


_Solved = tuple[FloatArray, FloatArray, int]


def _separable(a: FloatArray, b: FloatArray, problem: Problem, scale: float) -> _Solved:
    down, across = kernels(a.shape, scale * problem.eps)
    own_a, own_b = (a, b) if problem.formulation == "kl" else (1.0, 1.0)
    u, v, count = _scale(
        a,
        b,
        problem,
        lambda x: own_a * (down @ (own_b * x) @ across),
        lambda x: own_b * (down @ (own_a * x) @ across),
    )
    return _log(own_a * u), _log(own_b * v), count


def _logarithmic(a: FloatArray, b: FloatArray, problem: Problem, scale: float) -> _Solved:
    """As `_separable`, with log-sum-exp along one axis after the other."""
    down, across = (-squared_distances(side) / (scale * problem.eps) for side in a.shape)
    log_a, log_b = _log(a), _log(b)
    own_a, own_b = (log_a, log_b) if problem.formulation == "kl" else (0.0, 0.0)

    def through(x: FloatArray) -> FloatArray:
        along = _log_sum(x[:, None, :] + across[None, :, :])
        return _log_sum(along.T[None, :, :] + down[:, None, :])

    def scaled(image: FloatArray, log_image: FloatArray, moved: FloatArray) -> FloatArray:
        # With `kl` the image's own factor cancels: K = a b^T exp(-C / eps).
        left = -moved if problem.formulation == "kl" else log_image - moved
        return np.where(image > 0, problem.exponent * left, -np.inf)

    log_u, log_v = np.where(a > 0, 0.0, -np.inf), np.where(b > 0, 0.0, -np.inf)
    for count in range(1, problem.max_iterations + 1):
        before = log_u[a > 0]
        log_u = scaled(a, log_a, through(own_b + log_v))
        log_v = scaled(b, log_b, through(own_a + log_u))
        if np.abs(log_u[a > 0] - before).max() < problem.tolerance:
            return own_a + log_u, own_b + log_v, count
    return own_a + log_u, own_b + log_v, problem.max_iterations


def _dense(a: FloatArray, b: FloatArray, problem: Problem, scale: float) -> _Solved:
    kernel = np.kron(*kernels(a.shape, scale * problem.eps))
    own_a, own_b = (a.ravel(), b.ravel()) if problem.formulation == "kl" else (1.0, 1.0)
    u, v, count = _scale(
        a.ravel(),
        b.ravel(),
        problem,
        lambda x: own_a * (kernel @ (own_b * x)),
        lambda x: own_b * (kernel.T @ (own_a * x)),
    )
    return _log(own_a * u).reshape(a.shape), _log(own_b * v).reshape(b.shape), count


def _pot(a: FloatArray, b: FloatArray, problem: Problem, scale: float) -> _Solved:
    from ot.unbalanced import sinkhorn_unbalanced

    here, there = np.flatnonzero(a), np.flatnonzero(b)
    ys, xs = (squared_distances(side) for side in a.shape)
    cost = (np.kron(ys, np.ones_like(xs)) + np.kron(np.ones_like(ys), xs)) / scale
    with warnings.catch_warnings():
        # It says that it ignores a reference measure that nobody gave.
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
    "separable": _separable,
    "log": _logarithmic,
    "dense": _dense,
    "pot": _pot,
}


def _checked(image: npt.ArrayLike, name: str) -> FloatArray:
    array = np.asarray(image, dtype=np.float64)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3:
        raise ValueError(f"the {name} has the shape (n, height, width), not {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError(f"the {name} has negative or non-finite values")
    total = array.sum((1, 2), keepdims=True)
    if not (total > 0).all():
        raise ValueError(f"the {name} has no mass")
    return np.asarray(array / total)


def _log(values: FloatArray) -> FloatArray:
    return np.log(values, out=np.full(values.shape, -np.inf), where=values > 0)


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
