"""README's table of commands: what stands under "in Python" is there, and takes what the command takes."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import medfocus_bench
from medfocus_bench.evaluation.nulls import write_null
from medfocus_bench.paper import ablate
from medfocus_bench.submission.reader import open_submission

from .data.source_trees import write_nih
from .paper.conftest import few_variants
from .runs.conftest import small as small  # noqa: PLC0414  (a fixture of the runs)
from .toy import write_toy

ROOT = Path(__file__).parents[1]


def python_names() -> list[str]:
    table = (ROOT / "README.md").read_text().split("| in Python, from `medfocus_bench` |")[1].split("\n\n")[0]
    rows = [re.split(r"(?<!\\)\|", line)[3] for line in table.splitlines()[2:]]
    return [name for cell in rows for name in re.findall(r"`([\w.]+)`", cell)]


def found(name: str) -> Any:
    module, _, attribute = f"medfocus_bench.{name}".rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.fixture(scope="module")
def place(tmp_path_factory, small):
    """A folder with all that the commands read, by name: strings, as they are typed."""
    root = tmp_path_factory.mktemp("readme")
    write_toy(root / "toy", patients=8)
    (root / "copies").mkdir()
    write_nih(root / "copies")
    grey = Image.fromarray(np.tile(np.arange(32, dtype=np.uint8), (32, 1)))
    for name in ("images/one.png", "masks/one/left lung.png"):
        (root / "pool" / name).parent.mkdir(parents=True, exist_ok=True)
    grey.save(root / "pool/images/one.png")
    grey.point(lambda level: 255 * (level > 10)).save(root / "pool/masks/one/left lung.png")
    found("attribute")(
        "occlusion", str(small.folder), str(root / "run"), splits="dev", lvlms="phantom_qwen", limit=1
    )
    return root


def refused(call: Callable[..., Any], *given: Any, match: str, **more: Any) -> Any:
    """Call a function that takes minutes with a place or a split that it refuses at once."""
    with pytest.raises(medfocus_bench.InputError, match=match) as error:
        call(*given, **more)
    return error


def noisy(place: Path) -> str:
    return str(place / "toy/submissions/noisy")


CALLS: dict[str, Callable[[Callable[..., Any], Path, str], Any]] = {
    "attribute": lambda call, place, bench: call(
        ["occlusion", "centre-box"], bench, str(place / "more"), splits=["dev"], limit=1
    ),
    "runs.status.run_status": lambda call, place, bench: call(str(place / "run")),
    "runs.tune.tune": lambda call, place, bench: call("grad-cam", "phantom_qwen", bench, limit=1),
    "runs.pack.pack": lambda call, place, bench: call(
        str(place / "run"), str(place / "packed"), submitters=["Ada"], partial=True
    ),
    "medfocus.reference.build_pool": lambda call, place, bench: call(str(place / "pool")),
    "paper.ablate.ablate": lambda call, place, bench: refused(
        call, bench, str(place / "ablation"), splits="nowhere", lvlms="phantom_qwen", match="nowhere"
    ),
    "paper.reproduce.reproduce": lambda call, place, bench: call(
        "table2", bench, str(place / "paper"), run=False
    ),
    "paper.run_plan.plan_run": lambda call, place, bench: call(
        "occlusion", bench, splits="dev", records=str(place / "run"), seconds_per_forward=0.1
    ),
    "attribution.conformance.check_lvlm": lambda call, place, bench: next(
        call(medfocus_bench.load_lvlm("phantom_qwen"))
    ),
    "evaluate": lambda call, place, bench: call(noisy(place), str(place / "toy/benchmark"), resamples=200),
    "runs.faithfulness.faithfulness": lambda call, place, bench: call(
        "null:mean-map", "phantom", str(place / "faithfulness"), samples=1, lvlms="phantom_qwen"
    ),
    "compare": lambda call, place, bench: call(
        [noisy(place), "null:mean-map"], str(place / "toy/benchmark"), resamples=200
    ),
    "validate": lambda call, place, bench: call(noisy(place), str(place / "toy/benchmark")),
    "load_benchmark": lambda call, place, bench: call("phantom"),
    "evaluation.nulls.write_null": lambda call, place, bench: call(
        "whole-image", "phantom", str(place / "null")
    ),
    "phantom.build.verify_phantom": lambda call, place, bench: list(
        call("phantom_qwen", str(place / "records"), [3])
    ),
    "phantom.build.build_track": lambda call, place, bench: refused(
        call, str(place / "toy"), indices=[3], match="toy: "
    ),
    "data.doctor.examine": lambda call, place, bench: call("nih", str(place / "copies")),
    "data.attach.attach_folder": lambda call, place, bench: call(
        str(place / "pointers"), str(place / "copies"), str(place / "attached")
    ),
    "data.hub.publish.export": lambda call, place, bench: call(str(place / "export")),
    "load_samples": lambda call, place, bench: call("phantom", split="dev"),
}
"""How each is called: with names and paths as text, as they stand on the command line."""


def test_every_python_name_of_the_table_has_a_call_here():
    assert python_names() == list(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_the_python_name_takes_what_its_command_takes(name, place, small, monkeypatch):
    if name == "paper.ablate.ablate":
        monkeypatch.setattr(ablate, "variants", lambda *given: few_variants())
    if name == "data.attach.attach_folder":
        write_pointers(place)
    result = CALLS[name](found(name), place, str(small.folder))
    assert result == [] if name == "validate" else result is not None


def write_pointers(place: Path) -> None:
    """The questions of the copies as pointers, without boxes and sizes."""
    from medfocus_bench.data import attach
    from medfocus_bench.data.sources import open_source

    questions = open_source("nih").annotations(place / "copies", "test").questions
    rows = [
        {
            "sample_id": f"nih-{question.index:05d}-phantom_qwen-direct",
            "source": "nih",
            "index": question.index,
            "lvlm": "phantom_qwen",
            "mode": "direct",
            "finding": question.finding,
        }
        for question in questions
    ]
    attach.write_pointers(rows, place / "pointers")


@pytest.mark.parametrize(
    "call",
    [
        lambda name, out: medfocus_bench.load_benchmark(name),
        lambda name, out: medfocus_bench.validate(out, name),
        lambda name, out: write_null("whole-image", name, out),
        lambda name, out: open_submission(out, name),
        lambda name, out: medfocus_bench.evaluate(out, name),
        lambda name, out: medfocus_bench.compare(["null:mean-map", "null:centre-box"], name),
        lambda name, out: found("attribute")(["occlusion"], name, out, splits=["dev"]),
        lambda name, out: found("data.hub.publish.export")(out, name),
        lambda name, out: found("data.hub.diff.difference")(name, "phantom"),
        lambda name, out: medfocus_bench.load_samples(name),
        lambda name, out: medfocus_bench.SubmissionWriter(out, {}, name, submitters="Ada"),
    ],
)
@pytest.mark.parametrize(
    ("name", "meant"),
    [("phanton", "phantom"), ("Phantom", "phantom"), ("medfocus/cxr_causal", "medfocus/cxr-causal")],
)
def test_a_misspelt_benchmark_is_told_the_name_that_was_meant(call, name, meant, tmp_path):
    with pytest.raises(
        medfocus_bench.InputError, match=f"^{name}: is neither a folder .*; did you mean {meant}\\?"
    ):
        call(name, tmp_path / "out")


def test_one_name_is_one_split_and_not_its_letters(small, tmp_path):
    found("attribute")("centre-box", small.folder, tmp_path, splits="dev", lvlms="phantom_gemma")
    assert [path.name for path in (tmp_path / "null-centre-box").glob("*.jsonl")]
