"""Records a second with one and with two workers, and what an engine costs beside the work."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from medfocus_bench import Attribution
from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.engine.local import LocalWorkers
from medfocus_bench.engine.protocol import THREADS, Engine
from medfocus_bench.runs.attribute import attribute
from medfocus_bench.runs.explaining import Block, Explained, blocks
from tests.speed.figures import Figure, Limit, once
from tests.speed.machine import Rates

METHOD, LVLM = "grad-cam", "phantom_qwen"
"""The cheapest method that looks at a model: any other leaves the driver more time for a record."""

ENGINES = ("local", "ray")
SAMPLES, ROUNDS, BOUND = 128, 5, 1.7
UNITS = 400


@dataclass(frozen=True, slots=True)
class Rounds:
    """Of each round, seconds with one and with two workers: of the records, and of plain products."""

    records: tuple[tuple[float, float], ...]
    products: tuple[tuple[float, float], ...]
    driver: float


def run(rates: Rates) -> Iterator[Figure]:
    part = _part()
    for name in ENGINES:
        if name == "ray" and find_spec("ray") is None:
            yield Figure("ray: 2 workers against 1", 0, "x", "not measured: Ray is not installed")
            continue
        with ExitStack() as stack:
            one, two = (stack.enter_context(engine) for engine in _engines(name, stack))
            yield from _figures(name, _rounds(one, two, part), len(part.samples))
    yield from _overhead(part, rates)


def _figures(name: str, rounds: Rounds, records: int) -> Iterator[Figure]:
    one, two = (records / statistics.median(column) for column in zip(*rounds.records, strict=True))
    ratio, best = (_gain(pairs) for pairs in (rounds.records, rounds.products))
    yield Figure(
        f"{name}: 2 workers against 1",
        ratio,
        "x",
        f"{one:.1f} and {two:.1f} records a second of {METHOD}, {ROUNDS} rounds, "
        + ", ".join(f"{a / b:.2f}" for a, b in rounds.records),
        f">= {BOUND:g} x on two free cores",
        ratio >= BOUND,
        Limit(ratio, best, "x", "2 workers that multiply matrices, in the same rounds", more_is_better=True),
    )
    yield Figure(
        f"{name}: driver, per record",
        rounds.driver * 1e3,
        "ms",
        "processor time of the driver with 2 workers",
        limit=Limit(rounds.driver, 1 / two, "s", "the time between two records of 2 workers"),
    )


def _rounds(one: Engine, two: Engine, part: Benchmark) -> Rounds:
    """Both engines in turn, the one first in every other round; their workers have loaded the LVLM before."""
    with tempfile.TemporaryDirectory() as folder:
        out = (Path(folder) / str(number) for number in count())

        def explain(engine: Engine) -> Callable[[], object]:
            return lambda: attribute(METHOD, part, next(out), engine=engine)

        def multiply(engine: Engine) -> Callable[[], object]:
            return lambda: list(engine.run(multiplied, [40] * 16))

        for engine in (one, two):
            explain(engine)()
            multiply(engine)()
        records, products, driver = [], [], []
        for number in range(ROUNDS):
            started = process_time()
            records.append(_pair(explain, one, two, number % 2 == 1))
            driver.append((process_time() - started) / 2 / len(part.samples))
            products.append(_pair(multiply, one, two, number % 2 == 1))
    return Rounds(tuple(records), tuple(products), statistics.median(driver))


def _pair(
    work: Callable[[Engine], Callable[[], object]], one: Engine, two: Engine, swapped: bool
) -> tuple[float, float]:
    if swapped:
        second = once(work(two))
        return once(work(one)), second
    return once(work(one)), once(work(two))


def _gain(pairs: tuple[tuple[float, float], ...]) -> float:
    return statistics.median(one / two for one, two in pairs)


def _overhead(part: Benchmark, rates: Rates) -> Iterator[Figure]:
    """A unit of a run and its output on their way to a worker and back, without any work."""
    lacking = [(sample, (0,)) for sample in part.samples]
    some = next(iter(blocks(LVLM, lacking)))
    with LocalWorkers(1) as engine:
        list(engine.run(answered, [some]))
        start = perf_counter()
        outputs = list(engine.run(answered, [some] * UNITS))
        each = (perf_counter() - start) / UNITS
    size = len(_pickled(some)) + len(some.samples) * len(_pickled(outputs[0][1]))
    yield Figure(
        "local: a unit without work",
        each * 1e3,
        "ms",
        f"{len(some.samples)} samples to a worker and their outputs back",
        limit=rates.of_bytes(each, 4 * size, "what is sent, written and read once at both ends"),
    )


def _engines(name: str, stack: ExitStack) -> tuple[Engine, Engine]:
    if name == "local":
        return LocalWorkers(1), LocalWorkers(2)
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # or Ray writes a token into the home folder
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    from medfocus_bench.engine.on_ray import RayWorkers

    # Three actors, of which at most two work at a time.
    ray.init(
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        runtime_env={"env_vars": dict.fromkeys(THREADS, "1")},
    )
    stack.callback(ray.shutdown)
    return RayWorkers(1), RayWorkers(2)


def _part() -> Benchmark:
    """Samples of one LVLM in both modes."""
    track = load_benchmark("phantom", split=["direct", "reasoning"])
    of_lvlm = [sample for sample in track.samples if sample.lvlm == LVLM]
    kept = [s for mode in track.splits for s in [s for s in of_lvlm if s.split == mode][: SAMPLES // 2]]
    return replace(track, samples=tuple(kept))


def _pickled(value: object) -> bytes:
    from multiprocessing.reduction import ForkingPickler

    return bytes(ForkingPickler.dumps(value))


def multiplied(products: int) -> Iterator[float]:
    """Work without data: so many products of matrices, in a worker."""
    matrix = np.ones((384, 384))
    for _ in range(products):
        matrix @ matrix
    yield float(matrix[0, 0])


def answered(block: Block) -> Iterator[Explained]:
    """The outputs of a block, all of them the same small map."""
    saliency = np.zeros((8, 8), dtype=np.float32)
    for sample, _ in block.samples:
        yield Explained(sample.sample_id, 0, Attribution(sample.sample_id, saliency=saliency))
