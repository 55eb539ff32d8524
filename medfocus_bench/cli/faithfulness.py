"""`faithfulness`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medfocus_bench.cli.options import (
    FOLDER_OR_NAME,
    OUTPUT_FOLDER,
    Command,
    benchmark_option,
    engine_options,
    lvlms_option,
    model_options,
    resamples_option,
)
from medfocus_bench.cli.output import print_tables, say
from medfocus_bench.cli.progress import show_progress

if TYPE_CHECKING:
    from medfocus_bench.engine.protocol import Engine
    from medfocus_bench.evaluation.faithfulness import Faithfulness, FaithfulnessScores


@click.command("faithfulness", cls=Command)
@click.argument("submissions", nargs=-1, required=True, type=FOLDER_OR_NAME)
@benchmark_option(default="phantom", show_default=True)
@click.option(
    "--samples", type=click.IntRange(1), help="Only so many, of every LVLM and mode in turn. Default: all."
)
@lvlms_option("Only the samples of this LVLM; may be repeated.")
@click.option(
    "--out",
    default="faithfulness",
    show_default=True,
    type=OUTPUT_FOLDER,
    help="Folder of the measurements, which a second call goes on from; all submissions share it.",
)
@click.option("--shard", metavar="N/COUNT|slurm", help="Only a part of the samples, into files of its own.")
@resamples_option
@model_options
@engine_options()
def faithfulness_command(
    submissions: tuple[str, ...],
    benchmark: str,
    samples: int | None,
    lvlms: tuple[str, ...],
    out: Path,
    shard: str | None,
    resamples: int,
    seed: int,
    engine: Engine,
    **options: Any,
) -> None:
    """Measure whether the pixels that SUBMISSIONS put first are those that the answers hang on.

    The LVLM is shown each picture with its most salient pixels healed, those of the picture without the
    finding in their place, and the other way round. 0 is as good as random maps, 1 as the exact mask of the
    cause. A submission is a folder; null:NAME stands for a null control. The results are written to
    OUT/NAME/faithfulness.json.
    """
    from medfocus_bench.data.resolve import load_benchmark
    from medfocus_bench.evaluation.protocol import Settings
    from medfocus_bench.runs.config import RunConfig
    from medfocus_bench.runs.faithfulness import faithfulness
    from medfocus_bench.runs.shards import Shard

    opened = load_benchmark(benchmark)
    part = None if shard is None else Shard.parse(shard)
    for submission in submissions:
        found = faithfulness(
            submission,
            opened,
            out,
            samples=samples,
            lvlms=lvlms,
            config=RunConfig(**options),
            settings=Settings(seed=seed, resamples=resamples),
            shard=part,
            engine=engine,
            progress=show_progress,
            say=say,
        )
        if found is None:
            click.echo(f"{submission}: shard {shard} is measured; others are not yet")
        else:
            print_tables([], [faithfulness_table(submission, found)])


def faithfulness_table(title: str, found: Faithfulness) -> Any:
    """The section of a report as a table, the mean over the LVLMs first."""
    from medfocus_bench.tables import Row, Table

    parts: list[tuple[str, FaithfulnessScores]] = [("all", found), *((one.lvlm, one) for one in found.lvlms)]
    rows = [
        Row(
            (
                name,
                str(part.samples),
                *(
                    f"{score.mean:z.3f} ({score.low:z.3f} to {score.high:z.3f})"
                    for score in (part.faithfulness, part.healing, part.insertion)
                ),
            )
        )
        for name, part in parts
    ]
    notes = [
        "0: as random maps of 16 x 16 cells; 1: as the exact mask of the cause; "
        f"{found.forward_passes:.3g} forward passes a sample."
    ]
    if found.unmoved:
        notes.append(f"{found.unmoved} samples are left out: the cause hardly moves their response.")
    header = ("LVLM", "samples", "faithfulness", "healing", "insertion")
    return Table(f"Faithfulness of {title}", header, tuple(rows), tuple(notes))
