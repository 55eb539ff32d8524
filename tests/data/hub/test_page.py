"""The commands of docs/dataset.md run as they stand there."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from medfocus_bench.cli.main import cli

from .conftest import publish
from .embedded import SAMPLES, VERSION

PAGE = Path(__file__).parents[3] / "docs" / "dataset.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_python_of_the_page_runs_as_printed(hub, embedded, tmp_path):
    publish(hub, embedded)
    (code,) = blocks("python")
    (tmp_path / "block.py").write_text(code)
    assert len(runpy.run_path(str(tmp_path / "block.py"))["samples"]) == SAMPLES["dev"].total()


def test_the_commands_of_the_page_run_as_printed(hub, embedded, tmp_path, monkeypatch, capsys):
    publish(hub, embedded)
    monkeypatch.chdir(tmp_path)
    for line in "".join(blocks("sh")).splitlines():
        program, *words = shlex.split(line)
        assert program == "medfocus-bench"
        if words[:2] == ["data", "push"]:
            hub.reset()  # what was published there has pointers, which the page does not add
        cli.main(words, standalone_mode=False)
    out = capsys.readouterr().out
    assert f"version:     {VERSION}" in out
    assert f"phantom, direct: 1,056 rows, {SAMPLES['direct'].total():,} samples, 2 shards" in out
    assert "samples: 0 added, 0 removed, 0 changed, 2640 the same" in out
    assert "medfocus/cxr-causal: nothing was sent" in out


@pytest.mark.parametrize("name", ["export", "push"])
def test_the_options_of_the_commands_are_explained(name):
    parameters = cli.commands["data"].commands[name].params
    options = {option for parameter in parameters for option in parameter.opts if option.startswith("--")}
    assert options <= set(re.findall(r"--[a-z-]+", PAGE.read_text()))
