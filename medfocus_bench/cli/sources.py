"""`data doctor`, `data import-medground` and `data attach`: the user's own copies of the sources."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medfocus_bench.cli.options import (
    INPUT_FOLDER,
    OUTPUT_FILE,
    REPLACED_FOLDER,
    Command,
    Decorator,
    check_root,
    root_option,
)
from medfocus_bench.cli.output import counted, one_line, print_first, print_problems, print_tables, warn
from medfocus_bench.cli.progress import show_progress

if TYPE_CHECKING:
    from medfocus_bench.data.attach import Attached
    from medfocus_bench.data.doctor import Examination
    from medfocus_bench.data.medground import PublishedRecord
    from medfocus_bench.data.sources.protocol import Skip

_SHOWN = 5
_PROBLEMS = 100
"""Problems of records that are printed: a file that is given twice has as many as it has records."""

_out_option: Decorator = click.option("--out", required=True, type=REPLACED_FOLDER, help="Folder to write.")
overwrite_option: Decorator = click.option(
    "--overwrite", is_flag=True, help="Replace the folder if it holds a benchmark."
)
losses_option: Decorator = click.option(
    "--losses",
    "losses_file",
    type=OUTPUT_FILE,
    help="Write every row that could not be joined to this file (JSON lines).",
)


@click.command("doctor", cls=Command)
@root_option(required=True)
@click.option(
    "--source", "sources", multiple=True, help="Only this one; may be repeated. Default: the published ones."
)
@click.option("--sheet", type=OUTPUT_FILE, help="Write a contact sheet (PNG).")
@click.option(
    "--samples", default=4, show_default=True, type=click.IntRange(1, 100), help="Decoded, a source."
)
@click.option("--decode-all", is_flag=True, help="Decode every picture, not its header alone.")
@click.option(
    "--skips", "skips_file", type=OUTPUT_FILE, help="Write every unusable question to this file (JSON lines)."
)
def doctor_command(
    root: Path,
    sources: tuple[str, ...],
    sheet: Path | None,
    samples: int,
    decode_all: bool,
    skips_file: Path | None,
) -> None:
    """Check which parts of the sources are below ROOT. Exit status 1 if any is missing."""
    from medfocus_bench.data.doctor import examine, sources_to_examine
    from medfocus_bench.data.sheet import question_sheet

    examined = [
        examine(source, root, samples=samples, decode_all=decode_all, progress=show_progress)
        for source in sources_to_examine(root, sources)
    ]
    print_tables([], [_doctor_table(examined)])
    for examination in examined:
        name = examination.source.name
        if examination.problem is not None:
            click.echo(one_line(f"{name}: {examination.problem}"))
        _list_skips(name, examination.skips, "--skips FILE")
        for note in examination.notes:
            click.echo(one_line(f"{name}: {note}"))
    if skips_file is not None:
        _write_skips(skips_file, [skip for examination in examined for skip in examination.skips])
    shown = [question for examination in examined for question in examination.samples]
    if sheet is not None and not shown:
        click.echo("No question can be shown, so no contact sheet is written.")
    elif sheet is not None:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        question_sheet(shown).save(sheet, "PNG", optimize=True)
        click.echo(str(sheet))
    if not all(examination.complete for examination in examined):
        sys.exit(1)


@click.command("import-medground", cls=Command)
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(dir_okay=False, exists=True, path_type=Path)
)
@root_option()
@_out_option
@overwrite_option
@losses_option
def import_command(
    files: tuple[Path, ...], root: Path | None, out: Path, overwrite: bool, losses_file: Path | None
) -> None:
    """Read the published records in FILES: pointers, or with --root a local benchmark."""
    from medfocus_bench.counterfactual.dataset import pointer_row
    from medfocus_bench.data import medground
    from medfocus_bench.data.attach import write_attached, write_pointers
    from medfocus_bench.data.rows import split_of
    from medfocus_bench.data.writing import check_vacant
    from medfocus_bench.errors import InputError

    check_vacant(out, overwrite=overwrite)
    check_root(root)
    try:
        records = medground.read_records(files)
    except InputError as error:
        print_problems(error.problems, "", _PROBLEMS)
        problems = counted(len(error.problems), "problem")
        raise InputError(f"{problems}, listed above; nothing was written") from None
    print_tables([], [_counts_table(records)])
    click.echo(f"{len(records):,} records about {medground.distinct_questions(records):,} distinct questions")
    disagreements = medground.disagreements(records)
    click.echo(f"{len(disagreements)} records whose answers disagree with their group")
    print_problems(disagreements, "", len(disagreements))
    rows = [pointer_row(record) for record in records]
    if root is None:
        _report_pointers(out, write_pointers(rows, out, overwrite=overwrite))
        return
    placed = [(record.place, split_of(row), row) for record, row in zip(records, rows, strict=True)]
    about = {"name": medground.NAME, "version": medground.VERSION}
    with _losses_kept(losses_file):
        attached = write_attached(placed, root, out, overwrite=overwrite, progress=show_progress, **about)
    report_attached(attached, losses_file)


@click.command("attach", cls=Command)
@click.argument("folder", type=INPUT_FOLDER)
@root_option(required=True)
@_out_option
@overwrite_option
@losses_option
def attach_command(folder: Path, root: Path, out: Path, overwrite: bool, losses_file: Path | None) -> None:
    """Join the pointers in FOLDER with your copies: a local benchmark that refers to the pictures."""
    from medfocus_bench.data.attach import attach_folder
    from medfocus_bench.data.writing import check_vacant

    check_vacant(out, overwrite=overwrite)
    check_root(root)
    with _losses_kept(losses_file):
        attached = attach_folder(folder, root, out, overwrite=overwrite, progress=show_progress)
    report_attached(attached, losses_file)


SOURCE_COMMANDS = (doctor_command, import_command, attach_command)
"""Commands of the group `data`."""


def build_source(
    name: str, root: Path | None, work: Path, out: Path, *, pointers: bool, overwrite: bool
) -> None:
    """`data build` for a source: all records of the causal filter as one config."""
    from medfocus_bench.counterfactual.dataset import Pointers, build_dataset
    from medfocus_bench.data.sources import open_source
    from medfocus_bench.data.writing import check_vacant

    check_vacant(out, overwrite=overwrite)
    check_root(root)
    built = build_dataset(open_source(name), work, root, out, pointers=pointers, overwrite=overwrite)
    if isinstance(built, Pointers):
        _report_pointers(out, built.rows)
    else:
        report_attached(built, None)


def report_attached(attached: Attached, losses_file: Path | None) -> None:
    """Print which rows were joined and which were lost, and that the result stays on this machine."""
    benchmark = attached.benchmark
    click.echo(
        f"{benchmark.folder}: {benchmark.name} {benchmark.version}, {len(benchmark.samples):,} samples of "
        f"{benchmark.covers}, fingerprint {benchmark.fingerprint}"
    )
    click.echo("It holds licensed boxes and refers to licensed pictures: keep it where they are.")
    _list_skips("not joined", attached.unmatched, "--losses FILE")
    for notice in attached.notices:
        warn(f"Note: {notice}")
    if losses_file is not None:
        _write_skips(losses_file, attached.unmatched)


def _report_pointers(out: Path, rows: dict[str, int]) -> None:
    for name, count in rows.items():
        click.echo(f"{out / name}: {count:,} pointers, without boxes and pixels")


@contextmanager
def _losses_kept(losses_file: Path | None) -> Iterator[None]:
    """Write the losses also where nothing can be joined: a user needs them most then."""
    from medfocus_bench.data.attach import NothingJoinedError

    try:
        yield
    except NothingJoinedError as error:
        if losses_file is not None:
            _write_skips(losses_file, error.unmatched)
        raise


def _list_skips(title: str, skips: Sequence[Skip], option: str) -> None:
    if skips:
        click.echo(f"{title}: {len(skips):,} cannot be used")
        print_first([str(skip) for skip in skips], _SHOWN, f"{option} writes them all")


def _write_skips(path: Path, skips: Iterable[Skip]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = ({"place": skip.place, "index": skip.index, "reason": skip.reason} for skip in skips)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    click.echo(str(path))


def _doctor_table(examined: Sequence[Examination]) -> Any:
    from medfocus_bench.tables import Row, Table

    rows = []
    for examination in examined:
        source = examination.source
        for count in examination.counts:
            figures = (f"{count.expected:,}", f"{count.found:,}", f"{count.usable:,}")
            is_complete = count.expected == count.found == count.usable
            rows.append(Row((source.name, count.split, *figures, "yes" if is_complete else "NO")))
        if examination.problem is not None and not examination.counts:
            expected = sum(source.expected.values())
            rows.append(Row((source.name, "", f"{expected:,}", "0", "0", "NO")))
    note = "published: in the paper, or in the list itself. usable: the boxes and the picture can be read."
    header = ("source", "split", "published", "in the table", "usable", "complete")
    return Table("Questions", header, tuple(rows), (note,))


def _counts_table(records: Sequence[PublishedRecord]) -> Any:
    from medfocus_bench.data.base_rate import COIN_AT_MOST
    from medfocus_bench.data.medground import MODELS, kept
    from medfocus_bench.tables import Row, Table

    models = list(MODELS.values())
    rows = []
    cells = kept(records)
    for (mode, source), of_models in sorted(cells.items()):
        shown = (of_models.get(model) for model in models)
        texts = ("0" if one is None else f"{one.count:,} ({one.share:.1%})" for one in shown)
        total = sum(one.count for one in of_models.values())
        rows.append(Row((mode, source, *texts, f"{total:,}")))
    every = [one for of_models in cells.values() for one in of_models.values()]
    below = sum(not one.is_above_coin for one in every)
    note = (
        "In brackets: of the questions of the source. Four independent answers of a coin that says yes with "
        f"p pass the filter with p^3 (1 - p): {COIN_AT_MOST:.1%} at most, at p = 3/4. {below} of the "
        f"{len(every)} shares are not above that: their size alone does not show that the region drives the "
        "answer."
    )
    return Table("Published samples", ("mode", "source", *models, "all"), tuple(rows), (note,))
