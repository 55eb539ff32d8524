"""The group `data`, with the commands on the phantom track."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medfocus_bench.cli.hub import diff_command, export_command, push_command
from medfocus_bench.cli.options import (
    MODES,
    OUTPUT_FILE,
    OUTPUT_FOLDER,
    REPLACED_FOLDER,
    Group,
    check_writable,
    engine_options,
    root_option,
)
from medfocus_bench.cli.output import print_problems, print_tables
from medfocus_bench.cli.progress import show_progress
from medfocus_bench.cli.sources import SOURCE_COMMANDS, build_source, overwrite_option

if TYPE_CHECKING:
    from medfocus_bench.engine.protocol import Engine


@click.group("data", cls=Group)
def data_command() -> None:
    """Build, check, join, compare and publish benchmark datasets."""


for _command in (*SOURCE_COMMANDS, export_command, push_command, diff_command):
    data_command.add_command(_command)


@data_command.command("build")
@click.argument("name", metavar="phantom|SOURCE")
@click.option("--out", required=True, type=REPLACED_FOLDER, help="Dataset folder.")
@click.option(
    "--work",
    type=OUTPUT_FOLDER,
    help="Records of the causal filter; a stopped build goes on from them. Default: OUT with `.work`.",
)
@engine_options(2)
@root_option()
@click.option("--pointers", is_flag=True, help="Of a source: without boxes, as it may be shared.")
@overwrite_option
def build_command(
    name: str,
    out: Path,
    work: Path | None,
    engine: Engine,
    root: Path | None,
    pointers: bool,
    overwrite: bool,
) -> None:
    """Rebuild the phantom track with the shipped models, or build a source's config of records of `verify`.

    Of a source, --work holds the records of all LVLMs and modes; the config is local, with the boxes of your
    copy below --root, or --pointers.
    """
    from medfocus_bench.data.sources import installed_sources
    from medfocus_bench.errors import InputError
    from medfocus_bench.storage import records_beside

    records = check_writable(work or records_beside(out), folder=True)
    if records.resolve() == out.resolve():
        raise InputError(f"{out}: is given as --work and as --out; name two folders")
    names = ("phantom", *installed_sources())
    if name not in names:
        raise InputError(f"no dataset {name!r} to build; there are {', '.join(names)}")
    if name != "phantom":
        build_source(name, root, records, out, pointers=pointers, overwrite=overwrite)
        return
    for option, given in (("--root", root is not None), ("--pointers", pointers)):
        if given:
            raise InputError(f"{option} goes with a source of your own; leave it out for the phantom")
    from medfocus_bench.data.benchmark import read_benchmark
    from medfocus_bench.phantom import TRACK
    from medfocus_bench.phantom.build import build_track

    built = build_track(out, records, engine=engine, overwrite=overwrite, progress=show_progress)
    click.echo(f"{out}: {built.name} {built.version}, fingerprint {built.fingerprint}")
    if TRACK.is_dir():
        shipped = read_benchmark(TRACK).fingerprint
        same = "the same as" if shipped == built.fingerprint else f"NOT that of ({shipped})"
        click.echo(f"{same} the shipped track")


@data_command.command("check")
@click.argument("name", type=click.Choice(("phantom",)))
@click.option("--all", "everything", is_flag=True, help="All questions, not a sample of eleven.")
def check_command(name: str, everything: bool) -> None:
    """Ask the shipped models again and hold their answers against the shipped track."""
    from medfocus_bench.phantom import TRACK
    from medfocus_bench.phantom.build import ALL_QUESTIONS, check_answers

    indices = ALL_QUESTIONS if everything else ALL_QUESTIONS[::31]
    problems = check_answers(TRACK, indices, progress=show_progress)
    if problems:
        print_problems(problems, "", len(problems))
        sys.exit(1)
    click.echo(f"{len(indices)} questions: every answer and log-odds of every model is as stored")


@data_command.command("sheet")
@click.argument("name", type=click.Choice(("findings", "track")))
@click.option("--out", required=True, type=OUTPUT_FILE, help="PNG to write.")
def sheet_command(name: str, out: Path) -> None:
    """Draw a contact sheet: phantoms with each of the findings, or first rows of the shipped track."""
    from medfocus_bench.phantom import TRACK
    from medfocus_bench.phantom.sheets import finding_sheet, track_sheet

    sheet = finding_sheet() if name == "findings" else track_sheet(TRACK)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, "PNG", optimize=True)
    click.echo(str(out))


@data_command.command("planted")
@click.option("--questions", default=66, show_default=True, type=click.IntRange(2), help="How many.")
@click.option("--mode", default="direct", show_default=True, type=click.Choice(MODES))
def planted_command(questions: int, mode: str) -> None:
    """Show that the planted causes of the phantom track are causes: blank them, and as much elsewhere."""
    from medfocus_bench.lvlm.registry import kept_lvlm
    from medfocus_bench.phantom import EXACT, PHANTOM_LVLMS, TWINS
    from medfocus_bench.phantom.planted import planted_effect
    from medfocus_bench.tables import Row, Table

    rows = []
    for key in show_progress(PHANTOM_LVLMS, "Blanking", len(PHANTOM_LVLMS)):
        effect = planted_effect(
            kept_lvlm(key, **EXACT), range(questions), "reasoning" if mode == "reasoning" else "direct"
        )
        cause = "mark" if key in TWINS else "lesion"
        interval = f"{effect.low:+.2f} to {effect.high:+.2f}"
        rows.append(Row((key, cause, f"{effect.mean:+.2f}", interval)))
    notes = ("Drop of the log-odds of yes with the cause blanked, less that with as much blanked elsewhere.",)
    title = f"Planted causes, {mode} mode, {questions} questions"
    print_tables([], [Table(title, ("LVLM", "cause", "difference", "95 % interval"), tuple(rows), notes)])


@data_command.command("accuracy")
@click.option(
    "--each", default=40, show_default=True, type=click.IntRange(2), help="Patients with, and without."
)
def accuracy_command(each: int) -> None:
    """Balanced accuracy of the shipped models on patients that nothing was trained on, in both modes."""
    from medfocus_bench.data.questions import MODES
    from medfocus_bench.lvlm.registry import kept_lvlm
    from medfocus_bench.phantom import EXACT, PHANTOM_LVLMS
    from medfocus_bench.phantom.accuracy import balanced_accuracy
    from medfocus_bench.phantom.findings import FINDINGS
    from medfocus_bench.tables import Row, Table

    runs = [(key, mode) for key in PHANTOM_LVLMS for mode in MODES]
    tracked = show_progress(runs, "Asking", len(runs))
    found = [balanced_accuracy(kept_lvlm(key, **EXACT), mode, each=each) for key, mode in tracked]
    rows = [Row((name, *(f"{scores[name]:.3f}" for scores in found))) for name in FINDINGS]
    rows.insert(0, Row(("mean", *(f"{sum(scores.values()) / len(scores):.3f}" for scores in found))))
    header = ("finding", *(f"{key} {mode}" for key, mode in runs))
    print_tables([], [Table(f"Balanced accuracy, 2 x {each} patients a finding", header, tuple(rows))])
