"""`ablate` and `reference`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medfocus_bench.cli.attribution import check_models, conditions_of
from medfocus_bench.cli.options import (
    FOLDER_OR_NAME,
    INPUT_FOLDER,
    OUTPUT_FILE,
    OUTPUT_FOLDER,
    Command,
    Group,
    benchmark_option,
    check_new,
    check_root,
    decoding_option,
    engine_options,
    limit_option,
    lvlms_option,
    model_options,
    root_option,
    seed_option,
    segmenter_option,
    split_commas,
)
from medfocus_bench.cli.output import one_line, print_tables, say, warn
from medfocus_bench.cli.progress import show_progress

if TYPE_CHECKING:
    from medfocus_bench.engine.protocol import Engine
    from medfocus_bench.medfocus.reference import ReferencePool


@click.command("ablate", cls=Command)
@lvlms_option()
@benchmark_option(required=True)
@click.option("--split", "splits", multiple=True, default=("dev",), show_default=True, callback=split_commas)
@limit_option()
@segmenter_option(": adds the refinement of the boxes.")
@click.option(
    "--references", type=FOLDER_OR_NAME, help="File of `reference build`. Default: the shipped phantoms."
)
@click.option("--editor", help="Editor (`inpainting`, `radedit,size=512`): adds redrawing as a fill.")
@click.option(
    "--out",
    required=True,
    type=OUTPUT_FOLDER,
    help="Folder for the tables and the records, from which a second run resumes.",
)
@decoding_option()
@model_options
@engine_options()
def ablate_command(
    lvlms: tuple[str, ...],
    benchmark: str,
    splits: tuple[str, ...],
    limit: int | None,
    segmenter: str | None,
    references: str | None,
    editor: str | None,
    out: Path,
    engine: Engine,
    **options: Any,
) -> None:
    """Run the paper's ablations and sensitivities of MedFocus: one setting changed at a time.

    Region, fill, localisation, size of the pool, lambda and eps, each beside the null control of both lungs.
    Writes ablation.json and ablation.md to --out.
    """
    from medfocus_bench.data.resolve import load_benchmark
    from medfocus_bench.medfocus.anatomy import check_anatomy
    from medfocus_bench.medfocus.generative_fill import check_editor
    from medfocus_bench.paper.ablate import ablate, ablation_tables
    from medfocus_bench.tables import render_markdown

    check_models(lvlms, engine.device_here(options["device"]), options["quantise"])
    check_anatomy(references, segmenter)
    check_editor(editor)
    document, outcomes = ablate(
        load_benchmark(benchmark),
        out,
        splits=splits,
        lvlms=lvlms,
        limit=limit,
        segmenter=segmenter,
        references=references,
        editor=editor,
        run_config=conditions_of("response", options),
        engine=engine,
        progress=show_progress,
        say=say,
    )
    tables = ablation_tables(document)
    (out / "ablation.md").write_text(render_markdown(tables), encoding="utf-8")
    print_tables([], tables)
    reasons = [reason for outcome in outcomes for reason in outcome.reasons]
    if reasons:
        warn(f"{len(reasons)} explanations failed, the first with: {reasons[0]}")
    if all(outcome.existing + outcome.new == 0 for outcome in outcomes):
        sys.exit(2)
    click.echo(str(out / "ablation.md"))


@click.group("reference", cls=Group)
def reference_command() -> None:
    """Pools of reference radiographs with outlined anatomy."""


@reference_command.command("build")
@click.argument("folder", required=False, type=INPUT_FOLDER)
@click.option("--source", help="Take normal pictures of a source with outlined anatomy instead: imagenome.")
@root_option("With --source: the folder of your copies of the sources.")
@click.option(
    "--size", default=16, show_default=True, type=click.IntRange(1, 1000), help="With --source: references."
)
@seed_option("Of the choice.")
@segmenter_option(", which refines the boxes; with --source.")
@click.option("--device", default="cpu", show_default=True, help="Of the segmenter.")
@click.option(
    "--skips",
    type=OUTPUT_FILE,
    help="With --source: write the pictures that were left out to this file, and why.",
)
@click.option("--out", "-o", required=True, type=OUTPUT_FILE, help="File to write.")
@click.option("--overwrite", is_flag=True, help="Replace the file.")
def build_command(
    folder: Path | None, source: str | None, root: Path | None, out: Path, overwrite: bool, **options: Any
) -> None:
    """Make a pool of FOLDER: images/NAME.png with masks/NAME/CONCEPT.png for each.

    Or, with --source and --root, of normal pictures of your own licensed copy. Give the file to methods as
    their setting `references`.
    """
    from medfocus_bench.errors import InputError
    from medfocus_bench.medfocus.reference import build_pool

    check_new(out, overwrite=overwrite)
    if (folder is None) == (source is None):
        raise InputError("give a folder with images and masks, or --source and --root")
    if options["segmenter"] is not None:
        from medfocus_bench.attribution.vision_models import check_vision_model
        from medfocus_bench.engine.devices import check_device

        check_vision_model("segmenter", options["segmenter"])
        check_device(options["device"])
    check_root(root)
    if folder is not None:
        pool = build_pool(folder)
    elif root is None:
        raise InputError("--source needs --root, the folder of your copies of the sources")
    else:
        pool = _source_pool(str(source), root, options)
    pool.save(out)
    click.echo(one_line(f"{out}: {len(pool)} references, {len(pool.concepts)} concepts"))
    for concept in pool.concepts:
        count = sum(concept in masks for masks in pool.masks)
        click.echo(one_line(f"  {concept}: {count}"))
    if source is not None:
        click.echo("It holds pictures of a licensed source: keep it to yourself.")


def _source_pool(source: str, root: Path, options: dict[str, Any]) -> ReferencePool:
    from medfocus_bench.medfocus.source_pool import pool_from_source

    refine = None
    if options["segmenter"] is not None:
        from medfocus_bench.attribution.vision_models import load_segmenter

        refine = load_segmenter(options["segmenter"], device=options["device"]).segment
    found = pool_from_source(source, root, size=options["size"], seed=options["seed"], refine=refine)
    skips = [one_line(str(skip)) for skip in found.skips]
    if options["skips"] is not None:
        options["skips"].write_text("".join(f"{skip}\n" for skip in skips), encoding="utf-8")
    click.echo(f"{found.normal} normal pictures, {found.complete} of them with all concepts")
    click.echo(f"{len(skips)} left out" + (f", the first: {skips[0]}" if skips else ""))
    return found.pool
