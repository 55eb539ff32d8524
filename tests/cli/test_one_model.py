"""A run of one LVLM, from its records to its scores."""

from __future__ import annotations

import json

import pytest

from medfocus_bench import InputError, compare, evaluate

from ..runs.conftest import small as small  # noqa: PLC0414  (a fixture of the runs)
from .running import run

QUICK = ("--resamples", "200", "--no-nulls")


@pytest.fixture(scope="module")
def packed(small, tmp_path_factory):
    """A run of one of the two LVLMs of a benchmark, as a submission."""
    from medfocus_bench.runs.attribute import attribute
    from medfocus_bench.runs.pack import pack

    folder = tmp_path_factory.mktemp("one")
    attribute("centre-box", small, folder / "run", splits="direct", lvlms="phantom_gemma")
    with pytest.raises(InputError, match=r"direct 4\); .* --partial; that is a run of phantom_gemma alone"):
        pack(folder / "run", folder / "packed")
    pack(folder / "run", folder / "packed", partial=True)
    return folder / "packed"


def test_the_scores_of_one_lvlm_hold_no_zeros_of_the_others(packed, small):
    whole = evaluate(packed, small, nulls=False, resamples=200)
    alone = evaluate(packed, small, nulls=False, resamples=200, lvlms="phantom_gemma")
    assert (whole.counts.samples, whole.counts.missing) == (6, 4)
    assert (alone.counts.samples, alone.counts.missing) == (2, 0)
    for name, score in whole.slice("lvlm", "phantom_gemma").scores.items():
        assert alone.headline[name].mean == pytest.approx(score.mean, abs=1e-12)
    assert whole.provenance.lvlms is None
    assert alone.provenance.lvlms == ["phantom_gemma"]


def test_the_command_says_what_was_scored_and_how_the_zeros_of_the_others_are_left_out(packed, small):
    words = ("evaluate", packed, "-b", small.folder, *QUICK)
    status, shown, error = run(*words)
    assert status == 0
    assert (
        "No sample of phantom_qwen has an attribution, so that all of them score 0; --lvlm phantom_gemma"
        in error
    )
    status, shown, error = run(*words, "--lvlm", "phantom_gemma")
    assert (status, error) == (0, "")
    assert "phantom / direct, of phantom_gemma alone" in " ".join(shown.split())


def test_a_report_of_all_lvlms_is_written_as_before(packed, small):
    _, shown, _ = run("evaluate", packed, "-b", small.folder, *QUICK, "--format", "json")
    assert "lvlms" not in json.loads(shown)["provenance"]


def test_submissions_are_compared_on_the_samples_of_one_lvlm(packed, small):
    found = compare([packed, "null:whole-image"], small, resamples=200, lvlms=["phantom_gemma"])
    alone = evaluate(packed, small, nulls=False, resamples=200, lvlms=["phantom_gemma"])
    assert found.lvlms == ["phantom_gemma"]
    mean = alone.headline["evidence_ap"].mean
    assert found.differences[0].difference.mean == pytest.approx(mean, abs=1e-9)  # the whole image scores 0


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_an_lvlm_that_is_not_covered_is_refused_with_those_that_are(packed, small, command):
    more = ("null:whole-image",) if command == "compare" else ()
    status, _, error = run(command, packed, *more, "-b", small.folder, "--lvlm", "gpt")
    assert status == 2
    assert "no samples of the LVLM 'gpt' in phantom / direct, only of phantom_gemma, phantom_qwen" in error
