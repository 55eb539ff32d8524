"""Recompute every result from the raw attributions of submissions and null controls.

Each result is written as soon as it is ready and current ones are skipped, so that an interrupted run can be
resumed. A check computes everything and writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

from medfocus_bench.data.benchmark import Benchmark
from medfocus_bench.engine.protocol import Engine, InProcess, Lost
from medfocus_bench.errors import InputError, SubmissionError, UnavailableError
from medfocus_bench.evaluation.metrics.registry import metrics
from medfocus_bench.evaluation.nulls import NULL_CONTROLS, write_null
from medfocus_bench.evaluation.protocol import EVALUATOR_VERSION, RESAMPLES
from medfocus_bench.leaderboard.faithfulness import keeping_faithfulness
from medfocus_bench.leaderboard.result import (
    MAX_RESULTS,
    NULL_RESULT,
    TOLERANCE,
    Result,
    headline_name,
    read_result,
    result_text,
)
from medfocus_bench.leaderboard.review.checks import UNRANKED_SPLITS, check_submission
from medfocus_bench.leaderboard.scoring import score_result
from medfocus_bench.storage import write_atomic
from medfocus_bench.submission.reader import open_submission

Status = Literal[
    "same", "current", "written", "kept", "pending", "differs", "missing", "stray", "unsound", "unavailable"
]

FAULTS: Final[frozenset[Status]] = frozenset({"differs", "missing", "stray", "unsound"})

MAX_DIFFERENCES: Final = 5
"""Places that are named of one result; one changed map moves hundreds of figures."""

_COUNTED: Final = 1000
_FILTERS: Final = ("source", "lvlm", "mode", "evidence")


@dataclass(frozen=True, slots=True)
class Entry:
    """A source of a result: a submission, or a null control, whose `folder` is None."""

    name: str
    folder: Path | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome for one result.

    "same": recomputed and equal; "current": up to date, skipped; "written"; "kept": of another version of
    the benchmark, so that it cannot be recomputed; "pending": a merged submission without a result yet;
    "unavailable": a null control that needs something the benchmark lacks. Faults: "differs", "missing" (a
    null control), "stray" (without a submission), "unsound". `notes` are sentences that start with the file;
    `before` and `after` the headline over everything covered, where known.
    """

    name: str
    status: Status
    notes: tuple[str, ...] = ()
    before: float | None = None
    after: float | None = None

    @property
    def is_fault(self) -> bool:
        return self.status in FAULTS


@dataclass(frozen=True, slots=True)
class Rules:
    """Options of a rebuild: `force` recomputes current results as well; `check` implies it."""

    results: Path
    check: bool = False
    force: bool = False


def ranked_part(benchmark: Benchmark) -> Benchmark:
    """The ranked part of the benchmark: all splits but dev."""
    return benchmark.select(benchmark.configs, [s for s in benchmark.splits if s not in UNRANKED_SPLITS])


def entries(submissions: Path, only: Sequence[str] = ()) -> list[Entry]:
    """The submissions in a folder and all null controls, by name; with `only`, those of these names.

    Raises InputError for a folder that is not there and for a name that nothing has.
    """
    if not submissions.is_dir():
        raise InputError(f"{submissions}: not a folder; give the one with the submissions, a folder each")
    with os.scandir(submissions) as listing:
        folders = sorted(
            item.name
            for item in listing
            if item.is_dir(follow_symlinks=False) and not item.name.startswith(".")
        )
    if len(folders) > MAX_RESULTS:
        raise InputError(f"{submissions}: holds {len(folders):,} folders; at most {MAX_RESULTS:,} are read")
    found = [Entry(name, submissions / name) for name in folders]
    found += [Entry(NULL_RESULT + name, None) for name in NULL_CONTROLS]
    unknown = sorted(set(only) - {entry.name for entry in found})
    if unknown:
        raise InputError(f"{submissions}: holds no {unknown[0]!r}, and no null control is called so")
    return [entry for entry in found if not only or entry.name in only]


