"""The paper's filter from the command line: RadEdit (tiny, random) over a source, to rows of the dataset."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import datasets
import pytest

from medfocus_bench import load_benchmark
from medfocus_bench.counterfactual import radedit
from medfocus_bench.counterfactual.records import read_verifications
from tests.cli.running import run
from tests.counterfactual.diffusion_stack import save_stack
from tests.data import source_trees as trees
from tests.data.hub.rows import write_small

QUESTIONS = 9
SHAMS = 2
PICTURES = 4 + SHAMS
BATCH = 2
"""Questions at a time."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("root")
    trees.write_vindr(folder)
    return folder


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """`--set` for each setting of the tiny model."""
    stack = save_stack(tmp_path_factory.mktemp("stack")) | {"size": "64", "steps": "10", "skip_ratio": "0.5"}
    return tuple(word for name, value in stack.items() for word in ("--set", f"{name}={value}"))


def verify(root: Path, settings: tuple[str, ...], *more: object) -> tuple[str, ...]:
    return (
        *("verify", "--source", "vindr_cxr", "--root", str(root), "--lvlm", "phantom_qwen"),
        *("--editor", "radedit", *settings, "--shams", str(SHAMS), "--batch", str(BATCH * PICTURES)),
        *("--limit", str(QUESTIONS), *map(str, more)),
    )


def stopped_in_the_middle(words: tuple[str, ...], out: Path) -> bytes:
    """Runs a command that is killed when it goes on to its second batch of records, and returns the first."""
    file = out / "vindr_cxr-test-phantom_qwen-direct.jsonl"
    program = [sys.executable, "-c", KILLED, str(file), *words, "--out", str(out)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return file.read_bytes()


KILLED = """
import os, signal, sys
from medfocus_bench.cli.main import main

records, batches = sys.argv.pop(1), []

def kill(event, arguments):
    if event == "open" and str(arguments[0]) == records and "a" in (arguments[1] or ""):
        batches.append(len(batches))
        if len(batches) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
main()
"""
"""The entry point, which ends without a word when it opens the file of its records for the second time."""


def test_a_killed_run_goes_on_and_its_records_become_the_dataset(root, settings, tmp_path, monkeypatch):
    """Trap 33: what is lost is a batch at most, and nothing is drawn twice."""
    monkeypatch.chdir(tmp_path)
    words = verify(root, settings, "--set", "cache=edits")

    def ok(*words: object) -> str:
        status, out, err = run(*words)
        assert status == 0, (words, out, err)
        return out

    before = stopped_in_the_middle(words, tmp_path / "work")
    kept = before[: before.rfind(b"\n") + 1]
    assert BATCH <= kept.count(b"\n") < QUESTIONS
    drawn = {path: path.stat().st_mtime_ns for path in Path("edits").rglob("*.png")}
    assert len(drawn) <= (kept.count(b"\n") + BATCH) * (PICTURES - 1)

    said = ok(*words, "--out", "work")
    assert f"{QUESTIONS} of 13 questions of vindr_cxr test" in said
    file = Path("work/vindr_cxr-test-phantom_qwen-direct.jsonl")
    assert file.read_bytes().startswith(kept), "what was recorded is not asked again"
    records = read_verifications(file)
    assert [record.index for record in records] == list(range(QUESTIONS))
    assert all(record.editor.startswith("radedit 1 ") for record in records)
    assert all(list(record.responses)[-SHAMS:] == ["sham", "sham_1"] for record in records)
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn, "what was drawn is not drawn again"

    def nothing(*_: object) -> None:
        raise AssertionError("a picture was drawn that is in the cache")

    monkeypatch.setattr(radedit.RadEdit, "_stack", property(nothing))
    ok(*words, "--out", "again")
    assert (Path("again") / file.name).read_bytes() == file.read_bytes()

    records[0].responses["foreground"] = "No."  # untrained, the editor removes no finding
    assert records[0].group == "grounded"
    file.write_text("".join(json.dumps(asdict(record)) + "\n" for record in records))
    built = ok("data", "build", "vindr_cxr", "--work", "work", "--root", root, "--out", "local")
    local = load_benchmark("local")
    assert local.fingerprint in built
    ok("data", "build", "vindr_cxr", "--work", "work", "--pointers", "--out", "pointers")
    ok("data", "export", "published", "--from", write_small(Path("open")), "--pointers", "pointers")
    rows = datasets.load_dataset(
        "./published", "vindr_cxr", split="direct", cache_dir=str(tmp_path / "cache")
    )
    assert rows["index"][:] == list(range(QUESTIONS))
    groups = [rows.features["group"].int2str(group) for group in rows["group"]]
    assert groups == [record.group for record in records]
    assert [sample.index for sample in local.samples] == [
        record.index for record in records if record.group == "grounded"
    ]
    for row, record in zip(rows, records, strict=True):
        assert row["response"] == record.responses["original"]
        assert row["answer_foreground"] == record.responses["foreground"]
        assert row["log_odds_sham"] == pytest.approx(record.log_odds["sham"], abs=1e-5)
        assert row["image"] is row["boxes"] is row["finding"] is row["anatomy"] is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--set", "steps=7"), "radedit: steps 7 does not divide 1000"),
        (("--set", "size=64", "--set", "size=128"), "--set size: is given twice"),
        (("--set", "cache=taken"), "radedit: cache 'taken' is not a folder of its own; name one"),
        (("--set", "cache="), "radedit: cache '.' is not a folder of its own; name one"),
        (("--set", "unet=nowhere"), "weights 'nowhere': this is neither a folder nor a Hub id"),
    ],
)
def test_a_setting_that_cannot_be_is_status_2_before_anything_is_asked(
    root, tmp_path, monkeypatch, settings, more, message
):
    """Trap 35."""
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("a file")
    given = {word.split("=")[0] for word in more if "=" in word}
    pairs = zip(settings[::2], settings[1::2], strict=True)
    kept = tuple(word for pair in pairs if pair[1].split("=")[0] not in given for word in pair)
    status, _, err = run(*verify(root, kept, *more, "--out", "work"))
    assert (status, message in err) == (2, True), err
    assert not list(Path().glob("work/*.jsonl"))


def test_other_settings_or_shams_do_not_go_on_from_records(root, settings, tmp_path):
    once = ("--out", tmp_path, "--limit", 1, "--set", f"cache={tmp_path / 'edits'}")
    assert run(*verify(root, settings, *once))[0] == 0
    status, _, err = run(*verify(root, settings, *once, "--shams", 1))
    assert status == 2
    assert "was made with another number of sham edits (2); go on with as many, or write" in err
    status, _, err = run(*verify(root, settings, *once, "--set", "guidance=3"))
    assert status == 2
    assert "go on with the same, or write the records elsewhere" in err
    (line,) = (tmp_path / "vindr_cxr-test-phantom_qwen-direct.jsonl").read_text().splitlines()
    assert json.loads(line)["index"] == 0
