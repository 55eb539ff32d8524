"""`submit`, and `leaderboard rebuild`, `leaderboard guard` and `leaderboard log`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from medfocus_bench.cli.options import (
    CORES,
    INPUT,
    INPUT_FILE,
    INPUT_FOLDER,
    SUMMARY_FILE,
    Command,
    benchmark_option,
    check_writable,
    engine_options,
)
from medfocus_bench.cli.output import counted, one_line, print_problems, print_tables, warn
from medfocus_bench.cli.progress import show_progress

if TYPE_CHECKING:
    from medfocus_bench.engine.protocol import Engine
    from medfocus_bench.leaderboard.rebuild import Outcome
    from medfocus_bench.leaderboard.result import Result
    from medfocus_bench.leaderboard.review.review import Review

RESULTS = Path("leaderboard") / "results"
LOG = Path("leaderboard") / "log.jsonl"

_benchmark_option = benchmark_option(default="phantom", show_default=True)
results_option = click.option(
    "--results",
    type=INPUT_FOLDER,
    default=RESULTS,
    show_default=True,
    help="Folder of the results, a JSON file each.",
)
_summary_option = click.option("--summary", type=SUMMARY_FILE, help="Add the outcome to this Markdown file.")


@click.command("submit", cls=Command)
@click.argument("folder", type=INPUT)
@_benchmark_option
@results_option
@_summary_option
def submit_command(folder: Path, benchmark: str, results: Path, summary: Path | None) -> None:
    """Check FOLDER, which is submissions/<name>, as a pull request is checked, and show the row it would get.

    Status 2, with every problem, where it would be refused.
    """
    from medfocus_bench.data.resolve import load_benchmark
    from medfocus_bench.errors import InputError
    from medfocus_bench.leaderboard.review.review import review

    opened = load_benchmark(benchmark)
    if results != RESULTS and not results.is_dir():
        raise InputError(f"{results}: not a folder; give the one with the results, or leave --results out")
    committed = _committed(results)
    found = review(folder, opened, committed, progress=show_progress)
    _conclude_review(found, str(folder), bool(committed), summary)


@click.command("guard", cls=Command)
@click.option("--base", required=True, type=INPUT, help="The repository as it is.")
@click.option("--head", required=True, type=INPUT, help="The files of the pull request.")
@click.option(
    "--changes",
    type=INPUT,
    help="Output of `git diff --name-status -z`. Default: compare the two trees.",
)
@click.option("--author", required=True, help="The account that opened the pull request.")
@_benchmark_option
@_summary_option
def guard_command(
    base: Path, head: Path, changes: Path | None, author: str, benchmark: str, summary: Path | None
) -> None:
    """Check a pull request: one submission and nothing else, by its owner, sound; and show its row.

    Nothing of the pull request is run. Status 2, with every problem, where it is refused.
    """
    from medfocus_bench.data.resolve import load_benchmark
    from medfocus_bench.errors import InputError
    from medfocus_bench.leaderboard.review.pull_request import (
        changed_submission,
        compared_trees,
        read_changes,
    )
    from medfocus_bench.leaderboard.review.review import review

    opened = load_benchmark(benchmark)
    for option, tree in (("--base", base), ("--head", head)):
        if not tree.is_dir():
            raise InputError(f"{option} {tree}: not a folder; give that of a checkout")
    try:
        changed = compared_trees(base, head) if changes is None else read_changes(changes)
        committed = _committed(base / RESULTS)
        target = changed_submission(base, head, changed, author)
        found = review(
            target.folder,
            opened,
            committed,
            beside=target.beside,
            before=target.before,
            author=author,
            progress=show_progress,
        )
    except InputError as error:
        _refuse(error.problems, "the pull request", summary)
    _conclude_review(found, "the pull request", bool(committed), summary)


@click.command("rebuild", cls=Command)
@click.option("--submissions", type=INPUT, default=Path("submissions"), show_default=True)
@results_option
@_benchmark_option
@engine_options(CORES, "cores, up to 8")
@click.option("--check", is_flag=True, help="Write nothing; status 1 if a result is not what is computed.")
@click.option("--only", multiple=True, metavar="NAME", help="Only this submission; may be repeated.")
@click.option("--force", is_flag=True, help="Also compute what is up to date.")
@click.option("--faithfulness", is_flag=True, help="Also measure faithfulness, on the LVLMs.")
@click.option(
    "--samples", type=click.IntRange(1), help="With --faithfulness: only so many. Default: all samples."
)
def rebuild_command(
    submissions: Path,
    results: Path,
    benchmark: str,
    engine: Engine,
    check: bool,
    only: tuple[str, ...],
    force: bool,
    faithfulness: bool,
    samples: int | None,
) -> None:
    """Compute every result from the raw attributions, and those of the null controls.

    Writes what changed, as it is made. With --check, holds what is computed against what is committed. A
    result keeps its faithfulness until --faithfulness measures it anew; its records go to a folder beside the
    results, ending in `.work`.
    """
    from medfocus_bench.data.resolve import load_benchmark
    from medfocus_bench.errors import InputError
    from medfocus_bench.leaderboard.faithfulness import Measurement, add_faithfulness
    from medfocus_bench.leaderboard.rebuild import Rules, entries, rebuild, stray_results
    from medfocus_bench.storage import records_beside

    if samples is not None and not faithfulness:
        raise InputError("--samples goes with --faithfulness")
    if faithfulness and check:
        raise InputError("--faithfulness writes into the results; leave --check out")
    opened = load_benchmark(benchmark)
    found = entries(submissions, only)
    outcomes = stray_results(found, results) if not only else []
    rules = Rules(results, check=check, force=force)
    scored = rebuild(found, opened, rules, engine=engine)
    for outcome in show_progress(scored, "Scoring", len(found)):
        outcomes.append(outcome)
        click.echo(_outcome_line(outcome))
    if faithfulness:
        measured = add_faithfulness(
            {entry.name: entry.folder for entry in found},
            results,
            opened,
            Measurement(records_beside(results), samples),
            engine=engine,
            progress=show_progress,
        )
        for name, mean in measured:
            click.echo(one_line(f"{name}: faithfulness {'not measured' if mean is None else f'{mean:z.3f}'}"))
    _conclude(outcomes, check)


@click.command("log", cls=Command)
@click.argument("event", required=False, type=click.Choice(("added", "rescored", "removed")))
@click.argument("submission", required=False)
@click.option("--reason", help="Why, in a sentence that readers of the page see.")
@click.option("--before", type=float, help="Evidence AP before it was rescored. Default: as logged last.")
@click.option("--after", type=float, help="Evidence AP since. Default: that of its result.")
@click.option("--date", "day", metavar="YYYY-MM-DD", help="Default: today, by UTC.")
@click.option("--log", "path", type=INPUT_FILE, default=LOG, show_default=True)
@click.option(
    "--results",
    type=INPUT_FOLDER,
    help="Folder of the results, where a submission on the board has one. Default: results, beside the log.",
)
@click.option("--base", type=INPUT_FILE, help="The log as it was: every line of it is to stand in the log.")
def log_command(
    event: str | None,
    submission: str | None,
    reason: str | None,
    path: Path,
    results: Path | None,
    base: Path | None,
    **values: Any,
) -> None:
    """Log that SUBMISSION was added, rescored or removed; without arguments, check the log.

    A log is sound if it tells of every result: none is there, gone, or of another score without an event.
    """
    from medfocus_bench.errors import InputError
    from medfocus_bench.leaderboard.log import add_event, check_log, make_event, scores_on_board

    try:
        board = scores_on_board(results or path.parent / RESULTS.name)
        if event is None:
            count = check_log(path, board, base)
            click.echo(one_line(f"{path}: {counted(count, 'event')}, sound"))
            return
        if submission is None or reason is None:
            raise click.UsageError("give EVENT, SUBMISSION and --reason")
        if base is not None:
            raise click.UsageError("--base is for a check, without EVENT")
        made = add_event(check_writable(path), make_event(event, submission, reason, **values), board)
    except InputError as error:
        _refuse(error.problems, str(path), None)
    click.echo(one_line(f"{path}: {made.date} {made.submission} {made.event}"))


def _committed(results: Path) -> list[Result]:
    """The committed results; none where their folder is not there yet."""
    from medfocus_bench.leaderboard.result import read_results

    return read_results(results) if results.exists() else []


def _refuse(problems: Sequence[str], what: str, summary: Path | None) -> NoReturn:
    from medfocus_bench.leaderboard.review.review import refused_markdown

    print_problems(problems, what)
    _add_to(summary, refused_markdown(problems))
    sys.exit(2)


def _conclude_review(found: Review, what: str, beside_others: bool, summary: Path | None) -> None:
    """Show the row that a submission would get; status 2 with its problems where it is refused."""
    if found.result is None:
        _refuse(found.problems, what, summary)
    print_tables([f"{found.result.name}: sound", *found.summary], found.tables)
    if not beside_others:
        warn(
            "No results of others are here, so that the row stands alone; run this in a clone of the "
            "repository, or give the folder of its results with --results"
        )
    _add_to(summary, found.markdown())


def _add_to(summary: Path | None, text: str) -> None:
    """Append: the steps of a job share one summary."""
    if summary is not None:
        with summary.open("a", encoding="utf-8") as file:
            file.write(text)


def _outcome_line(outcome: Outcome) -> str:
    score = "" if outcome.after is None else f", evidence AP {_score(outcome.after)}"
    if outcome.status in ("written", "differs") and outcome.before is not None and outcome.after is not None:
        score = f", evidence AP {_score(outcome.before)} -> {_score(outcome.after)}"
    return one_line(f"{outcome.name}: {outcome.status}{score}")


def _score(value: float) -> str:
    return f"{value:z.4f}"


def _conclude(outcomes: Sequence[Outcome], check: bool) -> None:
    """Say what is wrong and what is left to do; status 2 for unsound input, 1 for other faults."""
    from medfocus_bench.leaderboard.result import NULL_RESULT

    for outcome in outcomes:
        for note in outcome.notes:
            warn(note)
    faults = [outcome for outcome in outcomes if outcome.is_fault]
    if faults:
        warn(f"medfocus-bench: {len(faults)} of {len(outcomes)} results are not as they should be")
        sys.exit(2 if any(outcome.status == "unsound" for outcome in faults) else 1)
    pending = sum(outcome.status == "pending" for outcome in outcomes)
    rest = f", {pending} pending" if pending else ""
    click.echo(f"{len(outcomes) - pending} results: {'all as recomputed' if check else 'up to date'}{rest}")
    for outcome in outcomes:
        if outcome.status != "written" or outcome.name.startswith(NULL_RESULT):
            continue
        if outcome.before is None:
            click.echo(f"to log it: medfocus-bench leaderboard log added {outcome.name} --reason ...")
        elif outcome.before != outcome.after:
            click.echo(f"to log it: medfocus-bench leaderboard log rescored {outcome.name} --reason ...")