def stray_results(found: Iterable[Entry], results: Path) -> list[Outcome]:
    """Results without a submission or null control."""
    names = {entry.name for entry in found}
    strays = [path for path in sorted(results.glob("*.json")) if path.stem not in names]
    said = "has no submission; restore that, or remove the file and log the removal"
    return [Outcome(path.stem, "stray", (f"{path}: {said}",)) for path in strays]


def rebuild(
    found: Sequence[Entry], benchmark: Benchmark, rules: Rules, *, engine: Engine | None = None
) -> Iterator[Outcome]:
    """The result of each entry, computed by the workers of an engine; outcomes as they come.

    Unless `rules.check`, what changed is written at once. A submission that is unsound stops no other.
    """
    if not rules.check:
        rules.results.mkdir(parents=True, exist_ok=True)
    # The longest first, so that no worker ends alone: a null control makes its maps, too.
    longest_first = sorted(found, key=lambda entry: entry.folder is not None)
    workers = InProcess() if engine is None or len(found) < 2 else engine
    settle = partial(_settled, benchmark=benchmark, rules=rules)
    for entry, outcome in workers.run(settle, longest_first):
        if isinstance(outcome, Lost):
            raise OSError(f"{entry.name} cannot be scored: {outcome.reason}")
        yield outcome


def _settled(entry: Entry, benchmark: Benchmark, rules: Rules) -> Iterator[Outcome]:
    yield _settle(entry, benchmark, rules)


def _settle(entry: Entry, benchmark: Benchmark, rules: Rules) -> Outcome:
    """The outcome for one result."""
    path = rules.results / f"{entry.name}.json"
    try:
        committed = _committed(path, rules)
        ahead = _without_computing(entry, committed, benchmark, rules)
        return ahead or _held_against(
            committed, keeping_faithfulness(_computed(entry, benchmark, rules), committed), path, rules
        )
    except UnavailableError as error:
        if not path.exists():
            return Outcome(entry.name, "unavailable", (str(error),))
        return Outcome(entry.name, "stray", (f"{path}: cannot be computed on this benchmark: {error}",))
    except InputError as error:
        return Outcome(entry.name, "unsound", error.problems)


def _held_against(committed: Result | None, result: Result, path: Path, rules: Rules) -> Outcome:
    """Compare a computed result with the committed one, and write it where allowed and needed."""
    name, before, after = result.name, _headline(committed), _headline(result)
    apart = [] if committed is None else differences(committed, result)
    if committed is not None and not apart:
        return Outcome(name, "same", (), before, after)
    if not rules.check:
        write_atomic(path, result_text(result))
        return Outcome(name, "written", (), before, after)
    if committed is None:
        status: Status = "missing" if result.is_null else "pending"
        note = f"{path}: is {status}; `medfocus-bench leaderboard rebuild` writes it"
        return Outcome(name, status, (note,), before, after)
    return Outcome(name, "differs", tuple(f"{path}: {text}" for text in apart), before, after)


def _committed(path: Path, rules: Rules) -> Result | None:
    """The result in a file; None for a missing one, or an unsound one that may be rewritten."""
    if not path.exists():
        return None
    try:
        return read_result(path)
    except InputError:
        if rules.check:
            raise
        return None


