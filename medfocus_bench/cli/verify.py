"""`verify`."""

from __future__ import annotations

from pathlib import Path

import click

from medfocus_bench.cli.options import track


@click.command("verify")
@click.option("--source", default="phantom", show_default=True, type=click.Choice(("phantom",)))
@click.option("--lvlm", required=True, metavar="KEY", help="A registered LVLM, or a checkpoint folder.")
@click.option("--mode", default="direct", show_default=True, type=click.Choice(("direct", "reasoning")))
@click.option(
    "--evidence",
    default="lesion",
    show_default=True,
    type=click.Choice(("lesion", "spurious")),
    help="Whether the region holds the lesion or the mark.",
)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Records.")
@click.option("--limit", type=click.IntRange(1), help="Only the first questions.")
def verify_command(source: str, lvlm: str, mode: str, evidence: str, out: Path, limit: int | None) -> None:
    """Run the causal filter of an LVLM over a source; resumes where it was stopped."""
    from medfocus_bench.cli.options import print_tables, quiet_models
    from medfocus_bench.counterfactual.causal_filter import group_shares
    from medfocus_bench.evaluation.tables import Row, Table
    from medfocus_bench.phantom.build import ALL_QUESTIONS, Run, verify_phantom

    quiet_models()
    run = Run(lvlm, "reasoning" if mode == "reasoning" else "direct", evidence)
    indices = ALL_QUESTIONS[:limit]
    records = list(track(verify_phantom(run, out, indices), f"{lvlm} {mode} {evidence}", len(indices)))
    rows = [
        Row((name, str(share.count), f"{share.value:.1%}", "{:.1%} to {:.1%}".format(*share.interval)))
        for name, share in group_shares(records).items()
    ]
    title = f"{lvlm}, {mode} mode, {evidence} evidence: {len(records)} questions of {source}"
    notes = (
        "incorrect, ungrounded, grounded: the paper's rule. strict: grounded, no sham flips, log-odds "
        "clear of zero. sham flips: among right answers.",
        f"Records: {run.file(out)}",
    )
    print_tables([], [Table(title, ("group", "questions", "share", "95 % interval"), tuple(rows), notes)])
