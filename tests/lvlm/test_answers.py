"""An environment answers as the one whose answers were recorded: newer, or with torchvision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.lvlm.answers import LVLMS, answers

RECORDED = json.loads(Path(__file__).with_name("answers.json").read_text())


@pytest.mark.parametrize("name", LVLMS)
def test_answers_log_odds_and_log_probs_are_those_that_were_recorded(checkpoint, name):
    for found, recorded in zip(answers(name, checkpoint(name)), RECORDED[name], strict=True):
        assert found["text"] == recorded["text"]
        assert found["log_odds"] == pytest.approx(recorded["log_odds"], abs=1e-3)
        assert found["log_probs"] == pytest.approx(recorded["log_probs"], abs=1e-3)
