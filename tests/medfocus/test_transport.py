"""Unbalanced transport: against the paper's code, against POT, and what its quantities are."""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np
import pytest
from scipy.special import logsumexp

from medfocus_bench.errors import InputError
from medfocus_bench.medfocus.grids import grid_image, grid_mask
from medfocus_bench.medfocus.localisers import smallest_set
from medfocus_bench.medfocus.transport import Problem, _scale, squared_distances, transport

SIDES = (9, 7)
BEYOND = (("eps", 1e-7), ("eps", np.inf), ("lam", np.inf))
SCALE = 12.0


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    source, target = rng.random((2, *SIDES))
    source[:2] = 0
    return source, target


def cost_matrix():
    ys, xs = (squared_distances(side) for side in SIDES)
    return (np.kron(ys, np.ones_like(xs)) + np.kron(np.ones_like(ys), xs)) / SCALE


def sinkhorn(a, b, cost, problem):
    """The plan (n, m) for any cost between two histograms, as the paper's code solves it; and iterations."""
    first, second = a / np.sum(a), b / np.sum(b)
    kernel = np.maximum(np.exp(-cost / problem.eps), 1e-300)
    if problem.formulation == "kl":
        kernel = first[:, None] * kernel * second[None, :]
    u, v, count, _ = _scale(first, second, problem, lambda x: kernel @ x, lambda x: kernel.T @ x)
    return u[:, None] * kernel * v[None, :], count


def test_small_problems_are_solved_as_the_papers_code_solves_them(golden):
    """To rounding: another processor sums in another order."""
    arrays = np.load(golden / "sinkhorn_small.npz")
    for case in json.loads((golden / "sinkhorn_small.json").read_text()):
        number, settings = case["case"], case["kwargs"]
        if f"{number}_a" not in arrays:
            continue
        problem = Problem(
            settings["epsilon"],
            settings["lambda_marginal"],
            max_iterations=settings["max_iter"],
            tolerance=settings["tol"],
        )
        plan, iterations = sinkhorn(*(arrays[f"{number}_{name}"] for name in "abC"), problem)
        assert plan == pytest.approx(arrays[f"{number}_P"], rel=1e-10, abs=1e-15), number
        assert iterations == case["n_iter"]


def test_radiographs_are_transported_as_the_papers_code_transports_them(golden):
    """Cost, mass and marginals to 1e-9; the mapped masks to the bit."""
    images, plans = np.load(golden / "transport_images.npz"), np.load(golden / "transport_plans.npz")
    vectors = json.loads((golden / "transport.json").read_text())
    seen = 0
    for record in vectors["records"]:
        pair, grid = record["pair"], record["grid"]
        prefix = f"{pair}_g{grid}"
        if f"{pair}_src" not in images:
            continue
        source, target = (grid_image(images[f"{pair}_{side}"], grid) for side in ("src", "tgt"))
        scale = source.cost_scale(target)
        assert scale == record["cost_scale"]
        moved = transport(source.support, target.support, scale=scale)
        as_published = transport(source.support, target.support, scale=scale, solver="separable")
        assert np.array_equal(moved.log_u, as_published.log_u), "nothing is solved otherwise by `auto`"
        assert moved.mass[0] == pytest.approx(record["mass"], rel=1e-9)
        assert moved.cost[0] == pytest.approx(record["cost_ds"], rel=1e-9)
        assert np.allclose(moved.rows[0][source.inside], plans[f"{prefix}_row"], atol=1e-9)
        assert np.allclose(moved.columns[0][target.inside], plans[f"{prefix}_col"], atol=1e-9)
        masks = np.unpackbits(images[f"{pair}_masks"], axis=1)[:, : 224 * 224].reshape(-1, 224, 224) > 0
        arrived = moved.push(np.stack([grid_mask(mask, grid) for mask in masks]))
        wanted = np.unpackbits(plans[f"{prefix}_maskbits"], axis=1)[:, : 224 * 224].reshape(-1, 224, 224)
        for concept, heat, expected in zip(vectors["concepts"], arrived, wanted, strict=True):
            assert heat.sum() == pytest.approx(record["masks"][f"{concept}|q=0.75"]["target_mass"], rel=1e-9)
            assert np.array_equal(on_a_stride_grid(smallest_set(heat, target.inside, 0.75)), expected > 0)
        seen += 1
    assert seen == 30


