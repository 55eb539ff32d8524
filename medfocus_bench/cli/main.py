"""The `medfocus-bench` command."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from medfocus_bench._version import __version__
from medfocus_bench.cli.attribution import attribute_command, pack_command, tune_command
from medfocus_bench.cli.benchmark import info_command
from medfocus_bench.cli.data import data_command
from medfocus_bench.cli.evaluation import compare_command, evaluate_command
from medfocus_bench.cli.hub import diff_command, export_command, push_command
from medfocus_bench.cli.leaderboard import leaderboard_command
from medfocus_bench.cli.medfocus import ablate_command, reference_command
from medfocus_bench.cli.options import Group
from medfocus_bench.cli.output import one_line
from medfocus_bench.cli.reproduce import reproduce_command
from medfocus_bench.cli.sources import SOURCE_COMMANDS
from medfocus_bench.cli.submission import null_command, schema_command, validate_command
from medfocus_bench.cli.submit import submit_command
from medfocus_bench.cli.verify import verify_command
from medfocus_bench.errors import InputError, Notice, missing_extra


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
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
    reproduce_command,
    leaderboard_command,
    submit_command,
):
    cli.add_command(_command)
for _command in (*SOURCE_COMMANDS, export_command, push_command, diff_command):
    data_command.add_command(_command)


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Prints a warning of ours as one line, without the place in the code; others as Python shows them."""
    as_before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *more: Any, **named: Any) -> None:
        if issubclass(category, Notice):
            click.echo(one_line(f"medfocus-bench: {message}"), err=True)
        else:
            as_before(message, category, *more, **named)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = as_before


@contextmanager
def _flushed() -> Iterator[None]:
    """Writes out what is printed also where the command exits: a reader that has gone is noticed here."""
    try:
        yield
    finally:
        sys.stdout.flush()


def _drop_output() -> None:
    """Nobody reads on: what is still to be written goes nowhere, without a word of the interpreter."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(nowhere, stream.fileno())


_UNUSABLE = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
_UNUSABLE_CODES = (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)
"""What is wrong with a path that was given, rather than with the disk or the program."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _sentence(error: OSError) -> str:
    """What the system says of a file, with the file first and the way out."""
    if error.filename is None:
        return str(error)
    if error.errno in _FULL:
        return f"{error.filename}: {error.strerror}; make room, and run it again"
    return f"{error.filename}: {error.strerror}; name a place that can be read and written"


def main() -> None:
    """Runs the command line: status 2 and one line for bad input, 1 for a failure of the program."""
    try:
        with _warnings_as_lines(), _flushed():
            cli(standalone_mode=True)
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)
    except ModuleNotFoundError as error:
        sentence = missing_extra(error)
        if sentence is None:
            raise
        click.echo(one_line(f"medfocus-bench: {sentence}"), err=True)
        sys.exit(2)
    except InputError as error:
        click.echo(one_line(f"medfocus-bench: {error}"), err=True)
        sys.exit(2)
    except OSError as error:
        click.echo(one_line(f"medfocus-bench: {_sentence(error)}"), err=True)
        sys.exit(2 if isinstance(error, _UNUSABLE) or error.errno in _UNUSABLE_CODES else 1)
    except MemoryError:
        click.echo("medfocus-bench: out of memory", err=True)
        sys.exit(1)
