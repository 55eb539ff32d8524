"""The documents are true."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

import medfocus_bench
from medfocus_bench.cli.main import cli
from medfocus_bench.evaluation.metrics.registry import metrics
from medfocus_bench.evaluation.nulls import NULL_CONTROLS
from medfocus_bench.leaderboard.board import make_board
from medfocus_bench.leaderboard.result import read_results
from medfocus_bench.submission.maps import MapReader

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for folder in (".", "docs", "data_cards") for page in (ROOT / folder).glob("*.md"))


def run_code(code, folder, **names):
    """Runs a block of a page as a file of its own."""
    path = folder / "block.py"
    path.write_text(code)
    runpy.run_path(str(path), init_globals=names)


def test_links_within_the_repository_lead_somewhere_and_commands_exist():
    for page in PAGES:
        text = page.read_text()
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert target.startswith("http") or (page.parent / target).exists(), (page.name, target)
        assert set(re.findall(r"medfocus-bench ([a-z]+)(?= |`|$)", text)) - {"is"} <= set(cli.commands), page


def test_a_strangers_method_runs_as_printed_to_a_row(tmp_path, monkeypatch, capsys):
    """Every command of docs/add-a-method.md in its order, on a few samples of each model and split."""
    text = (ROOT / "docs" / "add-a-method.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code.splitlines()) <= 30
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "leaderboard" / "results", "leaderboard/results")
    Path("my_method.py").write_text(code)
    Image.fromarray(np.arange(96 * 64).reshape(96, 64).astype(np.uint8)).save("chest.png")
    block, look = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    commands = [shlex.split(line) for line in f"{block}{look}".replace("\\\n", " ").splitlines()]
    few = {
        "tune": ["--limit", "2"],
        "attribute": ["--limit", "2"],
        "pack": ["--partial"],
        "evaluate": ["--no-nulls"],
        "submit": [],
    }
    for program, name, *words in commands:
        assert program == "medfocus-bench"
        more = [] if "--image" in words else few[name]
        cli.main([name, *words, *more], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "16 maps were averaged to 64 cells a side" in printed
    assert "input-gradient: sound" in printed
    assert "The row of input-gradient" in printed
    maps = MapReader(tmp_path / "submissions" / "input-gradient" / "maps.safetensors")
    assert {maps.read(key).shape for key in maps.keys} == {(64, 64)}
    assert (tmp_path / "look" / "panel.png").exists()


def _lvlm_page() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "add-an-lvlm.md").read_text(), re.DOTALL)


def test_the_family_that_is_shown_is_the_one_that_runs():
    _, family = _lvlm_page()
    assert family == (ROOT / "medfocus_bench" / "lvlm" / "families" / "paligemma.py").read_text()


def test_the_check_of_an_lvlm_prints_what_its_page_shows(capsys):
    """But for the last digits of sums."""
    page = (ROOT / "docs" / "add-an-lvlm.md").read_text()
    (shown,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    (command,) = re.findall(r"medfocus-bench (lvlm check .*)", page)
    cli.main(shlex.split(command), standalone_mode=False)
    figures = re.compile(r"\d+e-\d+")
    assert figures.sub("", capsys.readouterr().out) == figures.sub("", shown)
    listed = re.findall(r"^\| (\w[\w ]*) \|", page[page.index("## The check") :], re.MULTILINE)
    assert listed[1:] == [line[16:30].strip() for line in shown.splitlines()[1:]]


def test_the_example_row_of_a_benchmark_is_written_as_printed(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "benchmark.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    run_code(code, tmp_path)
    assert len(medfocus_bench.load_benchmark("mine").samples) == 1


def test_the_causal_filter_runs_as_the_page_of_editors_prints_it(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "editors.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    run_code(code, tmp_path)
    assert "inpainting 1 " in capsys.readouterr().out


def test_every_score_and_every_null_control_is_explained():
    text = (ROOT / "docs" / "scores.md").read_text()
    for metric in metrics():
        assert metric.label in text or metric.label.lower() in text.lower(), metric.name
    for name in NULL_CONTROLS:
        assert f"`{name}`" in text


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == medfocus_bench.__version__
    assert "2605.20158" in citation["preferred-citation"]["identifiers"][0]["value"]


def test_the_tables_of_methods_are_those_of_the_leaderboard():
    board = make_board(read_results(ROOT / "leaderboard" / "results"))
    titles = {result.title: result.name for result in board.results}
    direct, reasoning = (ROOT / "docs" / "methods.md").read_text().split("Evidence AP in the reasoning split")
    for mode, text in (("direct", direct), ("reasoning", reasoning)):
        rows = re.findall(r"^\| (?:`([a-z-]+)`[^|]*|null: ([^|]+)) \| (-?\d.*) \|$", text, re.MULTILINE)
        assert len(rows) > 15
        for name, title, cells in rows:
            assert cells.split(" | ") == list(_figures(board, name or titles[title], mode)), name or title


def _figures(board, name, mode):
    """Evidence AP by LVLM, in direct mode with the lift of both after each pair."""
    for kind, suffix in (("lesion", ""), ("spurious", "_twin")):
        for lvlm in (f"phantom_qwen{suffix}", f"phantom_gemma{suffix}"):
            score = board.view(lvlm=lvlm, mode=mode).row(name).headline
            yield f"{score.mean:z.2f} [{score.low:z.2f}, {score.high:z.2f}]"
        if mode == "direct":
            score = board.view(mode=mode, evidence=kind).row(name).scores["precision_lift"]
            yield f"{score.mean:z.1f} [{score.low:z.1f}, {score.high:z.1f}]"


def test_the_example_of_a_submission_is_of_the_track_that_is_shipped():
    text = (ROOT / "docs" / "submission.md").read_text()
    (version,) = re.findall(r'"version": "(\d+\.\d+\.\d+)"', text)
    (fingerprint,) = re.findall(r'"fingerprint": "([0-9a-f]{12})', text)
    track = medfocus_bench.load_benchmark("phantom")
    assert (version, fingerprint) == (track.version, track.fingerprint[:12])
