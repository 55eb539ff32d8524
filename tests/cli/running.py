"""Running the command line in this process, exactly as its entry point does."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

from medfocus_bench.cli.main import main


def run(*words: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `medfocus-bench WORDS`."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with (
        patch.object(sys, "argv", ["medfocus-bench", *map(str, words)]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
    return status, out.getvalue(), err.getvalue()


def refused(*words: object) -> str:
    """The one line with which a command refuses its input."""
    status, shown, error = run(*words)
    assert (status, shown, error.count("\n")) == (2, "", 1), (status, shown, error)
    assert error.startswith("medfocus-bench: ")
    return error
