"""`lvlm check` on the command line."""

from __future__ import annotations

import json
import shutil

import pytest

from medfocus_bench.attribution.conformance import ALL_CHECKS
from medfocus_bench.cli import lvlm
from medfocus_bench.lvlm.conformance.result import CheckResult
from medfocus_bench.phantom import PHANTOM_LVLMS

from .running import refused, run


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """A checkpoint whose template writes the start token twice, as one finds them."""
    folder = shutil.copytree(PHANTOM_LVLMS["phantom_gemma"], tmp_path_factory.mktemp("lvlm") / "twice")
    template = folder / "chat_template.jinja"
    template.write_text("{{ bos_token }}" + template.read_text())
    return folder


SAID = "the prompt has the start token '<bos>' (id 2) twice in a row"


def test_a_check_that_fails_is_the_exit_status_and_says_what_is_wrong(twice):
    """A check that passes is played in tests/test_docs.py."""
    status, shown, _ = run("lvlm", "check", twice)
    assert status == 1
    (line,) = (line for line in shown.splitlines() if line.startswith("FAILED"))
    assert line.split(maxsplit=2)[1:] == ["prompt", SAID]
    assert shown.splitlines()[0] == "twice (gemma3, float32): 12 passed, 1 failed"


def test_a_document_has_every_check(twice):
    status, shown, _ = run("lvlm", "check", twice, "--format", "json")
    document = json.loads(shown)
    assert status == 1
    assert [document[name] for name in ("lvlm", "model_type", "dtype")] == ["twice", "gemma3", "float32"]
    assert [check["name"] for check in document["checks"]] == list(ALL_CHECKS)
    assert [check["sentence"] for check in document["checks"] if check["outcome"] == "failed"] == [SAID]


def test_a_source_that_cannot_be_loaded_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert "no family of LVLMs fits models of type 'llama'" in refused("lvlm", "check", tmp_path)
    assert "no LVLM 'nowhere'" in refused("lvlm", "check", "nowhere")


def test_a_table_of_markdown_has_a_row_for_each_check(capsys):
    results = [CheckResult("passed", "all of it", "picture"), CheckResult("failed", "a flip", "positions")]
    lvlm._show({"lvlm": "mine", "model_type": "gemma3", "dtype": "float32"}, results, "markdown")
    title, _, _, _, *rows = capsys.readouterr().out.splitlines()
    assert title == "### mine (gemma3, float32): 1 passed, 1 failed"
    assert rows == ["| picture | passed | all of it |", "| positions | failed | a flip |"]
