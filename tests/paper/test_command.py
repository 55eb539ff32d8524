"""`reproduce` on the command line, and the page about it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from medfocus_bench.data.attach import write_pointers
from medfocus_bench.data.columns import IMAGES
from medfocus_bench.paper.document import Reproduction
from medfocus_bench.paper.tables import TABLES

from ..cli.running import run
from ..data import source_trees as trees

PAGE = Path(__file__).parents[2] / "docs" / "reproduce.md"


@pytest.fixture
def bench(grouped_bench):
    return grouped_bench.folder


def test_the_list_names_every_target_and_what_is_published():
    status, shown, _ = run("reproduce", "--list")
    assert status == 0
    for name in TABLES:
        assert re.search(rf"^ *{name} ", shown, re.MULTILINE), name
    assert "not published here" in shown


def test_a_table_is_printed_and_written(bench, runs, tmp_path):
    words = ("reproduce", "table1", "-b", bench, "--method", "grad-cam", "--runs", runs, "--resamples", 20)
    status, shown, error = run(*words, "--out", tmp_path / "out")
    assert status == 0, error
    assert "null: Both lungs" in shown
    assert "Each LVLM on its own: table1.md" in shown
    assert str(tmp_path / "out" / "table1.json") in shown
    status, shown, _ = run(*words, "--out", tmp_path / "out", "--format", "json")
    document = Reproduction.model_validate_json(shown)
    assert document.target == "table1"
    status, shown, _ = run(*words, "--out", tmp_path / "out", "--format", "markdown")
    assert "### phantom, phantom\\_qwen" in shown
    assert shown.rstrip("\n") in (tmp_path / "out" / "table1.md").read_text()


def test_a_dry_run_prints_the_plan_and_runs_nothing(bench, tmp_path, no_models):
    out = tmp_path / "out"
    words = ("reproduce", "table1", "-b", bench, "--out", out, "--dry-run", "--seconds-per-forward", 0.2)
    status, shown, error = run(*words)
    assert status == 0, error
    assert "integrated-gradients, phantom_qwen direct" in shown
    assert "hours" in shown
    assert sorted(path.name for path in out.iterdir()) == ["table1-plan.json"]
    status, shown, _ = run(*words, "--format", "json")
    assert json.loads(shown)["target"] == "table1"


@pytest.fixture
def copies(tmp_path):
    """Pointers to a licensed source in its real format, and the folder of the user's copies."""
    trees.write_imagenome(tmp_path / "copies")
    answers = {f"answer_{name}": "No." if name == "foreground" else "Yes." for name in IMAGES}
    pointers = [
        {
            "sample_id": f"imagenome-{index:05d}-{lvlm}-direct",
            "source": "imagenome",
            "index": index,
            "answer": "Yes",
            "lvlm": lvlm,
            "mode": "direct",
            "response": "Yes.",
            "evidence": "lesion",
            "group": "grounded",
            **answers,
        }
        for lvlm, indices in (("qwen2_5_vl_3b", (0, 1, 2, 999)), ("phantom_qwen", (0, 3)))
        for index in indices
    ]
    write_pointers(pointers, tmp_path / "pointers")
    return "-b", tmp_path / "pointers", "--root", tmp_path / "copies", "--out", tmp_path / "out"


def test_pointers_are_attached_to_the_users_copies(copies, no_models):
    """From pointers and a root to a table, the losses said on the way."""
    status, shown, error = run("reproduce", "table2", *copies)
    assert status == 0, error
    assert "none of them 999" in error
    assert re.search(r"imagenome .* 105 +3\*", shown), shown
    status, shown, _ = run("reproduce", "table2", *copies)
    assert status == 0, "a second run attaches again"


