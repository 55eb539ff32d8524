"""Memory that runs out, numbers that are not finite, answers of nothing, pictures that vanish."""

from __future__ import annotations

import json
import shutil
from weakref import WeakKeyDictionary

import pytest
import torch
from safetensors.torch import load_file, save_file

from medfocus_bench.data.manifest import Attachment
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.lvlm import fitting
from medfocus_bench.phantom import PHANTOM_LVLMS
from medfocus_bench.runs.records import read_failures
from tests.cli.running import run

from . import drivers
from .conftest import SAMPLES, few_rows
from .methods import FIGURES, HERE

HUNGRY, WIDE, REMOVING = (f"{HERE}:{name}" for name in ("Hungry", "Wide", "Removing"))

DOES_NOT_FIT = f"hungry does not fit into the memory of cpu, one picture at a time ({FIGURES})"


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    """How much memory a method needs is known of no earlier test."""
    monkeypatch.setattr(fitting, "_FITS", WeakKeyDictionary())


def reasons(out, method):
    return [failure.reason for failure in read_failures(out / method)]


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "chest.png"
    path.write_bytes(few_rows(1)[0]["image"]["bytes"])
    return ("attribute", "--image", path, "--question", "Is there a mass?", "--lvlm", "phantom_qwen")


# -- memory ------------------------------------------------------------------------------------------------


def test_one_picture_that_does_not_fit_is_a_failure_with_the_figures_and_costs_no_other_method(
    words, tmp_path
):
    out = tmp_path / "run"
    given = (*words, "--method", f"{HUNGRY},{WIDE}", "--out", out, "--set")
    status, _, error = run(*given, "hungry.fits=0")
    assert (status, len(reasons(out, "hungry"))) == (0, SAMPLES)
    assert all(reason.startswith(DOES_NOT_FIT) for reason in reasons(out, "hungry"))
    assert f"{SAMPLES} of {SAMPLES} samples failed, the first with: {DOES_NOT_FIT}" in error
    assert len(drivers.content(out)) == SAMPLES
    assert run(*given, "hungry.fits=1")[0] == 0
    assert len(drivers.content(out)) == 2 * SAMPLES


def test_on_a_picture_of_ones_own_the_other_methods_keep_theirs(picture, tmp_path):
    given = (*picture, "--method", f"{HUNGRY},{WIDE}", "--set", "hungry.fits=0", "--out", tmp_path / "look")
    status, _, error = run(*given)
    assert status == 0
    assert error.splitlines()[-1].startswith(f"hungry: {DOES_NOT_FIT}")
    found = json.loads((tmp_path / "look" / "explanations.json").read_text())["explanations"]
    assert found[0]["error"].startswith(DOES_NOT_FIT)
    assert found[1]["error"] is None
    assert (tmp_path / "look" / "wide.png").exists()


# -- numbers and answers -----------------------------------------------------------------------------------


def test_a_model_of_nan_leaves_a_failure_for_each_sample_and_the_mended_one_finishes(words, tmp_path):
    folder = shutil.copytree(PHANTOM_LVLMS["phantom_qwen"], tmp_path / "phantom_qwen")
    weights = load_file(folder / "model.safetensors")
    sound = (folder / "model.safetensors").read_bytes()
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], torch.nan)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    out = tmp_path / "run"
    given = (
        *words,
        "--lvlm",
        folder,
        "--set",
        "occlusion.cells=2",
        "--method",
        "grad-cam,occlusion",
        "--out",
        out,
    )
    assert run(*given)[0] == 2
    for method in ("grad-cam", "occlusion"):
        assert len(reasons(out, method)) == SAMPLES
        assert all("are not finite numbers" in reason for reason in reasons(out, method))
    verify = ("verify", "--lvlm", folder, "--limit", 2, "--out", tmp_path / "records")
    run(*verify)
    (failed,) = (tmp_path / "records").glob("*.failures")
    assert "are not finite" in failed.read_text()
    (folder / "model.safetensors").write_bytes(sound)
    assert run(*given)[0] == 0
    assert len(drivers.content(out)) == 2 * SAMPLES
    assert run(*verify)[0] == 0
    (records,) = (tmp_path / "records").glob("*.jsonl")
    assert len(records.read_text().splitlines()) == 2


# -- pictures ----------------------------------------------------------------------------------------------


@pytest.fixture
def of_files(tmp_path):
    """A benchmark whose pictures are files of the user's own."""
    rows = few_rows()
    root = tmp_path / "pictures"
    root.mkdir()
    for number, row in enumerate(rows):
        (root / f"{number}.png").write_bytes(row["image"]["bytes"])
    rows = [{**row, "image": None, "image_ref": f"{n}.png"} for n, row in enumerate(rows)]
    write_benchmark(tmp_path / "b", {"direct": rows}, name="b", version="1", attachment=Attachment(root))
    return tmp_path / "b"


@pytest.mark.parametrize(
    ("text", "said"), [("", "is not there"), ("nothing", "is not a PNG, JPEG or DICOM picture")]
)
def test_a_picture_that_vanishes_or_is_damaged_in_the_middle_is_a_failure_of_its_sample(
    of_files, tmp_path, text, said
):
    path = tmp_path / "pictures" / "4.png"
    given = ("attribute", "-b", of_files, "--split", "direct", "--method", f"{REMOVING},{WIDE}", "--out")
    given = (*given, tmp_path / "run", "--set", f"removing.file={path}", "--set", f"removing.text={text}")
    assert run(*given)[0] == 0
    for method in ("removing", "wide"):
        (reason,) = reasons(tmp_path / "run", method)
        assert reason.startswith(f"{path}: ")
        assert said in reason
    path.write_bytes(path.with_name("4.png.saved").read_bytes())
    assert run(*given)[0] == 0
    assert not reasons(tmp_path / "run", "wide")
    assert len(drivers.content(tmp_path / "run")) == 2 * SAMPLES
