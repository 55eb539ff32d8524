"""`data export`, `data push`, `data diff`, and `-b medfocus/cxr-causal`, as they are typed."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from medfocus_bench.data.hub.repository import DATASET

from ...cli.running import run
from .conftest import TOKEN, environment, publish
from .embedded import TOTAL, VERSION
from .rows import write_pointers, write_small
from .test_export import contents


def test_export_says_what_it_wrote_and_info_shows_every_config_of_it(tmp_path, plain):
    pointers = write_pointers(tmp_path / "pointers", ["imagenome"])
    status, out, err = run("data", "export", tmp_path / "out", "--from", plain, "--pointers", pointers)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "phantom, direct: 6 rows, 4 samples, 1 shard"
    assert re.fullmatch(r"phantom: fingerprint [0-9a-f]{64}", lines[3])
    assert "imagenome, reasoning: 5 rows, 5 samples, 1 shard" in lines
    assert lines[-1] == f"{tmp_path / 'out'}: medfocus/cxr-causal 1.0.0"

    status, shown, err = run("info", tmp_path / "out")
    assert (status, err) == (0, "")
    assert re.search(r"^configs: +phantom$", shown, re.MULTILINE)
    assert "a dataset repository of 2 configs; above stands phantom, its default" in shown
    assert re.search(r"^phantom: complete; fingerprint [0-9a-f]{64}$", shown, re.MULTILINE)
    assert re.search(r"^imagenome: pointers, .*; fingerprint [0-9a-f]{64}$", shown, re.MULTILINE)
    assert "  reasoning: 5 samples in 5 rows" in shown
    assert "repository" not in run("info", plain)[1]


def test_a_version_that_is_none_is_said_before_rows_are_read(tmp_path):
    words = ("data", "export", tmp_path / "out", "--from", tmp_path / "nowhere", "--version", "1")
    status, _, err = run(*words)
    assert (status, "version '1' is not major.minor.patch" in err) == (2, True), err


def test_export_refuses_in_one_line(tmp_path, plain):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").touch()
    status, out, err = run("data", "export", tmp_path / "out", "--from", plain)
    assert (status, out) == (2, "")
    assert err == f"medfocus-bench: {tmp_path / 'out'}: exists and is not an empty folder; give a new one\n"


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_push_prints_what_changed(hub, owner, small, tmp_path):
    words = ["data", "push", small, "--repo", DATASET]
    status, out, err = run(*words, "--dry-run")
    assert (status, err) == (0, "")
    assert out.startswith("medfocus/cxr-causal: would be created\n+ CHANGELOG.md\n")
    assert out.endswith("0 files are there already\nmedfocus/cxr-causal: nothing was sent\n")
    assert not hub.repos
    status, out, err = run(*words, "--private", "--revision", "v1.0.0")
    assert (status, err) == (0, "")
    assert [line[2:] for line in out.splitlines() if line.startswith("+ ")] == sorted(contents(small))
    commit = hub.repos[DATASET].commits[-1].sha
    assert out.endswith(f"medfocus/cxr-causal: v1.0.0 is commit {commit}\n")
    assert hub.repos[DATASET].private
    status, out, _ = run(*words)
    assert (status, out) == (
        0,
        f"{len(contents(small))} files are there already\nmedfocus/cxr-causal: v1.0.0 is published already\n",
    )


def test_push_without_a_token_is_bad_input(hub, small):
    status, out, err = run("data", "push", small, "--repo", DATASET)
    assert (status, out) == (2, "")
    assert err.startswith("medfocus-bench: hf://medfocus/cxr-causal: needs a token; log in with `hf auth")
    assert err.count("\n") == 1


def test_diff_exits_as_diff_does(tmp_path, plain):
    newer = write_small(tmp_path / "newer", "1.1.0", rows=30)
    same = "samples: 0 added, 0 removed, 0 changed, 14 the same\n"
    assert run("data", "diff", plain, plain) == (0, same, "")
    status, out, _ = run("data", "diff", plain, newer)
    assert status == 1
    lines = out.splitlines()
    assert lines[0] == "+ phantom-00006-phantom_qwen-reasoning"
    assert lines[10] == "  and 38 more added; --all shows them"
    assert "~ phantom-00006-phantom_qwen-direct: split" in lines
    assert lines[-1] == "samples: 48 added, 0 removed, 2 changed (split), 12 the same"
    _, out, _ = run("data", "diff", plain, newer, "--all")
    assert sum(line.startswith("+ ") for line in out.splitlines()) == 48
    assert run("data", "diff", plain, tmp_path / "none")[0] == 2


def test_the_published_name_is_a_benchmark(hub, small):
    publish(hub, small)
    status, out, err = run("info", DATASET)
    assert (status, err) == (0, "")
    assert "name:        medfocus/cxr-causal\nversion:     1.0.0\n" in out
    status, _, err = run("info", f"{DATASET}@v3.0.0")
    assert status == 2
    assert err.startswith("medfocus-bench: hf://medfocus/cxr-causal@v3.0.0: has no such revision; give a tag")


def test_a_licensed_config_needs_its_boxes_attached(hub, small):
    publish(hub, small)
    status, _, err = run("info", f"{DATASET}/imagenome")
    assert status == 2
    assert "is a pointer to a licensed source, without boxes" in err


@pytest.mark.filterwarnings("default::medfocus_bench.errors.OfflineWarning")
def test_offline_the_command_line_says_in_one_line_what_it_uses(no_hub):
    status, out, err = run("info", DATASET)
    assert status == 0
    assert err == (
        "medfocus-bench: hf://medfocus/cxr-causal: the Hub is out of reach; "
        f"the embedded version {VERSION} is used\n"
    )
    assert f"samples:     {TOTAL}" in out


def alone(settings, *words):
    """Status, stdout and stderr of the command in a process of its own, where nothing is imported yet."""
    command = [sys.executable, "-m", "medfocus_bench", *map(str, words)]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_process_of_its_own_works_offline_and_says_one_line(hub, tmp_path, closed_url):
    settings = environment(hub, tmp_path / "home", HF_ENDPOINT=closed_url)
    status, out, err = alone(settings, "info", DATASET)
    assert status == 0, err
    assert f"version:     {VERSION}" in out
    assert err.endswith(f"the Hub is out of reach; the embedded version {VERSION} is used\n")
    assert err.count("\n") == 1


def test_a_process_of_its_own_exports_and_pushes_without_noise(hub, plain, tmp_path):
    settings = environment(hub, tmp_path / "home", HF_TOKEN=TOKEN)
    out = tmp_path / "out"
    assert alone(settings, "data", "export", out, "--from", plain)[::2] == (0, "")
    assert alone(settings, "data", "push", out, "--repo", DATASET)[::2] == (0, "")
    assert hub.repos[DATASET].tags
    assert alone(settings, "info", f"{DATASET}@v1.0.0")[::2] == (0, "")
