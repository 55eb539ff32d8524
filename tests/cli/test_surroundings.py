"""Commands where something around them is missing: an extra, a reader of their output, a home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medfocus_bench.errors import EXTRA_OF, missing_extra

from ..submission.documents import write_small_benchmark

COMMANDS: dict[str, str] = {
    "attribute": "attribute --method grad-cam --lvlm phantom_qwen -b phantom --split dev --limit 1 --out run",
    "attribute --method all": "attribute --method all --lvlm phantom_qwen -b phantom --split dev --limit 1 "
    "--out all --set prompting-medsam.detector=phantom_owlv2 --set prompting-medsam.segmenter=phantom_sam",
    "attribute --image": "attribute --method occlusion --lvlm phantom_qwen --image p.png --question 'Mass?' "
    "--out look",
    "tune": "tune grad-cam --lvlm phantom_qwen -b phantom --limit 1 --out tuned.json",
    "pack": "pack run --partial -o packed",
    "status": "status run",
    "evaluate": "evaluate null -b bench --no-nulls --resamples 100",
    "compare": "compare null null:centre-box -b bench --resamples 100",
    "validate": "validate null -b bench",
    "info": "info phantom",
    "info on the Hub": "info hf://nobody/nothing",
    "null": "null whole-image -b bench --out null",
    "schema": "schema report",
    "verify": "verify --lvlm phantom_qwen --limit 1 --out records",
    "verify --source": "verify --source nih --lvlm phantom_qwen --root . --editor radedit --out records",
    "data build": "data build phantom --out track --work records --workers 1",
    "data check": "data check phantom",
    "data sheet": "data sheet findings --out sheet.png",
    "data planted": "data planted --questions 2",
    "data accuracy": "data accuracy --each 2",
    "data doctor": "data doctor --root . --source vindr_cxr",
    "data export": "data export exported",
    "data push": "data push exported --repo nobody/nothing --dry-run",
    "data diff": "data diff phantom phantom",
    "lvlm check": "lvlm check phantom_qwen",
    "reference build": "reference build pool --out pool.safetensors",
    "ablate": "ablate --lvlm phantom_qwen -b phantom --limit 1 --out ablation",
    "reproduce": "reproduce table4 -b phantom --lvlm phantom_qwen --limit 1 --no-run --out paper",
    "submit": "submit null",
    "leaderboard build": "leaderboard build --no-gallery --out site",
    "leaderboard rebuild": "leaderboard rebuild --check",
    "leaderboard log": "leaderboard log",
}
"""The least that each command can be asked for."""

ASKED: dict[str, tuple[str, ...]] = {
    "attribution": (
        *("null", "attribute", "attribute --method all", "attribute --image", "tune", "verify", "data build"),
        *("data check", "data planted", "data accuracy", "ablate", "reproduce", "validate", "data sheet"),
        "lvlm check",
    ),
    "dicom": ("data doctor", "verify --source"),
    "radedit": ("verify --source",),
    "medfocus": ("attribute", "reference build", "reproduce"),
    "hub": ("data export", "data push", "data diff", "info on the Hub"),
    "core": ("null", *COMMANDS),
}
"""The commands that could miss an extra; in the core, all of them, with `null` before those that read it."""

BLOCKED = {
    "attribution": ("torch", "transformers", "tokenizers"),
    "dicom": ("pydicom", "pylibjpeg", "libjpeg", "openjpeg"),
    "radedit": ("diffusers",),
    "medfocus": ("ot", "skimage", "SimpleITK"),
    "hub": ("datasets",),
}
BLOCKED["core"] = (*EXTRA_OF, "libjpeg", "openjpeg")

RUNNER = """
import contextlib, io, json, shlex, sys, traceback

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

blocked, commands = json.loads(sys.argv[1])
sys.meta_path.insert(0, Blocked())
from medfocus_bench.cli.main import main
said = {}
for name, words in commands.items():
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["medfocus-bench", *shlex.split(words)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            status = 0
        except SystemExit as stopped:
            status = stopped.code or 0
        except BaseException:
            status, _ = -1, traceback.print_exc()
    said[name] = [status, out.getvalue()[-2000:], err.getvalue()[-2000:]]
sys.__stdout__.write(json.dumps(said))
"""


def run_all(folder: Path, blocked: tuple[str, ...], commands: dict[str, str], **more: str) -> dict:
    """The status, output and errors of each command, one after the other in a process of their own."""
    from PIL import Image

    Image.new("L", (64, 64), 90).save(folder / "p.png")
    write_small_benchmark(folder / "bench")
    environment = os.environ | {"HF_HUB_OFFLINE": "1"} | more
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps([blocked, commands])],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("extra", BLOCKED)
def test_without_an_extra_every_command_works_or_names_it(extra, tmp_path):
    """Outside the repository, too."""
    said = run_all(tmp_path, BLOCKED[extra], {name: COMMANDS[name] for name in ASKED[extra]})
    for name, (status, _, error) in said.items():
        assert status in (0, 1, 2), (name, status, error)
        assert "Traceback" not in error, (name, error)
        if "No module named" in error or "install" in error:
            assert status == 2, (name, error)
            named = f"medfocus-bench[{extra}]" if extra != "core" else "medfocus-bench["
            assert named in error, (name, error)


def test_every_library_of_an_extra_is_one_that_is_named():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"]) - {"dev"}
    assert set(EXTRA_OF.values()) <= extras
    assert missing_extra(ModuleNotFoundError(name="torch.nn")) == (
        "this needs torch: install the extra with pip install 'medfocus-bench[attribution]'"
    )
    assert missing_extra(ModuleNotFoundError(name="my_method")) is None


@pytest.mark.parametrize(
    ("words", "both"),
    [(("info", "phantom"), False), (("schema", "report"), True), (("attribute", "--help"), True)],
)
def test_a_reader_that_has_gone_ends_a_command_without_a_word(words, both, tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "medfocus_bench", *words],
        stdout=write,
        stderr=write if both else subprocess.PIPE,
        cwd=tmp_path,
        text=True,
        check=False,
    )
    os.close(write)
    assert done.returncode == 1
    assert (done.stderr or "") == ""


def test_a_home_that_cannot_be_written_costs_no_command(tmp_path, monkeypatch):
    """A file stands where the home would be, which stops root, too."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "home").write_text("")
    words = {name: COMMANDS[name] for name in ("null", "evaluate", "data export", "info", "data sheet")}
    words |= {"evaluate": words["evaluate"].replace(" --no-nulls", ""), "info": "info medfocus/cxr-causal"}
    said = run_all(tmp_path, (), words, HOME=str(tmp_path / "home" / "me"))
    for status, _, error in said.values():
        assert status == 0, error
        assert "Traceback" not in error
    assert "the scores of the null controls are not kept" in " ".join(said["evaluate"][2].split())