def _without_computing(
    entry: Entry, committed: Result | None, benchmark: Benchmark, rules: Rules
) -> Outcome | None:
    """The outcome of an entry whose result cannot, or need not, be computed."""
    if committed is None:
        return None
    headline = _headline(committed)
    origin = committed.report.provenance
    sha256 = origin.submission_sha256
    if entry.folder is not None:
        submission = open_submission(entry.folder)
        sha256 = submission.sha256
        made_for = submission.document.benchmark
        if made_for.fingerprint != benchmark.fingerprint:
            ours = committed.report.benchmark.fingerprint, origin.submission_sha256, origin.status
            if ours != (made_for.fingerprint, sha256, "verified"):
                return None  # computing says what is wrong
            note = f"{entry.folder}: is of version {made_for.version} of the benchmark; its result is kept"
            return Outcome(entry.name, "kept", (note,), headline, headline)
    if rules.check or rules.force:
        return None
    stands = (
        origin.submission_sha256,
        committed.report.benchmark.fingerprint,
        origin.evaluator_version,
        origin.seed,
        origin.resamples,
        origin.status,
        set(committed.report.headline),
    )
    scores = {metric.name for metric in metrics(with_lvlm=False)}
    if stands == (sha256, benchmark.fingerprint, EVALUATOR_VERSION, 0, RESAMPLES, "verified", scores):
        return Outcome(entry.name, "current", (), headline, headline)
    return None


def _computed(entry: Entry, benchmark: Benchmark, rules: Rules) -> Result:
    if entry.folder is not None:
        checked = check_submission(entry.folder, benchmark)
        if checked.problems or checked.inspection is None or checked.inspection.submission is None:
            raise SubmissionError(checked.problems)
        return score_result(checked.inspection.submission, benchmark, verified=True)
    with TemporaryDirectory(prefix="medfocus-bench-") as work:
        control = entry.name.removeprefix(NULL_RESULT)
        folder = write_null(control, ranked_part(benchmark), Path(work) / entry.name)
        return score_result(folder, benchmark, verified=True)


def _headline(result: Result | None) -> float | None:
    return None if result is None else result.views[0].scores[headline_name()].mean


def differences(committed: Result, recomputed: Result) -> list[str]:
    """Each place where they differ with both values, the first `MAX_DIFFERENCES` and a count of the rest.

    The sha256 of a null control's submission does not count: its maps are made anew each time, and the last
    bit of them is the processor's.
    """
    skipped = {"/report/provenance/submission_sha256"} if recomputed.is_null else set()
    found = _walk(committed.model_dump(mode="json"), recomputed.model_dump(mode="json"), "", "")
    listed = [text for pointer, text in islice(found, _COUNTED) if pointer not in skipped]
    if len(listed) <= MAX_DIFFERENCES:
        return listed
    more = len(listed) - MAX_DIFFERENCES
    count = f"{more} or more" if len(listed) >= _COUNTED else f"{more}"
    return [*listed[:MAX_DIFFERENCES], f"and {count} other places"]


def _walk(old: Any, new: Any, pointer: str, place: str) -> Iterator[tuple[str, str]]:
    """Pairs of a plain JSON pointer and the sentence about it; `place` is the pointer with labels."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            step = str(key).replace("~", "~0").replace("/", "~1")
            yield from _walk(old.get(key), new.get(key), f"{pointer}/{step}", f"{place}/{step}")
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield pointer, f"{place}: has {len(old)} entries, recomputed {len(new)}"
            return
        for number, (before, after) in enumerate(zip(old, new, strict=True)):
            step = f"/{number}"
            yield from _walk(before, after, pointer + step, place + step + _label(before))
    elif not _same(old, new):
        yield pointer, f"{place}: is {_shown(old)}, recomputed {_shown(new)}"


def _same(old: Any, new: Any) -> bool:
    numbers = isinstance(old, int | float) and isinstance(new, int | float)
    if numbers and not isinstance(old, bool) and not isinstance(new, bool):
        return bool(abs(old - new) <= TOLERANCE)
    return type(old) is type(new) and bool(old == new)


def _label(entry: Any) -> str:
    """The slice or the filters of an entry of a list, for a reader."""
    if not isinstance(entry, dict):
        return ""
    if "kind" in entry and "value" in entry:
        return f" ({entry['kind']}: {entry['value']})"
    if "scores" in entry or "score" in entry:
        chosen = [str(entry[key]) for key in _FILTERS if entry.get(key)]
        return f" ({', '.join(chosen) or 'everything'})"
    return ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