def test_a_licensed_source_is_explained_and_stands_beside_the_paper(copies):
    words = ("--lvlm", "phantom_qwen", "--resamples", 20, "--format", "json")
    status, shown, error = run("reproduce", "table1", *copies, *words, "--method", "grad-cam")
    assert status == 0, error
    line = Reproduction.model_validate_json(shown).sections[0].lines[0]
    assert line.samples == 2
    assert line.entries["paper_iou"].published == 34.47
    assert line.entries["paper_iou"].ours.value > 0
    status, _, error = run("reproduce", "fig6", *copies, *words)
    assert (status, len(error.splitlines()[-1:])) == (2, 1)
    assert "--references" in error
    status, shown, error = run("reproduce", "fig6", *copies, *words, "--references", "phantom")
    assert status == 0, error
    assert Reproduction.model_validate_json(shown).sections[0].lines[0].samples == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("table99 -b phantom", "no target 'table99'"),
        ("table99 -b phantom", "fig6, convergence, sensitivity"),
        ("", "--list"),
        ("table1", "--benchmark"),
        ("table1 -b nowhere", "nowhere"),
        ("table1 -b BENCH --lvlm nobody", "nobody"),
        ("table1 -b BENCH --seconds-per-forward 1", "--dry-run"),
        ("table1 -b BENCH --dry-run --seconds-per-forward 0", "above 0"),
        ("table2 -b BENCH --method medfocus", "no method 'medfocus'"),
        ("table1 --root .", "--editor"),
        ("table1 --editor inpainting", "--root"),
        ("table1 --root . --editor nobody", "no editor 'nobody'"),
        ("table1 --root . --editor inpainting --editor-set method", "FIELD=VALUE"),
        ("table1 --root . --editor inpainting --source nowhere", "no source 'nowhere'"),
        ("table1 --root . --editor inpainting --no-run", "--no-run needs --benchmark"),
    ],
)
def test_bad_input_is_one_line(words, says, bench, tmp_path, monkeypatch, no_models):
    monkeypatch.chdir(tmp_path)
    words = [bench if word == "BENCH" else word for word in words.split()]
    status, _, error = run("reproduce", *words, "--out", tmp_path / "out")
    assert (status, len(error.splitlines())) == (2, 1), error
    assert says in error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("table1 --method nonsense", "no method 'nonsense' in table1"),
        ("table1 --lvlm nobody", "no LVLM 'nobody'"),
        ("table1 --device gpu", "--device gpu"),
        ("table1 --dtype f32", "--dtype f32"),
        ("table6 --segmenter nowhere", "--segmenter nowhere: is not there"),
        ("table6 --segmenter folder", "has no config.json that can be read"),
        ("table1 --detector other", "holds a model of type 'sam', not 'owlv2'"),
        ("table6 --references nowhere", "--references nowhere: is not a file"),
        ("table1 --tuned nowhere", "nowhere: cannot be read"),
        ("table1 --root nowhere", "--root nowhere: is not a folder"),
        ("table1 --no-run --runs nowhere", "--runs nowhere: is not a folder"),
        ("table1 --no-run --dry-run", "exclude each other"),
        ("table1 --editor-set a=b", "--editor-set goes with a run of the filter"),
    ],
)
def test_options_are_checked_before_the_benchmark_is_read(words, says, tmp_path, monkeypatch):
    """The benchmark does not exist, and that is not the error."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "sam"}')
    monkeypatch.chdir(tmp_path)
    status, shown, error = run("reproduce", *words.split(), "-b", "absent")
    assert (status, shown, len(error.splitlines())) == (2, "", 1), error
    assert says in error
    assert not (tmp_path / "reproduction").exists()


def test_no_run_loads_no_lvlm_and_says_what_it_does(bench, tmp_path, no_models):
    words = ("reproduce", "table1", "-b", bench, "--no-run", "--resamples", 20, "--method", "grad-cam")
    status, _, error = run(*words, "--out", tmp_path / "out")
    assert status == 0, error
    assert f"table1: 0 of 5 records are in {tmp_path / 'out' / 'runs'}; nothing is run" in error
    assert "table1: computing the table with 20 resamples" in error


def test_the_page_names_every_target_with_what_it_shows():
    text = PAGE.read_text()
    for target in TABLES.values():
        assert f"`{target.name}`" in text
        row = next(line for line in text.splitlines() if line.startswith(f"| `{target.name}`"))
        assert target.title.split(":")[0].split(",")[0] in row, target.name
