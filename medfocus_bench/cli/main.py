"""The `medfocus-bench` command."""

from __future__ import annotations

import sys

import click

from medfocus_bench import __version__
from medfocus_bench.cli.attribution import attribute_command, pack_command, tune_command
from medfocus_bench.cli.benchmark import info_command
from medfocus_bench.cli.data import data_command
from medfocus_bench.cli.evaluation import compare_command, evaluate_command
from medfocus_bench.cli.medfocus import ablate_command, reference_command
from medfocus_bench.cli.options import one_line
from medfocus_bench.cli.submission import null_command, schema_command, validate_command
from medfocus_bench.cli.verify import verify_command
from medfocus_bench.errors import InputError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="medfocus-bench")
def cli() -> None:
    """Score attribution maps and boxes against causally verified evidence regions of chest X-rays."""


for _command in (
    evaluate_command,
    compare_command,
    validate_command,
    info_command,
    null_command,
    schema_command,
    verify_command,
    data_command,
    attribute_command,
    tune_command,
    pack_command,
    ablate_command,
    reference_command,
):
    cli.add_command(_command)


def main() -> None:
    """Runs the command line: status 2 and one line for bad input, 1 for a failure of the program."""
    try:
        cli(standalone_mode=True)
    except InputError as error:
        click.echo(one_line(f"medfocus-bench: {error}"), err=True)
        sys.exit(2)
    except OSError as error:
        click.echo(one_line(f"medfocus-bench: {error}"), err=True)
        sys.exit(1)
    except MemoryError:
        click.echo("medfocus-bench: out of memory", err=True)
        sys.exit(1)
