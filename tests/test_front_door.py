"""The public names: twenty at most, each with an example that runs, with every extra and without each."""

from __future__ import annotations

import doctest
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import medfocus_bench
from medfocus_bench.data import resolve

from .cli.test_surroundings import BLOCKED

NAMES = [name for name in medfocus_bench.__all__ if name != "__version__"]
EXAMPLES = {
    name: found
    for name in NAMES
    for found in doctest.DocTestFinder(recurse=False).find(getattr(medfocus_bench, name), name)
    if found.examples
}
PAGES = Path(__file__).parents[1]

RUNNER = """
import json, sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in blocked:
            return super().find_spec(name, path, target)

blocked, sources = json.loads(sys.argv[1])
sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
from functools import cache
from medfocus_bench.data import resolve
resolve.read_benchmark = cache(resolve.read_benchmark)
said = {}
for name, lines in sources.items():
    space = {}
    try:
        for line in lines:
            exec(compile(line, name, "single"), space)
        said[name] = ["", ""]
    except Exception as error:
        said[name] = [type(error).__name__, str(error)]
print(json.dumps(said))
"""


def test_the_front_door_has_at_most_twenty_names():
    assert len(NAMES) <= 20
    assert all(getattr(medfocus_bench, name).__name__ == name for name in NAMES)


def test_every_public_name_has_an_example():
    assert sorted(EXAMPLES) == sorted(NAMES)


def test_the_example_of_each_public_name_prints_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr(resolve, "read_benchmark", cache(resolve.read_benchmark))
    said: list[str] = []
    for name, example in EXAMPLES.items():
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        runner.run(example, out=said.append)
    assert not said, "".join(said)


NEED_ATTRIBUTION = {"Method", "attribute", "load_lvlm", "load_method"}


@pytest.mark.parametrize(
    ("extras", "needing"),
    [(("attribution",), NEED_ATTRIBUTION), (("hub", "dicom", "radedit", "medfocus"), {"load_samples"})],
)
def test_without_extras_a_public_name_works_or_says_what_to_install(extras, needing, tmp_path):
    blocked = [module for one in extras for module in BLOCKED[one]]
    sources = {name: [example.source for example in found.examples] for name, found in EXAMPLES.items()}
    run = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps([blocked, sources])],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout.splitlines()[-1])
    assert set(said) == set(NAMES)
    assert {name for name, (kind, _) in said.items() if kind} == needing
    for name in needing:
        assert f"pip install 'medfocus-bench[{extras[0]}]'" in said[name][1], said[name]


def first_example(page: str) -> str:
    blocks = re.findall(r"```python\n(import medfocus_bench.*?)```", (PAGES / page).read_text(), re.DOTALL)
    return str(blocks[0]).strip()


def test_one_picture_is_explained_and_scored_in_eight_lines_the_same_on_both_pages(
    tmp_path, monkeypatch, capsys
):
    example = first_example("README.md")
    assert example == first_example("docs/python.md")
    assert len(example.splitlines()) <= 8
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert re.fullmatch(r"\d\.\d+\n", capsys.readouterr().out)
