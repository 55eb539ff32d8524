"""`bench`: the speed and memory benchmarks of a checkout, each beside what this machine can do at best."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

from medfocus_bench.cli.options import OUTPUT_FILE, Command
from medfocus_bench.cli.output import one_line
from medfocus_bench.engine.protocol import THREADS
from medfocus_bench.errors import InputError

_CHECKOUT: Final = Path(__file__).parents[2]


@click.command("bench", cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--out", type=OUTPUT_FILE, help="JSON with the machine, versions, figures and limits.")
def bench_command(names: tuple[str, ...], out: Path | None) -> None:
    """Measure speed and memory, each beside its physical limit; NAME: one benchmark, default all.

    For a checkout with the extra [dev]. On a busy machine figures are not those of the code: the load is
    shown.
    """
    for variable in THREADS:  # read by numpy and torch when they are imported
        os.environ[variable] = "1"
    benches = _part_of_checkout("benches")
    unknown = [name for name in names if name not in benches.NAMES]
    if unknown:
        raise InputError(f"no benchmark {unknown[0]!r}; there are {', '.join(benches.NAMES)}")
    machine = _part_of_checkout("machine")
    document = machine.describe() | {"benchmarks": []}
    click.echo(one_line(", ".join(f"{name} {value}" for name, value in document["versions"].items())))
    click.echo(one_line("{processor}, {cores} cores".format(**document["machine"])))
    for name in names or benches.NAMES:
        document["benchmarks"].append(_measured(name, benches, machine))
        if out is not None:  # as it is made: all of them take a while
            _write(out, document)


def _measured(name: str, benches: Any, machine: Any) -> dict[str, Any]:
    """Measure and print a benchmark."""
    load, rates = machine.load(), machine.Rates.measured()
    click.echo(f"== {name} (load {load:.1f})")
    figures = []
    for figure in benches.figures(name, rates):
        mark = {None: "    ", True: "ok  ", False: "MISS"}[figure.met]
        for start, line in zip((mark, "    "), _lines(figure), strict=False):
            click.echo(f"{start}  {one_line(line)}")
        limit = figure.limit and asdict(figure.limit) | {"times": figure.limit.times}
        figures.append(asdict(figure) | {"limit": limit})
    return {"name": name, "load": load, "rates": asdict(rates), "figures": figures}


def _lines(figure: Any) -> list[str]:
    """The figure with its bound, and below it the limit."""
    wanted = f" (wanted: {figure.wanted})" if figure.wanted else ""
    detail = f" ({figure.detail})" if figure.detail else ""
    lines = [f"{figure.name}: {figure.value:,.4g} {figure.unit}{detail}{wanted}"]
    if (limit := figure.limit) is not None:
        reached, best = (_amount(value, limit.unit) for value in (limit.reached, limit.best))
        lines.append(f"{reached}, at best {best}: {limit.times:,.3g} x ({limit.what})")
    return lines


def _amount(value: float, unit: str) -> str:
    """Seconds in the unit that reads best."""
    for size, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "\N{MICRO SIGN}")):
        if unit == "s" and value >= size:
            return f"{value / size:.3g} {prefix}s"
    return f"{value / 1e-9:.3g} ns" if unit == "s" else f"{value:.3g} {unit}"


def _part_of_checkout(name: str) -> Any:
    """A module of the benchmarks. Raises InputError where this is an installed wheel, which lacks them."""
    if not (_CHECKOUT / "tests" / "speed").is_dir():
        raise InputError(
            "the benchmarks are in a checkout: git clone https://github.com/medfocus/medfocus-bench, and run "
            "`make speed` there"
        )
    if str(_CHECKOUT) not in sys.path:
        sys.path.insert(0, str(_CHECKOUT))
    return import_module(f"tests.speed.{name}")


def _write(out: Path, document: dict[str, Any]) -> None:
    from medfocus_bench.storage import write_atomic

    # A figure may be a scalar of numpy.
    write_atomic(out, json.dumps(document, indent=1, default=lambda value: value.item()) + "\n")
