"""The ranking under other constants: the standard one is that of evaluate; what says nothing stays at 0."""

from __future__ import annotations

import numpy as np
import pytest

from medfocus_bench import Attribution
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.evaluate import evaluate
from medfocus_bench.evaluation.score import score
from medfocus_bench.leaderboard.sensitivity import (
    RIMS,
    SIGMAS,
    VARIANTS,
    Sensitivity,
    sensitivity,
    sensitivity_tables,
    variant_scores,
)

from ..cli.running import run
from .conftest import Entry, blurred, noisy, oracle, shifted, small_track, write_entry

METHODS = {
    "first": Entry("concept", lambda sample: sample.boxes, kind="boxes"),
    "second": Entry("gradient", blurred),
    "third": Entry("attention", shifted),
    "fourth": Entry("other", noisy(3.0)),
}
STANDARD = VARIANTS.index((10 / 224, 1 / 16, "exact"))


@pytest.fixture(scope="module")
def track():
    return small_track()


@pytest.fixture(scope="module")
def folders(track, tmp_path_factory):
    folder = tmp_path_factory.mktemp("submissions")
    return [write_entry(folder / name, entry, track) for name, entry in METHODS.items()]


def test_the_constants_are_those_of_the_standard_half_and_half_as_much_again():
    assert [round(224 * sigma, 9) for sigma in SIGMAS] == [5, 10, 15]
    assert [round(224 * rim, 9) for rim in RIMS] == [7, 14, 21]
    assert len(set(VARIANTS)) == 27


def test_the_standard_variant_is_evidence_ap(track):
    for sample in track.samples[::20]:
        attribution = Attribution(sample.sample_id, saliency=shifted(sample))
        found = variant_scores(attribution, sample)
        assert found[STANDARD] == score(attribution, sample, names=["evidence_ap"])["evidence_ap"]


def test_the_truth_is_at_one_and_nothing_at_zero_under_every_variant_that_takes_chance_off(track):
    sample = track.samples[0]
    whole = [[0, 0, sample.width, sample.height]]
    corrected = np.array([chance == "exact" for *_, chance in VARIANTS])
    truth = variant_scores(Attribution(saliency=oracle(sample)), sample)
    assert truth.min() > 0.9
    nothing = variant_scores(Attribution(boxes=whole), sample)
    assert (nothing[corrected] == 0).all()
    assert (nothing[[chance == "none" for *_, chance in VARIANTS]] > 0).all()
    assert not variant_scores(None, sample).any()
    assert not variant_scores(Attribution(saliency=np.ones((4, 4))), sample).any()


def test_the_rankings_are_of_macro_means_over_the_same_samples(track, folders):
    found = sensitivity(folders, track)
    assert (found.samples, found.methods) == (len(track.samples), sorted(METHODS))
    standard = found.variants[STANDARD]
    assert (standard.sigma, standard.rim, standard.tau, standard.swapped) == (10, 14, 1.0, [])
    for folder in folders:
        report = evaluate(folder, track, nulls=False, resamples=20)
        assert standard.scores[folder.name] == pytest.approx(report.headline["evidence_ap"].mean)
    for one in found.variants:
        assert one.tau == pytest.approx(1 - 2 * len(one.swapped) / 6)
    taus, scores = sensitivity_tables(found)
    assert len(taus.rows) == 9
    assert [row.cells[0] for row in scores.rows] == sorted(METHODS, key=lambda name: -standard.scores[name])


def test_a_limit_takes_the_first_samples_of_each_lvlm_and_split(track, folders):
    assert sensitivity(folders[2:], track, limit=2).samples == 8


def test_submissions_of_different_parts_and_a_single_one_are_refused(track, folders, tmp_path):
    part = write_entry(tmp_path / "part", Entry("other", oracle, modes=("direct",)), track)
    with pytest.raises(InputError, match="covers another part of the benchmark"):
        sensitivity([*folders, part], track, limit=1)
    with pytest.raises(InputError, match="a ranking needs two submissions"):
        sensitivity(folders[:1], track)


def test_the_command_prints_the_table(folders):
    words = ("reproduce", "sensitivity", "--submissions", folders[0].parent, "--limit", 1)
    status, shown, error = run(*words)
    assert status == 0, error
    assert "Kendall's tau with the standard ranking, 4 methods" in shown
    status, shown, _ = run(*words, "--format", "json")
    assert len(Sensitivity.model_validate_json(shown).variants) == 27
    status, _, error = run(*words, "--results", folders[0].parent)
    assert status == 2
    assert "--results does not go with sensitivity" in error


def test_the_command_refuses_a_folder_that_is_not_there(tmp_path):
    status, _, error = run("reproduce", "sensitivity", "--submissions", tmp_path / "nowhere")
    assert (status, len(error.splitlines())) == (2, 1), error
    assert "nowhere: is not a folder" in error
