"""--engine and --workers, as every command that takes them reads them."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from medfocus_bench.cli.options import engine_options

from .running import run


@click.command
@engine_options(3)
def shown(engine):
    """Say which engine was opened."""
    click.echo(f"{type(engine).__name__} {engine.workers}")


@pytest.mark.parametrize(
    ("words", "opened"),
    [
        ((), "LocalWorkers 3"),
        (("--engine", "in-process"), "InProcess 1"),
        (("--workers", "1"), "InProcess 1"),
        (("--engine", "local", "--workers", "1"), "LocalWorkers 1"),
    ],
)
def test_the_number_of_workers_follows_the_engine(words, opened):
    assert CliRunner().invoke(shown, words).output == f"{opened}\n"


def test_a_picture_of_one_s_own_takes_no_engine(tmp_path):
    words = ("--image", tmp_path / "x.png", "--question", "Q?", "--lvlm", "phantom_qwen", "--workers", 2)
    (tmp_path / "x.png").write_bytes(b"")
    status, _, errors = run("attribute", "--method", "grad-cam", *words, "--out", tmp_path / "out")
    assert status == 2
    assert "--engine and --workers do not go with --image" in errors
