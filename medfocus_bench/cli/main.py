"""The `medfocus-bench` command."""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import click

from medfocus_bench._version import __version__
from medfocus_bench.cli.attribution import attribute_command, pack_command, tune_command
from medfocus_bench.cli.bench import bench_command
from medfocus_bench.cli.data import data_command
from medfocus_bench.cli.evaluation import compare_command, evaluate_command
from medfocus_bench.cli.faithfulness import faithfulness_command
from medfocus_bench.cli.leaderboard import leaderboard_command
from medfocus_bench.cli.lvlm import lvlm_command
from medfocus_bench.cli.medfocus import ablate_command, reference_command
from medfocus_bench.cli.options import Group
from medfocus_bench.cli.output import warn
from medfocus_bench.cli.plan import plan_command
from medfocus_bench.cli.reproduce import reproduce_command
from medfocus_bench.cli.status import status_command
from medfocus_bench.cli.submission import info_command, null_command, schema_command, validate_command
from medfocus_bench.cli.submit import submit_command
from medfocus_bench.cli.verify import verify_command
from medfocus_bench.errors import InputError, Notice, missing_extra


class _InterruptedError(InputError):
    """Ctrl-C."""


class _Commands(Group):
    """The commands; Ctrl-C ends each of them with a sentence."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            raise _InterruptedError(
                "interrupted; what was written stays, and a run goes on from there with the same command"
            ) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="medfocus-bench")
def cli() -> None:
    """Score attribution maps and boxes against causally verified evidence regions of chest X-rays."""


for _command in (
    evaluate_command,
    compare_command,
    faithfulness_command,
    validate_command,
    info_command,
    null_command,
    schema_command,
    verify_command,
    data_command,
    attribute_command,
    status_command,
    tune_command,
    pack_command,
    plan_command,
    ablate_command,
    reference_command,
    reproduce_command,
    lvlm_command,
    leaderboard_command,
    submit_command,
    bench_command,
):
    cli.add_command(_command)


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Print a warning of ours as one line, without the place in the code; others as Python shows them."""
    as_before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *more: Any, **named: Any) -> None:
        if issubclass(category, Notice):
            warn(f"medfocus-bench: {message}")
        else:
            as_before(message, category, *more, **named)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = as_before
        sys.stdout.flush()  # also where the command exits: a reader that has gone is noticed here


def _drop_output() -> None:
    """Nobody reads on: send the rest of the output nowhere, without a word of the interpreter."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(nowhere, stream.fileno())


_UNUSABLE = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
_UNUSABLE_CODES = (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)
"""Faults of a path that was given, rather than of the program."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_INTERRUPTED = 128 + signal.SIGINT


def _sentence(error: OSError) -> str:
    """The system's message about a file, with the file first and the way out."""
    if error.filename is None:
        return str(error)
    full = error.errno in _FULL
    way_out = "make room, and run it again" if full else "name a place that can be read and written"
    return f"{error.filename}: {error.strerror}; {way_out}"


def _fail(sentence: object, status: int) -> NoReturn:
    warn(f"medfocus-bench: {sentence}")
    sys.exit(status)


def main() -> None:
    """Run the command line.

    Status 2 and one line where it cannot go on without the user (bad input, a full disk), 130 where Ctrl-C
    ended it, 1 for a failure of the program.
    """
    try:
        with _warnings_as_lines():
            cli(standalone_mode=True)
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)
    except ModuleNotFoundError as error:
        sentence = missing_extra(error)
        if sentence is None:
            raise
        _fail(sentence, 2)
    except _InterruptedError as error:
        _fail(error, _INTERRUPTED)
    except InputError as error:
        _fail(error, 2)
    except OSError as error:
        is_input = isinstance(error, _UNUSABLE) or error.errno in (*_UNUSABLE_CODES, *_FULL)
        _fail(_sentence(error), 2 if is_input else 1)
    except MemoryError:
        _fail("out of memory", 1)
