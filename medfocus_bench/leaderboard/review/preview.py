"""The page of a result that is not on the board, to see that it can be built."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.leaderboard.result import Result, result_text
from medfocus_bench.leaderboard.site import Site, build_site


def preview(result: Result, folder: Path, benchmark: Benchmark) -> Site:
    """Builds the site of this one result with the gallery of its submission `folder`, and removes it.

    Raises whatever would stop the site of all, which no single submission may. InputError for a folder that
    is not what was scored.
    """
    with TemporaryDirectory(prefix="medfocus-bench-") as work:
        results = Path(work) / "results"
        results.mkdir()
        (results / f"{result.name}.json").write_text(result_text(result), encoding="utf-8")
        return build_site(results, Path(work) / "site", submissions=folder.parent, benchmark=benchmark)