def on_a_stride_grid(cells):
    """The marks of the paper's code: one pixel of 224 x 224 for each cell."""
    marked = np.zeros((224, 224), dtype=np.bool_)
    step = 224 // len(cells)
    marked[::step, ::step] = cells
    return marked


@pytest.mark.parametrize("formulation", ["entropy", "kl"])
@pytest.mark.parametrize("eps", [0.05, 0.5])
def test_every_solver_agrees_with_pot(pair, formulation, eps):
    """Trap 38: both formulations, by their names."""
    pytest.importorskip("ot")
    problem = Problem(eps=eps, formulation=formulation, max_iterations=3000, tolerance=1e-13)
    oracle = transport(*pair, problem, scale=SCALE, solver="pot")
    for solver in ("separable", "log"):
        found = transport(*pair, problem, scale=SCALE, solver=solver)
        assert np.abs(found.plan() - oracle.plan()).max() < 1e-12 * oracle.plan().max()
        assert found.value[0] == pytest.approx(oracle.value[0], rel=1e-9)


def test_the_two_formulations_are_two_problems(pair):
    masses = [transport(*pair, Problem(formulation=f), scale=SCALE).mass[0] for f in ("entropy", "kl")]
    assert masses[0] > 1.2 * masses[1]


@pytest.mark.parametrize("formulation", ["entropy", "kl"])
def test_every_quantity_is_that_of_the_plan(pair, formulation):
    problem = Problem(formulation=formulation, max_iterations=3000, tolerance=1e-13)
    moved = transport(*pair, problem, scale=SCALE)
    plan, cost = moved.plan(), cost_matrix()
    a, b = (image.ravel() / image.sum() for image in pair)
    rows, columns = plan.sum(1), plan.sum(0)
    assert np.allclose(moved.rows[0].ravel(), rows, rtol=1e-12)
    assert np.allclose(moved.columns[0].ravel(), columns, rtol=1e-12)
    assert moved.mass[0] == pytest.approx(plan.sum(), rel=1e-12)
    assert moved.cost[0] == pytest.approx((plan * cost).sum() * SCALE, rel=1e-12)
    parts = np.random.default_rng(1).random((3, *SIDES)) > 0.5
    pushed = parts.reshape(3, -1) @ plan
    assert np.allclose(moved.push(parts).reshape(3, -1), pushed, rtol=1e-12)

    def divergence(p, q):
        held = p > 0
        return (p[held] * np.log(p[held] / q[held])).sum() - p.sum() + q.sum()

    inside = plan > 0
    if formulation == "kl":
        regulariser = divergence(plan, np.outer(a, b))
    else:
        regulariser = (plan[inside] * (np.log(plan[inside]) - 1)).sum()
    value = (plan * cost).sum() + problem.eps * regulariser
    value += problem.lam * (divergence(rows, a) + divergence(columns, b))
    assert moved.value[0] == pytest.approx(value, rel=1e-10)


def test_a_plan_is_a_minimum(pair):
    """Any other plan is worse, whichever way it is changed."""
    moved = transport(*pair, Problem(max_iterations=3000, tolerance=1e-13), scale=SCALE)
    plan, cost = moved.plan(), cost_matrix()
    a, b = (image.ravel() / image.sum() for image in pair)

    def value(p):
        held = p > 0
        total = (p * cost).sum() + 0.05 * (p[held] * (np.log(p[held]) - 1)).sum()
        for marginal, image in ((p.sum(1), a), (p.sum(0), b)):
            some = marginal > 0
            total += 0.1 * (
                (marginal[some] * np.log(marginal[some] / image[some])).sum() - marginal.sum() + 1
            )
        return total

    rng = np.random.default_rng(2)
    for _ in range(20):
        assert value(plan * np.exp(0.05 * rng.standard_normal(plan.shape))) > value(plan)


