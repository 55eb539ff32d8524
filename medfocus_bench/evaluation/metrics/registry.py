"""The scores by name: those of this folder, and those that other packages add."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final

from medfocus_bench.errors import InputError
from medfocus_bench.evaluation import metrics as package
from medfocus_bench.evaluation.metrics.metric import Metric
from medfocus_bench.evaluation.protocol import Protocol

GROUP: Final = "medfocus_bench.metrics"
"""The entry point group by which a package adds scores: each names a `Metric`."""

_HEADLINE: Final[dict[Protocol, str]] = {"standard": "evidence_ap", "paper": "iou"}


@cache
def registered() -> dict[str, Metric]:
    """All scores by name. Raises InputError for an entry point that is not a Metric or reuses a name."""
    modules = [import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    found = {module.METRIC.name: module.METRIC for module in modules if hasattr(module, "METRIC")}
    for entry in entry_points(group=GROUP):
        metric = entry.load()
        if not isinstance(metric, Metric):
            raise InputError(f"{entry.value}: is not a Metric, which the group {GROUP} is for")
        if metric.name in found:
            raise InputError(f"{entry.value}: a score {metric.name!r} exists already; take another name")
        found[metric.name] = metric
    return found


def metrics(protocol: Protocol = "standard", *, with_lvlm: bool = True) -> tuple[Metric, ...]:
    """The scores of a protocol, in the order of every table; those that need an LVLM only `with_lvlm`."""
    chosen = (
        metric
        for metric in registered().values()
        if protocol in metric.protocols and (with_lvlm or "lvlm" not in metric.needs)
    )
    return tuple(sorted(chosen, key=lambda metric: (metric.order, metric.name)))


def headline(protocol: Protocol = "standard") -> Metric:
    """The score by which rows are ranked."""
    return registered()[_HEADLINE[protocol]]
