"""Every command and every block of Python of the documents: played to its end, or named here with the reason.

The pages in `PLAYED` run as printed, apart from the replacements given there: fewer samples, tiny models for
real ones, and the fixture trees of the licensed sources for their folders. All are parsed.
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
from pathlib import Path

import click
import pytest
from PIL import Image

from medfocus_bench.answers import parse_verdict
from medfocus_bench.cli.main import cli
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.medfocus.reference import phantom_pool
from medfocus_bench.phantom.render import Patient, render

from .cli.running import run
from .cli.test_licensed import as_published as as_published  # noqa: PLC0414  (a fixture)
from .cli.test_licensed import records
from .data import source_trees as trees

ROOT = Path(__file__).parents[1]
PAGES = {
    page.name: page
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}


def blocks(page, *kinds):
    text = PAGES[page].read_text()
    return [body for kind, body in re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL) if kind in kinds]


def commands(page):
    """The commands of a page's shell blocks, in their order, each on one line."""
    lines = "\n".join(blocks(page, "sh", "console")).replace("\\\n", " ").splitlines()
    found = (re.sub(r"\s+# .*$|^\$ ", "", " ".join(line.split())) for line in lines)
    return [line.removeprefix("$ ") for line in found if line]


REAL = "needs the weights of a real model"
NETWORK = "needs the network"
ELSEWHERE: dict[str, dict[str, str]] = {
    "README.md": {
        "make demo": "is run by CI's jobs and tests/leaderboard/test_rebuild.py",
        "make test": "runs this",
        "git clone https": NETWORK,
        "python3 -m venv": NETWORK,
        "pip install": NETWORK,
    },
    "CONTRIBUTING.md": {
        "": "a maintainer's way with a pull request: tests/leaderboard/test_rebuild.py and test_log.py"
    },
    "add-a-method.md": {"": "played in tests/test_docs.py"},
    "add-an-lvlm.md": {"medfocus-bench lvlm check": "played in tests/test_docs.py"},
    "submit.md": {
        "git clone": NETWORK,
        "python3 -m venv": NETWORK,
        "pip install": NETWORK,
        "": "played in tests/leaderboard/test_way_to_the_page.py, test_pull_request.py and test_log.py",
    },
    "dataset.md": {"medfocus-bench data diff": NETWORK, "medfocus-bench data push": NETWORK},
    "editors.md": {
        "pip install": NETWORK,
        "hf auth": NETWORK,
        "medfocus-bench verify": f"{REAL}; tests/cli/test_radedit.py plays it with a tiny one",
    },
    "performance.md": {"python -m tests.realsize": "takes hours; its arithmetic is tested in tests/realsize"},
    "faithfulness.md": {"medfocus-bench faithfulness": "played in tests/cli/test_faithfulness.py"},
    "licensed.md": {"pip install": NETWORK},
    "scale.md": {
        "medfocus-bench attribute --method all": f"{REAL}, and GPUs",
        "medfocus-bench plan --paper": "planned in tests/test_docs_scale.py",
        "medfocus-bench reproduce": "played in tests/paper/test_workers.py",
        "sbatch": "needs Slurm; tests/test_docs_scale.py plays the script",
        "medfocus-bench status run": "played in tests/test_docs_scale.py",
        "medfocus-bench pack run": "played in tests/test_docs_scale.py",
        "ray start": "needs several machines; tests/engine plays Ray on this one",
        "kubectl": "needs Kubernetes",
        "HEAD=": "needs Kubernetes",
    },
    "other-libraries.md": {"pip install": NETWORK},
    "reproduce.md": {
        "medfocus-bench reference build": "played in tests/cli/test_medfocus.py on the fixture trees",
        "medfocus-bench reproduce table1 -b BENCHMARK": REAL,
        "medfocus-bench reproduce table5": REAL,
    },
}
"""Of each page, how a command begins that is not played here, and why; the empty one stands for all."""

FEW = {"attribute": ["--limit", "1"], "pack": ["--partial", "--overwrite"], "evaluate": ["--no-nulls"]}
"""Options that are added, so that a command ends in seconds."""
PLAYED: dict[str, dict[str, str]] = {
    "README.md": {"qwen2_5_vl_3b": "phantom_qwen", "--method all": "--method occlusion"},
    "methods.md": {"pack run --partial": "pack run"},
    "phantom.md": {},
    "leaderboard.md": {},
    "dataset.md": {},
    "licensed.md": {
        "/data/cxr": "root",
        "qwen2_5_vl_3b": "phantom_qwen",
        " reasoning.json": "",
        "mine/grad-cam": "controls",
    },
    "scale.md": {
        "--split direct --workers 2 --out run": "--split direct --workers 2 --out run --lvlm phantom_qwen",
        "-b phantom --split direct --out run": "-b phantom --split direct --out run --lvlm phantom_qwen",
    },
    "reproduce.md": {"--limit 5": "--limit 1", "--dry-run": "--dry-run --limit 1 --out plan"},
}
"""The pages whose other commands are played, and what is put in the place of what they name."""


