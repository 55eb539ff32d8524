"""The arithmetic that carries measurements at two depths to whole models."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.realsize.architectures import ARCHITECTURES
from tests.realsize.counted import Counter
from tests.realsize.extrapolation import (
    Counted,
    Measured,
    blocks_table,
    card,
    cost,
    costs,
    needs_table,
    table,
)
from tests.realsize.vocabularies import last_merge


def linear(blocks, vision_blocks):
    return 0.5 + 0.25 * blocks + 0.125 * vision_blocks


def line(blocks, vision_blocks, label="lrp", **more):
    own = {"before": 3.0, "peak": 3.0 + linear(blocks, vision_blocks), "cpu_seconds": 2.0 * blocks}
    counts = {"forward": 1, "backward": 1, "not_finite": 0, "diagnostics": {"conservation": 0.9}}
    where = {"model": "qwen2.5-vl-3b", "label": label, "blocks": blocks, "vision_blocks": vision_blocks}
    return Measured.of(where | own | counts | more)


def test_three_depths_give_what_is_fixed_and_what_a_block_of_either_kind_takes():
    found = cost([(b, v, linear(b, v)) for b, v in ((2, 1), (4, 1), (2, 3))])
    assert found is not None
    assert (found.fixed, found.per_block, found.per_vision_block) == pytest.approx((0.5, 0.25, 0.125))
    assert found.at(36, 32) == pytest.approx(linear(36, 32))


def test_with_one_depth_of_the_tower_it_keeps_nothing_and_with_one_of_the_decoder_there_is_no_cost():
    found = cost([(2, 1, 1.0), (4, 1, 2.0)])
    assert found is not None
    assert (found.fixed, found.per_block, found.per_vision_block) == (0.0, 0.5, 0.0)
    assert cost([(2, 1, 1.0), (2, 3, 2.0), (4, 2, 9.0)]) is None


def test_memory_that_falls_with_depth_is_noise():
    found = cost([(2, 1, 1.0), (4, 1, 0.9)])
    assert found is not None
    assert (found.at(2, 1), found.at(36, 32)) == (1.0, 1.0)


def test_a_card_holds_what_leaves_room_for_its_own():
    assert [card(gib) for gib in (23, 23.5, 47, 79, 79.5)] == ["24", "48", "48", "80", "none"]


def test_whole_models_alone_are_held_against_cards():
    whole = {"blocks": 36, "vision_blocks": 32, "model": "qwen2.5-vl-3b", "weights": 7.0}
    cut = whole | {"blocks": 2}
    found = needs_table([Counted(label="lrp", extra=20.0, **whole), Counted(label="rise", extra=1.0, **cut)])
    assert found.splitlines()[2:] == [
        "| weights alone | 7.0 |  |  |  |  |",
        "| `lrp` | 27.0 (48) |  |  |  |  |",
    ]
    against = blocks_table([line(2, 1), line(4, 1)], [Counted(label="lrp", extra=9.875, **whole)])
    assert against.splitlines()[2] == ("| qwen2.5-vl-3b | `lrp` | 0.62 | 0.25 | 0.00 | 9.62 | 9.88 | 2.0 |")


def test_lines_of_other_models_and_methods_are_kept_apart():
    lines = [line(2, 1), line(4, 1), line(2, 1, "rise"), line(4, 1, model="gemma-3-4b")]
    assert list(costs(lines, "qwen2.5-vl-3b")) == ["lrp"]
    assert costs(lines, "qwen2.5-vl-3b", seconds=True)["lrp"].per_block == 2.0
    assert costs(lines, "gemma-3-4b") == {}
    first = table(lines).splitlines()[3]
    assert "| 2 + 1 | `lrp` | 1 + 1 | 4 | 4.0 | 4.12 | 1.12 | 0 | conservation 0.900 |" in first


def test_the_architecture_of_3b_has_the_published_number_of_parameters():
    of = ARCHITECTURES["qwen2.5-vl-3b"]
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(of.config(of.blocks, of.vision_blocks))
    assert sum(weight.numel() for weight in model.parameters()) == 3_754_622_976


def test_tensors_without_numbers_are_counted_while_they_live_and_integers_are_real():
    with Counter() as counter:
        made = torch.ones(2**20)
        assert counter.now == 2**22
        doubled, view = made * 2, made[:4]
        del doubled
        assert (counter.now, counter.most) == (2**22, 2**23)
        del made
        assert counter.now == 2**22  # the view holds it
        del view
        assert counter.now == 0
        assert (torch.arange(5) + 1).sum() == 15


def test_a_byte_pair_is_taken_apart_where_it_was_merged_last():
    ranks = {b"a": 0, b"b": 1, b"c": 2, b"ab": 3, b"abc": 4, b"bc": 5}
    assert last_merge(b"abc", 4, ranks) == (b"ab", b"c")
    assert last_merge(b"ab", 3, ranks) == (b"a", b"b")
