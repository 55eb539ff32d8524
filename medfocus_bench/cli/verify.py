"""`verify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from medfocus_bench.cli.attribution import check_models
from medfocus_bench.cli.options import (
    DEVICES,
    MODES,
    OUTPUT_FOLDER,
    TYPES,
    Command,
    batch_option,
    check_root,
    decoding_option,
    device_options,
    engine_options,
    limit_option,
    root_option,
    settings_of,
)
from medfocus_bench.cli.output import print_first, print_tables, say, warn
from medfocus_bench.cli.progress import show_progress
from medfocus_bench.lvlm.protocol import AUTO_ANSWERS

if TYPE_CHECKING:
    from medfocus_bench.counterfactual.records import Failure, Verification
    from medfocus_bench.data.questions import Mode
    from medfocus_bench.tables import Row

_PHANTOM = "phantom"
_SHOWN = 5
_OF_SOURCES = ("editor", "assignments", "root", "split", "shams", "device", "dtype", "decoding")
"""Options that only a source has: the phantom is verified in one way."""


@click.command("verify", cls=Command)
@click.option("--source", default=_PHANTOM, show_default=True, help="phantom, or one of your own copies.")
@click.option("--lvlm", required=True, metavar="KEY", help="A registered LVLM, or a checkpoint folder.")
@click.option("--mode", default="direct", show_default=True, type=click.Choice(MODES))
@click.option(
    "--evidence",
    default="lesion",
    show_default=True,
    type=click.Choice(("lesion", "spurious")),
    help="Whether the region holds the lesion or the mark (phantom only).",
)
@click.option("--out", required=True, type=OUTPUT_FOLDER, help="Records.")
@limit_option("questions")
@root_option()
@click.option(
    "--editor", help="Who edits the pictures of a source: inpainting, radedit, or an installed one."
)
@click.option("--set", "assignments", multiple=True, metavar="FIELD=VALUE", help="A setting of the editor.")
@click.option(
    "--split",
    default="test",
    show_default=True,
    type=click.Choice(("test", "dev")),
    help="Of a source of your own.",
)
@click.option(
    "--shams", default=1, show_default=True, type=click.IntRange(0, 16), help="Sham edits each, of a source."
)
@decoding_option()
@batch_option(AUTO_ANSWERS)
@device_options(f"{DEVICES} (a source).", f"Of the LVLM's weights (a source): {TYPES}.")
@engine_options()
def verify_command(source: str, lvlm: str, mode: Mode, limit: int | None, out: Path, **options: Any) -> None:
    """Run the causal filter of an LVLM over a source; resumes where it was stopped."""
    if source == _PHANTOM:
        title, records, file = _verify_phantom(lvlm, mode, limit, out, options)
        failures: list[Failure] = []
    else:
        title, records, file, failures = _verify_source(source, lvlm, mode, limit, out, options)
    print_tables([], [_groups_table(f"{lvlm}, {mode} mode, {title}", records, file)])
    if failures:
        from medfocus_bench.counterfactual.records import failures_path

        path = failures_path(file)
        click.echo(f"{len(failures):,} questions could not be asked; all are in {path}")
        lines = [f"{failure.source} {failure.index}: {failure.reason}" for failure in failures]
        print_first(lines, _SHOWN, f"see {path}")


def _verify_phantom(
    lvlm: str, mode: Mode, limit: int | None, out: Path, options: dict[str, Any]
) -> tuple[str, list[Verification], Path]:
    from medfocus_bench.errors import InputError
    from medfocus_bench.phantom.build import ALL_QUESTIONS, Run, verify_phantom

    context = click.get_current_context()
    for parameter in verify_command.params:
        name = parameter.name or ""
        if name in _OF_SOURCES and context.get_parameter_source(name) != ParameterSource.DEFAULT:
            raise InputError(
                f"{parameter.opts[0]} goes with a source of your own; leave it out for the phantom"
            )
    check_models([lvlm], options["engine"].device_here(options["device"]))
    evidence = options["evidence"]
    run = Run(lvlm, mode, evidence)
    indices = ALL_QUESTIONS[:limit]
    made = verify_phantom(run, out, indices, batch=options["batch"], engine=options["engine"])
    records = list(show_progress(made, f"{lvlm} {mode} {evidence}", len(indices)))
    return f"{evidence} evidence: {len(records)} questions of phantom", records, run.file(out)


def _verify_source(
    name: str, lvlm_name: str, mode: Mode, limit: int | None, out: Path, options: dict[str, Any]
) -> tuple[str, list[Verification], Path, list[Failure]]:
    from medfocus_bench.counterfactual.causal_filter import verify
    from medfocus_bench.counterfactual.dataset import records_file, source_questions
    from medfocus_bench.counterfactual.registry import load_editor
    from medfocus_bench.data.sources import open_source
    from medfocus_bench.data.sources.reading import check_copy
    from medfocus_bench.errors import InputError
    from medfocus_bench.lvlm.registry import LVLMSource, check_lvlms
    from medfocus_bench.runs.config import RunConfig

    source = open_source(name)
    root, split = options["root"], options["split"]
    for needed in ("root", "editor"):
        if options[needed] is None:
            raise InputError(f"--source {name} needs --{needed}")
    if options["evidence"] != "lesion":
        raise InputError("--evidence spurious is for the phantom; a source has expert boxes of lesions only")
    if split not in source.expected:
        raise InputError(f"{name} has no dev split")
    check_lvlms([lvlm_name])
    editor = load_editor(options["editor"], **settings_of(options["assignments"], "--set"))
    check_root(root)
    check_models([], options["engine"].device_here(options["device"]))
    found = source.annotations(root, split)
    check_copy(found, root)
    for skip in found.skips[:_SHOWN]:
        warn(f"Skipped: {skip}")
    given = {name: options[name] for name in ("device", "dtype", "decoding")}
    config = RunConfig(**given)
    lvlm = LVLMSource.of(lvlm_name, **given | {"dtype": config.dtype})
    say(config.placed(lvlm.key))
    file = records_file(out, name, lvlm.key, mode, split)
    asked = found.questions[:limit]
    failures: list[Failure] = []
    made = verify(
        source_questions(asked, root),
        lvlm,
        mode,
        editor,
        file,
        sham_seeds=range(options["shams"]),
        batch=options["batch"],
        engine=options["engine"],
        on_failure=failures.append,
    )
    records = list(show_progress(made, f"{lvlm.key} {mode} {name}", len(asked)))
    return f"{len(records)} of {found.found} questions of {name} {split}", records, file, failures


def _groups_table(title: str, records: Sequence[Verification], file: Path) -> Any:
    from medfocus_bench.counterfactual.records import group_shares
    from medfocus_bench.tables import Row, Table

    shares = group_shares(records).items() if records else ()
    rows = [
        Row((name, str(share.count), f"{share.value:.1%}", "{:.1%} to {:.1%}".format(*share.interval)))
        for name, share in shares
    ]
    if records:
        rows.append(_coin_row(records))
    notes = (
        "incorrect, ungrounded, grounded: the paper's rule. strict: grounded, no sham flips, log-odds "
        "clear of zero. sham flips: among right answers. coin: independent answers that are yes with p, as "
        "many as these four are, pass with p^3 (1 - p); hold grounded against it.",
        f"Records: {file}",
    )
    return Table(title, ("group", "questions", "share", "95 % interval"), tuple(rows), notes)


def _coin_row(records: Sequence[Verification]) -> Row:
    from medfocus_bench.data.base_rate import COIN_AT_MOST, coin_share, yes_share
    from medfocus_bench.tables import Row

    yes = yes_share(record.responses for record in records)
    return Row(
        (f"coin, p = {yes:.2f}", "", f"{coin_share(yes):.1%}", f"at most {COIN_AT_MOST:.1%}"), quiet=True
    )
