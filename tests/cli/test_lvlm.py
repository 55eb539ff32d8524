"""`lvlm check` on the command line."""

from __future__ import annotations

import json
import shutil

from medfocus_bench.attribution.conformance import ALL_CHECKS
from medfocus_bench.phantom import PHANTOM_LVLMS

from .running import refused, run


def test_a_document_has_every_check(tmp_path):
    status, shown, _ = run("lvlm", "check", "phantom_qwen", "--format", "json")
    document = json.loads(shown)
    assert status == 0
    assert (document["lvlm"], document["model_type"], document["dtype"]) == (
        *("phantom_qwen", "qwen2_5_vl", "float32"),
    )
    assert [check["name"] for check in document["checks"]] == list(ALL_CHECKS)
    assert {check["outcome"] for check in document["checks"]} == {"passed"}


def test_a_check_that_fails_is_the_exit_status_and_says_what_is_wrong(tmp_path):
    """A template that writes the start token twice, as one finds them."""
    folder = shutil.copytree(PHANTOM_LVLMS["phantom_gemma"], tmp_path / "twice")
    template = folder / "chat_template.jinja"
    template.write_text("{{ bos_token }}" + template.read_text())
    status, shown, _ = run("lvlm", "check", folder)
    assert status == 1
    (line,) = (line for line in shown.splitlines() if line.startswith("FAILED"))
    assert line.split(maxsplit=2)[1:] == [
        "prompt",
        "the prompt has the start token '<bos>' (id 2) twice in a row",
    ]
    assert shown.splitlines()[0].startswith("twice (gemma3, float32): 12 passed, 1 failed")
    _, shown, _ = run("lvlm", "check", folder, "--format", "markdown")
    assert "| prompt | failed | the prompt has the start token" in shown


def test_a_source_that_cannot_be_loaded_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert "no family of LVLMs fits models of type 'llama'" in refused("lvlm", "check", tmp_path)
    assert "no LVLM 'nowhere'" in refused("lvlm", "check", "nowhere")
