"""Attributions are a submission's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from medfocus_bench.attribution.attribution import Attribution
from medfocus_bench.evaluation.nulls import NULL_CONTROLS
from medfocus_bench.leaderboard.review.duplicates import copied_from
from medfocus_bench.submission.reader import inspect_submission, open_submission
from medfocus_bench.submission.writer import SubmissionWriter

from ..cli.running import run
from .flow import edit


def problems_of(folder, benchmark) -> list[str]:
    return copied_from(inspect_submission(folder, benchmark), folder.parent, benchmark)


@pytest.fixture
def copy(original, tmp_path) -> Path:
    """A submission that holds what noisy does, which lies beside it."""
    folder = tmp_path / "submissions" / "blurred"
    for target in (folder.with_name("noisy"), folder):
        shutil.copytree(original[0] / "repository" / "submissions" / "noisy", target)
    edit(folder, lambda document: document["method"].update(name="blurred", display_name="Blurred"))
    return folder


def test_the_attributions_of_another_folder_are_refused(copy, original):
    results = original[0] / "repository" / "leaderboard" / "results"
    status, _, errors = run("submit", copy, "-b", original[1].folder, "--results", results)
    assert status == 2
    assert f"{copy}: holds the same attributions as submissions/noisy; submit your own" in errors


def written_anew(folder, benchmark, change, split=None) -> None:
    """Writes a submission again, its attributions changed."""
    old = open_submission(folder, benchmark)
    part = benchmark if split is None else benchmark.select(benchmark.configs, [split])
    found = [old.attribution(sample.sample_id) for sample in part.samples]
    given = {"submitters": old.document.submitters, "overwrite": True}
    with SubmissionWriter(folder, old.document.method, part, **given) as writer:
        for number, attribution in enumerate(found):
            writer.add(change(number, attribution))


def test_a_copy_is_found_whatever_its_type_and_order_and_part(copy, benchmark):
    def as_float32(number, attribution):
        return Attribution(attribution.sample_id, saliency=attribution.saliency.astype(np.float32))

    written_anew(copy, benchmark, as_float32, split=benchmark.splits[0])
    assert len(problems_of(copy, benchmark)) == 1


def test_maps_that_differ_in_one_pixel_are_no_copy(copy, benchmark):
    def touched(number, attribution):
        saliency = attribution.saliency.copy()
        saliency[0, 0] += number == 5
        return Attribution(attribution.sample_id, saliency=saliency)

    written_anew(copy, benchmark, touched)
    assert problems_of(copy, benchmark) == []


def test_a_copy_of_boxes_is_found_and_no_explanation_is_nobodys(copy, benchmark):
    def boxes(number, attribution, given=(0, 0, 40, 40)):
        return Attribution(attribution.sample_id, boxes=[given] if given else [])

    noisy = copy.with_name("noisy")
    for folder in (copy, noisy):
        written_anew(folder, benchmark, boxes)
    assert len(problems_of(copy, benchmark)) == 1
    written_anew(copy, benchmark, lambda n, a: boxes(n, a, (0, 0, 40, 41) if n == 5 else (0, 0, 40, 40)))
    assert problems_of(copy, benchmark) == []
    for folder in (copy, noisy):
        written_anew(folder, benchmark, lambda n, a: boxes(n, a, ()))
    assert problems_of(copy, benchmark) == []


@pytest.mark.parametrize("control", ["centre-box", "mean-map", "random-map"])
def test_a_null_control_under_another_name_is_refused(copy, benchmark, control):
    """A rank for looking at no model; one box moved, it is whatever its scores say."""
    drawn = {a.sample_id: a for _, a in NULL_CONTROLS[control].make(benchmark.samples, 0)}
    written_anew(copy, benchmark, lambda n, a: drawn[a.sample_id], split=benchmark.splits[0])
    (problem,) = problems_of(copy, benchmark)
    assert f"holds the same attributions as the null control {control};" in problem

    def moved(number, attribution):
        whole = [[0, 0, 224, 224]]
        return (
            Attribution(attribution.sample_id, boxes=whole) if number == 5 else drawn[attribution.sample_id]
        )

    written_anew(copy, benchmark, moved, split=benchmark.splits[0])
    assert problems_of(copy, benchmark) == []


@pytest.mark.parametrize("text", ["{}", "[]", "x", '{"attributions": 1}'])
def test_a_neighbour_that_is_unsound_is_no_original(copy, benchmark, text):
    (copy.with_name("noisy") / "submission.json").write_text(text)
    (copy.with_name("noisy") / "maps.safetensors").write_text(text)
    assert problems_of(copy, benchmark) == []
