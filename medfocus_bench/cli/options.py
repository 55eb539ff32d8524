"""Options and output that several commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import click

from medfocus_bench.cli.annotations import disarmed
from medfocus_bench.cli.places import FOLDER_OR_NAME, INPUT_FILE, INPUT_FOLDER
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.protocol import MIN_RESAMPLES, PROTOCOLS, RESAMPLES

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

BENCHMARK_HELP = "Folder with <split>.parquet files, `phantom`, or medfocus/cxr-causal[@REVISION] on the Hub."
SEEDS: Final = click.IntRange(0, 2**32 - 1)
DTYPES: Final = ("float32", "bfloat16", "float16")
MODES: Final = ("direct", "reasoning")


def benchmark_option(**more: Any) -> Decorator:
    """--benchmark; `more` says whether it is required, or what it is without."""
    return click.option(
        "--benchmark", "-b", metavar="BENCHMARK", type=FOLDER_OR_NAME, **{"help": BENCHMARK_HELP, **more}
    )


def seed_option(about: str | None = None) -> Decorator:
    """--seed."""
    return click.option("--seed", default=0, show_default=True, type=SEEDS, help=about)


def workers_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--workers",
        type=click.IntRange(1, 64),
        default=min(os.cpu_count() or 1, 8),
        show_default="cores, up to 8",
        help="Processes, of one thread each.",
    )(command)


def limit_option(what: str = "samples of every LVLM and split") -> Decorator:
    """--limit."""
    return click.option("--limit", type=click.IntRange(1), help=f"Only the first {what}.")


def root_option(about: str = "Folder of your copies of the sources.", *, required: bool = False) -> Decorator:
    """--root."""
    return click.option("--root", required=required, type=INPUT_FOLDER, help=about)


def segmenter_option(about: str) -> Decorator:
    """--segmenter."""
    return click.option(
        "--segmenter", type=FOLDER_OR_NAME, help=f"MedSAM (folder, Hub id or phantom_sam){about}"
    )


def split_commas(context: click.Context, option: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """The parts of what is given with commas or several times; a value of commas alone would mean all."""
    for value in values:
        if not value.strip(", "):
            raise InputError(f"{option.opts[0]} {value}: names nothing; give a name, or leave it out")
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


any_version_option: Decorator = click.option(
    "--any-version", is_flag=True, help="Accept a submission to another version of the benchmark."
)
format_option: Decorator = click.option(
    "--format", "form", default="table", show_default=True, type=click.Choice(("table", "markdown", "json"))
)
resamples_option: Decorator = click.option(
    "--resamples", default=RESAMPLES, show_default=True, type=click.IntRange(MIN_RESAMPLES, 1_000_000)
)
lvlms_option: Decorator = click.option(
    "--lvlm",
    "lvlms",
    multiple=True,
    metavar="KEY[,KEY]",
    callback=split_commas,
    help="Registered LVLM, checkpoint folder or Hub id. Default: all of the benchmark.",
)
tuned_option: Decorator = click.option(
    "--tuned", multiple=True, type=INPUT_FILE, help="File of `tune` whose settings hold; may be repeated."
)


def scoring_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--protocol, --seed, --resamples."""
    protocol = click.option("--protocol", default="standard", show_default=True, type=click.Choice(PROTOCOLS))
    return protocol(seed_option()(resamples_option(command)))


def _known_dtype(context: click.Context, option: click.Parameter, name: str) -> str:
    if name not in DTYPES:
        raise InputError(f"--dtype {name}: there is no such type of weights; give one of {', '.join(DTYPES)}")
    return name


def device_options(device: str = "cpu, cuda, cuda:1, ...", dtype: str = "Of the weights.") -> Decorator:
    """--device, --dtype."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        command = click.option(
            "--dtype", default="float32", show_default=True, callback=_known_dtype, help=dtype
        )(command)
        return click.option("--device", default="cpu", show_default=True, help=device)(command)

    return decorate


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--seed, --device, --dtype, --framing."""
    framing = click.option(
        "--framing",
        default="square",
        show_default=True,
        type=click.Choice(("square", "native")),
        help="Give the processor the padded square of the model frame, or the picture as it is.",
    )
    return seed_option()(device_options()(framing(command)))


def settings_of(assignments: Iterable[str], option: str) -> dict[str, str]:
    """FIELD=VALUE of a repeated option, by field. Raises InputError for what is none, or comes twice."""
    settings: dict[str, str] = {}
    for assignment in assignments:
        field, equals, value = assignment.partition("=")
        if not equals or not field.isidentifier():
            raise InputError(f"{option} {assignment}: give FIELD=VALUE")
        if field in settings:
            raise InputError(f"{option} {field}: is given twice")
        settings[field] = value
    return settings


def one_line(text: str) -> str:
    """`text` on one line, with nothing that a terminal or a job's runner obeys; for what quotes an input."""
    return disarmed("".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split())))


def output_width() -> int:
    """Columns of the terminal; as many as every table needs where output goes to a file or a pipe."""
    from rich.console import Console

    from medfocus_bench.tables import FULL_WIDTH

    return Console().width if sys.stdout.isatty() else FULL_WIDTH


def print_tables(summary: Sequence[str], tables: Iterable[Any]) -> None:
    """Tables for a terminal."""
    from rich.console import Console
    from rich.text import Text

    from medfocus_bench.tables import render_rich

    console = Console(width=output_width())
    with console.capture() as captured:
        for line in summary:
            console.print(Text(line))
        for table in tables:
            console.print()
            console.print(Text(table.title, style="bold"))
            console.print(render_rich(table))
            for note in table.notes:
                console.print(Text(note, style="italic"))
    click.echo(disarmed(captured.get()), nl=False)


def quiet_models() -> None:
    """Keeps the bars of transformers off the terminal: loading a tiny model takes a moment."""
    try:
        from transformers.utils import logging
    except ImportError:
        return
    logging.disable_progress_bar()
