"""Commands that messages suggest: each is complete, and parses as it stands."""

from __future__ import annotations

import ast
import re
import shlex
from contextlib import suppress
from pathlib import Path

import click
import pytest

import medfocus_bench
from medfocus_bench.cli.main import cli
from medfocus_bench.errors import InputError
from medfocus_bench.runs.config import RunConfig
from medfocus_bench.runs.methods import choose_methods, with_tuning
from medfocus_bench.runs.settings import write_document
from medfocus_bench.runs.tune import tune
from medfocus_bench.runs.tuning import open_tuning

from ..runs.conftest import small as small  # noqa: PLC0414  (a fixture of the runs)

PACKAGE = Path(medfocus_bench.__file__).parent
VALUES = {"mode": "direct", "dtype": "float32", "framing": "square", "source.name": "nih"}
"""Stand-ins for values in a message, where not any word will do."""


def strings():
    """Every string of the package, with a word for each value that is put into it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    VALUES.get(ast.unparse(part.value), "word")
                    if isinstance(part, ast.FormattedValue)
                    else part.value
                    for part in node.values
                ]
                yield path.name, "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield path.name, node.value


SUGGESTED = sorted(
    {
        (name, command)
        for name, text in strings()
        for command in re.findall(r"`(medfocus-bench [^`]+)`|to log it: (medfocus-bench .+)$", text)
        for command in command
        if command
    }
)


def parse(command):
    """Reads a command line down to its last option, and runs nothing."""
    words = shlex.split(command)[1:]
    group = cli
    while words and hasattr(group, "commands"):
        group = group.commands[words[0]]
        words = words[1:]
    return group.make_context(command, words)


@pytest.mark.parametrize(("file", "command"), SUGGESTED)
def test_a_command_that_a_message_suggests_is_complete(file, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with suppress(click.exceptions.Exit):  # of an option that shows something and ends
        parse(command)


def test_the_messages_are_found():
    assert len(SUGGESTED) >= 8
    assert "tuning.py" not in {name for name, _ in SUGGESTED}  # its commands are made of parts: below


def test_the_way_to_tune_what_a_file_lacks_is_a_command_that_adds_it(small, tmp_path):
    file = tmp_path / "a file.json"
    part = tune("grad-cam", "phantom_qwen", small, "direct", limit=1)
    (method,) = choose_methods(["grad-cam"])
    tuning = open_tuning(file, "grad-cam", method.metadata.version, small)
    write_document(file, tuning.extended("phantom_qwen", "direct", part))
    (tuned,) = with_tuning([method], [file], small)
    for ask in (
        lambda: tuned.part("phantom_gemma", "direct"),
        lambda: tuned.check_conditions("phantom_qwen", "direct", RunConfig(dtype="bfloat16")),
    ):
        with pytest.raises(InputError) as refused:
            ask()
        (command,) = re.findall(r"`(medfocus-bench tune [^`]+)`", str(refused.value))
        given = parse(command).params
        assert (given["method"], given["benchmark"], given["out"]) == ("grad-cam", str(small.folder), file)
    cli.main(
        [*shlex.split(command.replace("bfloat16", "float32"))[1:], "--limit", "1"], standalone_mode=False
    )
