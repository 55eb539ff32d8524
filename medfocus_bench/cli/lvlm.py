"""`lvlm`: its group, and `lvlm check`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

import click

from medfocus_bench.cli.attribution import check_models
from medfocus_bench.cli.options import Command, Group, device_options, format_option
from medfocus_bench.cli.output import one_line
from medfocus_bench.cli.progress import show_progress

if TYPE_CHECKING:
    from medfocus_bench.lvlm.conformance.result import CheckResult


@click.group("lvlm", cls=Group)
def lvlm_command() -> None:
    """The LVLMs: whether a new one does what methods take for granted."""


@lvlm_command.command("check", cls=Command)
@click.argument("source")
@device_options(default="float32")
@click.option("--revision", help="A tag or commit on the Hub.")
@format_option
def check_command(source: str, form: str, **options: Any) -> None:
    """Check the LVLM at SOURCE, a folder, a Hub id or a key. Exit status 1 if a check fails.

    The pixel values are the picture, responses score what transformers' own generation has for them, tokens
    lie where the grid says, padding is never evidence, a batch changes nothing, and relevance is conserved.
    In float32 faults stand out best.
    """
    from medfocus_bench.attribution.conformance import ALL_CHECKS, check_lvlm
    from medfocus_bench.lvlm.registry import kept_lvlm

    check_models([source], options["device"])
    lvlm = kept_lvlm(source, **options)
    results = list(show_progress(check_lvlm(lvlm), f"checks of {lvlm.key}", len(ALL_CHECKS)))
    dtype = str(lvlm.model.dtype).removeprefix("torch.")
    _show({"lvlm": lvlm.key, "model_type": lvlm.family.model_type, "dtype": dtype}, results, form)
    if any(result.outcome == "failed" for result in results):
        sys.exit(1)


def _show(about: dict[str, str], results: Sequence[CheckResult], form: str) -> None:
    from dataclasses import asdict

    from medfocus_bench.lvlm.conformance.result import Outcome
    from medfocus_bench.tables import Row, Table, render_markdown

    if form == "json":
        click.echo(json.dumps({**about, "checks": [asdict(result) for result in results]}))
        return
    counts = Counter(result.outcome for result in results)
    found = ", ".join(f"{counts[kind]} {kind}" for kind in get_args(Outcome) if counts[kind])
    title = f"{about['lvlm']} ({about['model_type']}, {about['dtype']}): {found}"
    if form == "markdown":
        rows = tuple(Row((result.name, result.outcome, result.sentence)) for result in results)
        click.echo(render_markdown([Table(title, ("check", "outcome", "found"), rows)]), nl=False)
        return
    click.echo(one_line(title))
    for result in results:
        outcome = "FAILED" if result.outcome == "failed" else result.outcome
        click.echo(f"{outcome:<15} {result.name:<14} {one_line(result.sentence)}")
