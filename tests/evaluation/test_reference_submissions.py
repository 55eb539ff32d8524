"""Dependence and contrast of the reference submissions, and of null controls beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medfocus_bench import Attribution, load_benchmark
from medfocus_bench.evaluation.derived_splits import contrast_on, dependence_on
from medfocus_bench.evaluation.protocol import Settings
from medfocus_bench.submission.reader import open_submission

SUBMISSIONS = Path(__file__).parents[2] / "submissions"
SETTINGS = Settings(resamples=1000)


@pytest.fixture(scope="module")
def phantom():
    return load_benchmark("phantom")


@pytest.fixture(scope="module")
def ranked_part(phantom):
    return phantom.part((), ["direct", "reasoning"])


def find_in(name):
    return open_submission(SUBMISSIONS / name).attribution


@pytest.mark.parametrize("name", ["lrp", "occlusion"])
def test_methods_that_read_the_model_lose_what_they_find_with_a_random_decoder(phantom, ranked_part, name):
    found = dependence_on(phantom, ranked_part, find_in(name), SETTINGS, nulls=False)
    assert found.attributed == found.questions == 160
    assert found.model_dependence.mean >= 0.6
    assert found.ranked


def test_the_plain_lens_of_the_token_activation_map_does_not_read_the_answer(phantom, ranked_part):
    found = dependence_on(phantom, ranked_part, find_in("token-activation-map"), SETTINGS, nulls=False)
    assert found.trained.mean > 0.5
    assert found.model_dependence.high < 0.5
    assert found.rank_correlation.low > 0.5
    assert not found.ranked
    assert "with a random decoder, too" in found.reason


@pytest.mark.parametrize("name", ["lrp", "relative-attention", "occlusion"])
def test_methods_that_read_the_model_tell_a_lesion_model_from_its_twin(phantom, name):
    found = contrast_on(phantom, ("phantom",), find_in(name), SETTINGS, nulls=False)
    assert found.attributed == found.questions
    assert found.contrast.low > 0
    assert min(pair.mean for pair in found.pairs.values()) > 0


def test_null_controls_and_a_detector_of_the_picture_do_not(phantom):
    by_id = {sample.sample_id: sample for sample in phantom.derived.contrast}

    def detector(name: str) -> Attribution:
        """Whatever changes where the finding is taken out of the picture: it asks no model."""
        sample = by_id[name]
        change = np.abs(sample.image.astype(np.float32) - sample.counterfactual)
        return Attribution(name, saliency=change)

    found = contrast_on(phantom, ("phantom",), detector, SETTINGS)
    for one in (found.contrast, *found.nulls.values()):
        assert one.low <= 0 <= one.high
    assert set(found.nulls) == {"image-edges", "mean-map"}