@pytest.mark.parametrize("formulation", ["entropy", "kl"])
def test_a_thousandth_of_eps_is_stable(pair, formulation):
    problem = Problem(eps=0.001, formulation=formulation, max_iterations=5000, tolerance=1e-9)
    moved = transport(*pair, problem, scale=SCALE)
    assert np.isfinite(moved.cost).all()
    assert 0.3 < moved.mass[0] < 1.1
    arrived = moved.push(np.ones((1, *SIDES)))
    assert np.isfinite(arrived).all()


# -- images that lie far apart for their eps ---------------------------------------------------------------


@pytest.fixture(scope="module")
def corners():
    """Two images that have mass in opposite corners only."""
    source, target = np.zeros((2, *SIDES))
    source[:3, :3] = target[-3:, -3:] = 1.0
    source[1, 1], target[-1, -1] = 3.0, 2.0
    return source, target


def plainly_solved(source, target, problem):
    """The plan by logarithms of scalings over the pixels with mass, without any of the package's code."""
    a, b = (image.ravel() / image.sum() for image in (source, target))
    here, there = np.flatnonzero(a), np.flatnonzero(b)
    kernel = -cost_matrix()[np.ix_(here, there)] / problem.eps
    if problem.formulation == "kl":
        kernel = kernel + np.log(a[here])[:, None] + np.log(b[there])
    power, v = problem.lam / (problem.lam + problem.eps), np.zeros(len(there))
    for _ in range(problem.max_iterations):
        u = power * (np.log(a[here]) - logsumexp(kernel + v, axis=1))
        v = power * (np.log(b[there]) - logsumexp(kernel.T + u, axis=1))
    plan = np.zeros((a.size, b.size))
    plan[np.ix_(here, there)] = np.exp(u[:, None] + kernel + v)
    return plan


@pytest.mark.parametrize("formulation", ["entropy", "kl"])
@pytest.mark.parametrize("eps", [0.1, 0.05, 0.01, 0.005, 0.001, 1e-6])
def test_images_without_a_common_pixel_have_a_plan_at_any_eps(corners, formulation, eps):
    """The kernel between them is below the smallest float64 from eps = 0.005 on, the plan is not."""
    problem = Problem(eps=eps, formulation=formulation, max_iterations=40, tolerance=0.0)
    plan = plainly_solved(*corners, problem)
    assert plan.sum() > 0
    for solver in ("auto", "log"):
        moved = transport(*corners, problem, scale=SCALE, solver=solver)
        assert moved.mass[0] == pytest.approx(plan.sum(), rel=1e-6)
        assert moved.cost[0] == pytest.approx((plan * cost_matrix()).sum() * SCALE, rel=1e-6)
        assert np.allclose(moved.plan(), plan, rtol=1e-6, atol=1e-9 * plan.max())
        assert np.allclose(moved.rows[0].ravel(), plan.sum(1), rtol=1e-6, atol=0)
        parts = np.random.default_rng(4).random((3, *SIDES)) > 0.5
        assert np.allclose(moved.push(parts).reshape(3, -1), parts.reshape(3, -1) @ plan, rtol=1e-6, atol=0)
        assert np.isfinite(moved.value).all()


