"""The targets of `reproduce` that are about the ranking of the leaderboard: they run nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from medfocus_bench.cli.progress import show_progress

_SHARED: Final = frozenset({"target", "benchmark", "form", "submissions"})


@dataclass(frozen=True, slots=True)
class Ranked:
    """The result of a target: lines and tables for people, and JSON."""

    lines: Sequence[str]
    tables: Sequence[Any]
    as_json: str


@dataclass(frozen=True, slots=True)
class RankingTarget:
    """A target with the names of the options that go with it."""

    title: str
    published: str
    options: frozenset[str]
    make: Callable[[Mapping[str, Any]], Ranked]

    def check(self, target: str) -> None:
        """Refuse the other options of the command."""
        from medfocus_bench.errors import InputError

        context = click.get_current_context()
        for parameter in context.command.params:
            name = parameter.name or ""
            given = context.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)
            if given and name not in self.options | _SHARED:
                raise InputError(f"{parameter.opts[0]} does not go with {target}, which runs no LVLM")


def _convergence(options: Mapping[str, Any]) -> Ranked:
    from medfocus_bench.data.resolve import load_benchmark
    from medfocus_bench.leaderboard.convergence import convergence, paper_scores
    from medfocus_bench.leaderboard.convergence_tables import convergence_tables
    from medfocus_bench.leaderboard.result import read_results

    found = read_results(options["results"])
    benchmark = load_benchmark(options["benchmark"] or "phantom")
    kept = options["out"] / "convergence"
    paper_iou = paper_scores(options["submissions"], found, benchmark, kept, progress=show_progress)
    table = convergence(found, paper_iou)
    line = f"{table.benchmark.dataset} {table.benchmark.version}, evaluator {table.evaluator_version}"
    return Ranked([line], convergence_tables(table), table.model_dump_json(indent=1))


def _sensitivity(options: Mapping[str, Any]) -> Ranked:
    from medfocus_bench.data.resolve import load_benchmark
    from medfocus_bench.errors import InputError
    from medfocus_bench.leaderboard.sensitivity import sensitivity, sensitivity_tables

    folder: Path = options["submissions"]
    if not folder.is_dir():
        raise InputError(f"--submissions {folder}: is not a folder; give the one that holds submissions")
    folders = [path.parent for path in folder.glob("*/submission.json")]
    benchmark = load_benchmark(options["benchmark"] or "phantom")
    found = sensitivity(folders, benchmark, limit=options["limit"], progress=show_progress)
    line = f"{found.benchmark.dataset} {found.benchmark.version}"
    return Ranked([line], sensitivity_tables(found), found.model_dump_json(indent=1))


RANKING_TARGETS: Final[Mapping[str, RankingTarget]] = {
    "convergence": RankingTarget(
        "our ranking beside the published one",
        "IoU in direct mode, by source",
        frozenset({"results", "out"}),
        _convergence,
    ),
    "sensitivity": RankingTarget(
        "our ranking under other constants of evidence AP",
        "none: the constants are ours",
        frozenset({"limit"}),
        _sensitivity,
    ),
}
