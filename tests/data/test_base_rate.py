"""The share that passes the causal filter beside the share that a coin passes."""

from __future__ import annotations

import numpy as np
import pytest

from medfocus_bench.data import medground
from medfocus_bench.data.base_rate import COIN_AT_MOST, Kept, coin_share, yes_share
from medfocus_bench.data.columns import IMAGES
from medfocus_bench.data.rows import group_of
from medfocus_bench.data.sources.registry import installed_sources
from medfocus_bench.paper.published import KEPT


@pytest.mark.parametrize("yes", [0.3, 0.75, 0.95])
def test_a_coin_passes_the_filter_as_often_as_the_formula_says(yes):
    rng = np.random.default_rng(1)
    answered = [
        dict(zip(IMAGES, np.where(said, "Yes.", "No."), strict=True))
        for said in rng.random((20_000, 4)) < yes
    ]
    passed = np.mean([group_of(responses) == "grounded" for responses in answered])
    expected = coin_share(yes)
    assert abs(passed - expected) < 4 * np.sqrt(expected / 20_000)
    assert yes_share(answered) == pytest.approx(yes, abs=0.01)


def test_a_coin_passes_most_at_three_quarters_and_nothing_when_it_always_says_the_same():
    shares = [coin_share(p) for p in np.linspace(0, 1, 1001)]
    assert max(shares) == shares[750] == coin_share(0.75) == COIN_AT_MOST
    assert shares[0] == shares[-1] == 0
    for outside in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="from 0 to 1"):
            coin_share(outside)


def test_answers_without_a_verdict_are_not_yes():
    said = dict(zip(IMAGES, ("Yes", "Unclear", "Yes", "No"), strict=True))
    assert yes_share([said]) == 0.5
    with pytest.raises(ValueError, match="no answers"):
        yes_share([])


def test_a_share_is_held_against_its_own_coin_or_the_luckiest():
    assert Kept(10, 100, yes=0.9).coin == pytest.approx(0.0729)
    assert Kept(10, 100, yes=0.9).is_above_coin
    assert not Kept(10, 100).is_above_coin
    assert Kept(11, 100).is_above_coin


@pytest.mark.parametrize("mode", ["direct", "reasoning"])
def test_sixteen_of_the_eighteen_published_shares_of_a_mode_are_below_the_luckiest_coin(mode):
    expected = {name: source.expected["test"] for name, source in installed_sources().items()}
    cells = {key: Kept(count, expected[key[1]]) for key, count in KEPT.items() if key[0] == mode}
    assert len(cells) == 18
    above = {key[1:] for key, cell in cells.items() if cell.is_above_coin}
    assert above == {("imagenome", "medgemma_4b"), ("imagenome", "medgemma_1_5_4b")}


def test_the_published_records_give_the_same_shares(real_data):
    cells = medground.kept(medground.read_records([real_data / "medground" / "direct.json"]))
    shares = {(source, lvlm): one for (_, source), of in cells.items() for lvlm, one in of.items()}
    assert len(shares) == 18
    assert sum(one.is_above_coin for one in shares.values()) == 2
    assert shares["imagenome", "medgemma_4b"].share == pytest.approx(279 / 1405)
    assert {one.yes for one in shares.values()} == {None}
