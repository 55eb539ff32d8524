"""A submission given to `evaluate` and `validate`, which have to refuse it with the same words."""

from __future__ import annotations

from pathlib import Path

from medfocus_bench.data.benchmark import Benchmark

from ..submission.documents import entry
from .running import run

LARGE = entry([50_000, 50_000], 0, 2_500_000_000)
"""The header of a map that is too large to be read."""

BOXES: tuple[int | str, ...] = ("attributions", 0, "boxes")
"""The place of the boxes in a sound document."""


def evaluate(path: Path, bench: Benchmark) -> tuple[int, str, str]:
    return run("evaluate", path, "--benchmark", bench.folder, "--no-nulls", "--resamples", 10)


def validate(path: Path, bench: Benchmark) -> tuple[int, str, str]:
    return run("validate", path, "--benchmark", bench.folder)


def refusal(path: Path, bench: Benchmark) -> list[str]:
    """The problems that `validate` lists; `evaluate` refuses too, in one line with the first of them."""
    status, out, err = evaluate(path, bench)
    assert (status, out) == (2, "")
    assert printable_lines(err) == 1
    assert err.startswith("medfocus-bench: ")
    listed_status, listed_out, listed = validate(path, bench)
    assert (listed_status, listed_out) == (2, "")
    lines = listed.removesuffix("\n").split("\n")
    assert printable_lines(listed) == len(lines)
    *problems, count = lines
    assert count.split(": ")[-1] == f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    first = problems[0].split(" for tensor ")[0]  # the library names any of several
    assert err.startswith(f"medfocus-bench: {first}")
    return problems


def printable_lines(text: str) -> int:
    lines = text.removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    assert "Traceback" not in text
    return len(lines)
