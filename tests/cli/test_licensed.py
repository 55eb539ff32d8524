"""From a folder of licensed copies to scores: the real commands, one after the other."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from medfocus_bench import load_benchmark
from medfocus_bench.counterfactual.records import read_failures, read_verifications
from medfocus_bench.data.sources import installed_sources, open_source
from tests.cli.running import run
from tests.data import source_trees as trees


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return trees.write_all(tmp_path_factory.mktemp("root"))


@pytest.fixture
def as_published(monkeypatch):
    """The published numbers of questions, made those of the fixture trees."""
    for name, counts in {
        "imagenome": {"test": 12},
        "vindr_cxr": {"test": 13},
        "padchest_gr": {"test": 8, "dev": 3},
        "nih": {"test": 6},
    }.items():
        monkeypatch.setattr(type(installed_sources()[name]), "expected", counts)


def records(folder: Path) -> Path:
    said = {"": "Yes.\n", "_edited": "No.\n", "_edited_kept": "Yes.", "_edited_kept_normal": "Yes"}
    found = [
        {"model": model, "dataset": source, "index": index, "answer": "Yes"}
        | {f"prediction{stem}_direct": text for stem, text in said.items()}
        for model in ("gemma3_4b", "medgemma1_5_4b")
        for source, count in (("imagenome", 12), ("vindr_cxr", 13), ("padchest_gr", 8))
        for index in range(count)
    ]
    path = folder / "direct.json"
    path.write_text(json.dumps(found))
    return path


@pytest.mark.usefixtures("as_published")
def test_a_licence_holder_goes_from_folders_to_scores(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def ok(*words: object) -> str:
        status, out, err = run(*words)
        assert status == 0, (words, out, err)
        return out

    examined = ok("data", "doctor", "--root", root, "--sheet", "sheet.png")
    assert "NO" not in examined
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 1000

    imported = ok("data", "import-medground", records(tmp_path), "--root", root, "--out", "published")
    assert "66 records about 33 distinct questions" in imported
    assert "0 records whose answers disagree" in imported
    assert "10.5% at most, at p = 3/4" in " ".join(imported.split())
    ok("data", "import-medground", "direct.json", "--out", "pointers")
    attached = ok("data", "attach", "pointers", "--root", root, "--out", "attached")
    assert load_benchmark("attached").fingerprint in attached
    assert load_benchmark("attached").fingerprint == load_benchmark("published").fingerprint

    for control in ("image-edges", "mean-map"):
        ok("null", control, "-b", "published", "--split", "direct", "--out", control)
    scores = ok("evaluate", "image-edges", "-b", "published", "--brief", "--resamples", 100)
    assert "66 attributed (coverage 100.0%)" in scores

    verify = ("verify", "--lvlm", "phantom_qwen", "--editor", "inpainting", "--root", root, "--out", "work")
    for source in ("vindr_cxr", "padchest_gr"):
        assert f"questions of {source} test" in ok(*verify, "--source", source)
    ok(*verify, "--source", "padchest_gr", "--split", "dev")
    for source in ("vindr_cxr", "padchest_gr"):
        ok("data", "build", source, "--work", "work", "--root", root, "--out", source)
        ok("data", "build", source, "--work", "work", "--pointers", "--out", f"{source}-pointers")
    built = load_benchmark("vindr_cxr")
    assert built.samples, "the tiny model is driven by the region of some question"
    assert set(load_benchmark("padchest_gr").splits) <= {"direct", "dev"}

    explained = ok(
        *("attribute", "--method", "grad-cam", "-b", "vindr_cxr", "--split", "direct", "--out", "run")
    )
    assert "grad-cam, phantom_qwen direct" in explained
    ok("pack", "run", "-o", "submission")
    ok("validate", "submission", "-b", "vindr_cxr")
    scores = ok("evaluate", "submission", "-b", "vindr_cxr", "--brief", "--resamples", 100)
    assert f"{len(built.samples)} attributed (coverage 100.0%)" in scores
    assert "null: Mean expert map" in scores

    table = ok(
        *("reproduce", "table1", "-b", "vindr_cxr", "--method", "grad-cam", "--runs", "run", "--no-run"),
        *("--out", "tables", "--resamples", 100),
    )
    assert "11.95" in table, "the precision that the paper reports of Grad-CAM on VinDR-CXR"
    for path in Path().rglob("*.parquet"):
        assert all(image is None for image in pq.read_table(path).column("image").to_pylist()), path


def test_an_incomplete_root_is_status_1_with_what_is_missing_and_where(root, tmp_path):
    shutil.copytree(root / "vindr-cxr", tmp_path / "vindr-cxr")
    lost = open_source("vindr_cxr").annotations(tmp_path).by_index[4].image_ref
    (tmp_path / lost).unlink()
    status, out, _ = run("data", "doctor", "--root", tmp_path, "--skips", tmp_path / "skips.jsonl")
    assert status == 1
    assert f"{tmp_path / trees.IMAGENOME_TABLE}: is not there" in out
    assert f"{tmp_path / lost}: is not there" in out
    written = [json.loads(line) for line in (tmp_path / "skips.jsonl").read_text().splitlines()]
    assert 4 in [entry["index"] for entry in written]


def test_bad_records_are_status_2_with_every_problem_on_its_line(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"model": "\x1b[31m", "prediction_direct": "Yes"}, 7]))
    status, _, err = run("data", "import-medground", path, "--out", tmp_path / "out")
    assert status == 2
    assert "record 1: lacks answer" in err
    assert "record 2: is not an object but int" in err
    assert "\x1b" not in err
    assert not (tmp_path / "out").exists()


def test_a_picture_that_fails_is_a_failure_of_its_question_and_not_the_end(root, tmp_path):
    """Trap 18: the run goes on, the others keep their indices, and a second run tries again."""
    shutil.copytree(root / "vindr-cxr", tmp_path / "vindr-cxr")
    ref = open_source("vindr_cxr").annotations(tmp_path).by_index[1].image_ref
    sound = (tmp_path / ref).read_bytes()
    (tmp_path / ref).write_bytes(sound[:500])
    words = (
        *("verify", "--source", "vindr_cxr", "--root", tmp_path, "--lvlm", "phantom_qwen"),
        *("--editor", "inpainting", "--out", tmp_path / "work", "--limit", 4),
    )
    status, out, _ = run(*words)
    (file,) = (tmp_path / "work").glob("*.jsonl")
    asked = {record.index for record in read_verifications(file)}
    failed = {failure.index for failure in read_failures(file)}
    assert status == 0
    assert str(tmp_path / ref) in out
    assert 1 in failed
    assert re.search(r"coin, p = \d\.\d\d +\d+\.\d% +at most 10\.5%", out)
    assert asked | failed == {0, 1, 2, 3}
    (tmp_path / ref).write_bytes(sound)
    assert run(*words)[0] == 0
    assert {record.index for record in read_verifications(file)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--source", "vindr_cxr", "--editor", "inpainting"), "--source vindr_cxr needs --root"),
        (("--source", "vindr_cxr", "--root", "."), "--source vindr_cxr needs --editor"),
        (("--source", "mimic", "--root", "."), "no source 'mimic'"),
        (("--source", "phantom", "--editor", "inpainting"), "--editor goes with a source of your own"),
        (("--split", "dev"), "--split goes with a source of your own"),
        (("--shams", "3"), "--shams goes with a source of your own"),
        (("--device", "cuda"), "--device goes with a source of your own"),
        (("--source", "nih", "--root", ".", "--editor", "inpainting"), "BBox_List_2017.csv: is not there"),
        (("--source", "nih", "--root", ".", "--editor", "nobody"), "no editor 'nobody'"),
        (("--source", "nih", "--root", ".", "--editor", "inpainting", "--lvlm", "gpt"), "no LVLM 'gpt'"),
        (
            ("--source", "nih", "--root", ".", "--editor", "inpainting", "--split", "dev"),
            "nih has no dev split",
        ),
    ],
)
def test_what_verify_lacks_is_said_at_once(tmp_path, monkeypatch, words, message):
    """Trap 35."""
    monkeypatch.chdir(tmp_path)
    status, _, err = run("verify", "--lvlm", "phantom_qwen", "--out", "work", *words)
    assert (status, message in err) == (2, True), err


def test_building_without_records_or_root_is_status_2(tmp_path):
    build = ("data", "build", "nih", "--work", tmp_path, "--out", tmp_path / "out")
    status, _, err = run(*build)
    assert status == 2
    assert "holds no records nih-*.jsonl" in err


@pytest.mark.parametrize("command", ["import-medground", "attach"])
def test_losses_are_written_also_where_nothing_joins(command, tmp_path):
    """Which is when they are wanted most."""
    pointers = tmp_path / "pointers"
    assert run("data", "import-medground", records(tmp_path), "--out", pointers)[0] == 0
    (tmp_path / "copies").mkdir()
    given = tmp_path / "direct.json" if command == "import-medground" else pointers
    words = ("--root", tmp_path / "copies", "--out", tmp_path / "out", "--losses", tmp_path / "lost.jsonl")
    status, _, err = run("data", command, given, *words)
    assert (status, "none of 66 rows can be joined" in err) == (2, True), err
    lost = [json.loads(line) for line in (tmp_path / "lost.jsonl").read_text().splitlines()]
    assert len(lost) == 66
    assert "is not there" in lost[0]["reason"]
    assert not (tmp_path / "out").exists()