def why_not(page, command):
    for begin, reason in ELSEWHERE.get(page, {}).items():
        if command.startswith(begin):
            return reason
    return None


def test_every_command_of_a_page_parses_and_is_played_or_says_why_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("root", "DATA", "COPIES"):
        Path(name).mkdir()
    for name in ("direct.json", "reasoning.json"):
        Path(name).touch()
    for page in PAGES:
        for command in commands(page):
            assert page in PLAYED or why_not(page, command), command
            program, *words = shlex.split(command.replace("/data/cxr", "root"))
            if program == "medfocus-bench":
                group = cli
                while isinstance(group, click.Group):
                    group = group.commands[words.pop(0)]
                group.make_context(command, words)


@pytest.mark.usefixtures("as_published")
@pytest.mark.filterwarnings("ignore::medfocus_bench.errors.OfflineWarning")
@pytest.mark.parametrize("page", PLAYED)
def test_the_commands_of_a_page_run_as_printed(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Image.fromarray(render(Patient.sample(3)).image).save("chest.png")
    shutil.copytree(ROOT / "leaderboard" / "results", "leaderboard/results")
    shutil.copy(ROOT / "leaderboard" / "log.jsonl", "leaderboard/log.jsonl")
    if page == "licensed.md":
        trees.write_all(tmp_path / "root")
        records(tmp_path)
    for command in commands(page):
        if why_not(page, command):
            continue
        for printed, ours in PLAYED[page].items():
            command = command.replace(printed, ours)  # noqa: PLW2901
        program, *words = shlex.split(command)
        assert program == "medfocus-bench", command
        if "controls" in words:
            run("null", "centre-box", "-b", "published", "--split", "direct", "--out", "controls")
        if words[0] == "data" and words[1] in ("attach", "import-medground", "build"):
            shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
        more = [] if "--image" in words else FEW.get(words[0], [])
        status, _, error = run(*words, *more)
        assert status == 0, (command, error)
        assert "Traceback" not in error


PYTHON_ELSEWHERE = {
    ("README.md", 0): NETWORK,
    ("licensed.md", 0): f"{NETWORK}; tests/data/hub/test_attached.py plays it with a folder",
    ("add-a-method.md", 0): "tests/test_docs.py",
    ("add-an-lvlm.md", 0): "a sketch of a class, whose bodies are left out",
    ("add-an-lvlm.md", 1): "tests/test_docs.py holds it against the module",
    ("benchmark.md", 0): "tests/test_docs.py",
    ("editors.md", 0): "tests/test_docs.py",
    **{("other-libraries.md", n): "tests/test_docs_other_libraries.py" for n in range(5)},
    ("submit.md", 0): "tests/leaderboard/test_way_to_the_page.py",
}
"""Blocks of Python by page and number that are played elsewhere, or why they cannot be."""
CODE = [
    (page, number)
    for page in PAGES
    for number in range(len(blocks(page, "python", "py")))
    if (page, number) not in PYTHON_ELSEWHERE
]


@pytest.mark.filterwarnings("ignore::medfocus_bench.errors.OfflineWarning")
@pytest.mark.parametrize(("page", "number"), CODE)
def test_a_block_of_python_runs_as_printed(page, number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pool = phantom_pool()
    given = {"images": pool.images[:4], "masks": pool.masks[:4], "image": render(Patient.sample(3)).image}
    path = tmp_path / "block.py"
    path.write_text(blocks(page, "python", "py")[number])
    names = runpy.run_path(str(path), init_globals=given)
    if "answer" in names:
        assert names["answer"].text in ("Yes.", "No.")


def questions():
    """The questions that the pages put to a model, with those of phantoms that they name, or all of them."""
    texts = "\n".join(path.read_text() for page, path in PAGES.items() if page != "benchmark.md")
    return sorted(set(re.findall(r'"(Is there evidence[^"*\n]*\?[^"*\n]*)"', texts)))


@pytest.mark.parametrize("name", ["phantom_qwen", "phantom_gemma"])
def test_the_example_questions_of_the_pages_are_answered_with_a_verdict(name):
    lvlm = load_lvlm(name)
    for question in questions():
        for seed in (3, 4):
            text = lvlm.generate(render(Patient.sample(seed)).image, question).text
            assert parse_verdict(text) in ("yes", "no"), text
            assert "Answer directly" not in question or text in ("Yes.", "No.")