@pytest.mark.parametrize("formulation", ["entropy", "kl"])
@pytest.mark.parametrize("eps", [0.05, 0.01, 0.005])
def test_small_eps_agrees_with_pots_stabilised_solver(formulation, eps):
    """On images that overlap. Where its own guard of 1e-16 decides, as between far corners, it gives up."""
    pair = np.random.default_rng(5).uniform(0.2, 1.0, (2, *SIDES))
    unbalanced = pytest.importorskip("ot").unbalanced
    problem = Problem(eps=eps, formulation=formulation, max_iterations=6000, tolerance=1e-11)
    a, b = (image.ravel() / image.sum() for image in pair)
    with warnings.catch_warnings():
        # It says that it ignores a reference measure that nobody gave.
        warnings.filterwarnings("ignore", "If reg_type = entropy")
        plan = unbalanced.sinkhorn_unbalanced(
            *(a, b, cost_matrix(), eps, problem.lam),
            method="sinkhorn_stabilized",
            reg_type=formulation,
            numItermax=6000,
            stopThr=1e-11,
        )
    for solver in ("auto", "log"):
        moved = transport(*pair, problem, scale=SCALE, solver=solver)
        assert np.abs(moved.plan() - plan).max() < 1e-6 * plan.max()
        assert moved.mass[0] == pytest.approx(plan.sum(), rel=1e-6)


@pytest.mark.parametrize("formulation", ["entropy", "kl"])
def test_auto_leaves_the_separable_solver_where_its_guard_would_decide(corners, formulation):
    """At eps = 0.01 the published guard of 1e-18 is far above the kernel: the mass is lost."""
    problem = Problem(eps=0.01, formulation=formulation)
    auto, separable, log = (
        transport(*corners, problem, scale=SCALE, solver=solver) for solver in ("auto", "separable", "log")
    )
    assert auto.mass[0] == log.mass[0]
    assert separable.mass[0] < 1e-30 * log.mass[0]


@pytest.mark.parametrize("eps", [0.5, 0.05, 0.02])
def test_auto_is_separable_where_images_overlap(pair, eps):
    problem = Problem(eps=eps)
    auto, separable = (
        transport(*pair, problem, scale=SCALE, solver=solver) for solver in ("auto", "separable")
    )
    assert np.array_equal(auto.log_u, separable.log_u)
    assert np.array_equal(auto.log_v, separable.log_v)


def test_a_plan_below_the_smallest_number_has_no_mass_and_is_not_nan(corners):
    for formulation in ("entropy", "kl"):
        problem = Problem(eps=0.0001, lam=0.0001, formulation=formulation)
        moved = transport(*corners, problem, scale=SCALE)
        assert moved.mass[0] == moved.cost[0] == 0
        assert not moved.push(np.ones((1, *SIDES))).any()
        assert np.isfinite(moved.value).all()


def test_without_pot_its_solver_names_the_extra(pair, monkeypatch):
    monkeypatch.setitem(sys.modules, "ot.unbalanced", None)
    with pytest.raises(InputError, match=r"pip install 'medfocus-bench\[medfocus\]'"):
        transport(*pair, scale=SCALE, solver="pot")


def test_a_batch_is_its_pairs_one_by_one(pair):
    rng = np.random.default_rng(3)
    sources, target = rng.random((4, *SIDES)), pair[1]
    together = transport(sources, target, scale=[10, 11, 12, 13])
    for number, source in enumerate(sources):
        alone = transport(source, target, scale=10 + number)
        assert np.array_equal(together.plan(number), alone.plan())
        assert together.cost[number] == alone.cost[0]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (np.zeros(SIDES), "no mass"),
        (-np.ones(SIDES), "negative"),
        (np.full(SIDES, np.nan), "non-finite"),
        (np.ones(9), "shape"),
        (np.full(SIDES, 1e307), "too large"),
    ],
)
def test_what_is_no_measure_is_an_error(pair, source, said):
    with pytest.raises(ValueError, match=said):
        transport(source, pair[1])


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"eps": 0.0}, "eps > 0"), *(({name: n}, "eps >= 1e-06") for name, n in BEYOND)],
)
def test_a_problem_beyond_what_numbers_hold_is_an_error(settings, said):
    with pytest.raises(ValueError, match=said):
        Problem(**settings)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_a_scale_that_is_not_positive_is_an_error(pair, scale):
    with pytest.raises(ValueError, match="scale"):
        transport(*pair, scale=scale)
