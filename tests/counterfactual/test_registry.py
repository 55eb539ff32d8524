"""Editors are found by name, another package's too, and bad names and settings are said to be so."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

from medfocus_bench.counterfactual import registry
from medfocus_bench.counterfactual.editors import EditorError
from medfocus_bench.counterfactual.registry import load_editor


def test_settings_may_be_given_as_text():
    editor = load_editor("radedit", steps="100", guidance="5", cache="somewhere", allow_unpinned="true")
    assert (editor.steps, editor.guidance, editor.cache) == (100, 5.0, Path("somewhere"))
    assert editor.allow_unpinned is True


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("photoshop", {}, r"no editor 'photoshop'; there are .*inpainting, radedit"),
        ("radedit", {"step": 3}, r"radedit has no setting 'step'; it has .*steps"),
        ("radedit", {"steps": "many"}, r"radedit: setting steps: .*integer"),
        ("inpainting", {"seed": 1}, r"inpainting has no setting 'seed'; it has normals"),
    ],
)
def test_an_unknown_name_or_setting_is_an_error_that_names_it(name, settings, says):
    """Trap 35."""
    with pytest.raises(EditorError, match=says):
        load_editor(name, **settings)


@dataclass(frozen=True)
class Blackout:
    """A stranger's editor."""

    name = "blackout"
    version = "3"
    level: int = 0

    def redraw(self, question, edit, region, seed):
        return question.image * 0 + self.level


class NoEditor:
    name = "none"


def test_a_strangers_editor_is_loaded_and_what_is_none_is_refused(monkeypatch):
    entries = [
        metadata.EntryPoint("blackout", f"{__name__}:Blackout", registry.GROUP),
        metadata.EntryPoint("none", f"{__name__}:NoEditor", registry.GROUP),
        metadata.EntryPoint("lost", "not_installed_anywhere:Editor", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    assert load_editor("blackout", level="7") == Blackout(7)
    with pytest.raises(EditorError, match="none: is not an editor: it has no version, redraw"):
        load_editor("none")
    with pytest.raises(EditorError, match="lost needs not_installed_anywhere"):
        load_editor("lost")
