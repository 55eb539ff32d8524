"""Running the command line in this process, exactly as its entry point does."""

from __future__ import annotations

import sys

import pytest

from medfocus_bench.cli.main import main


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `medfocus-bench WORDS`."""
    before = sys.argv
    sys.argv = ["medfocus-bench", *map(str, words)]
    try:
        main()
        status = 0
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    finally:
        sys.argv = before
    captured = capsys.readouterr()
    return status, captured.out, captured.err
