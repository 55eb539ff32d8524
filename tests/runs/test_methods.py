"""From what a user writes to the methods of a run."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from medfocus_bench.attribution.registry import list_methods, load_method
from medfocus_bench.errors import InputError
from medfocus_bench.runs.methods import choose_methods, hyperparameters

from .methods import HERE, Counting


def test_all_stands_for_the_installed_methods_each_once():
    names = [method.metadata.name for method in choose_methods(["all", "occlusion", "whole-image"])]
    assert names[-1] == "null-whole-image"
    assert sorted(names[:-1]) == sorted(load_method(name).name for name in list_methods())


def test_settings_go_to_all_methods_or_to_one():
    occlusion, rise = choose_methods(
        ["occlusion", "rise"], ["cells=4", "rise.masks=16", "occlusion.fill=0.5"]
    )
    assert occlusion.settings == {"cells": 4, "fill": 0.5}
    assert rise.settings == {"cells": 4, "masks": 16}
    expected = {"cells": 4, "masks": 16, "keep": 0.5, "fill": 0.0, "soft": False}
    assert rise.metadata.hyperparameters == expected


@pytest.mark.parametrize("name", ["whole-image", "null:whole-image", "null-whole-image"])
def test_a_null_control_goes_by_the_name_that_runs_show_too(name):
    (method,) = choose_methods([name])
    assert (method.source, method.metadata.name) == ("null:whole-image", "null-whole-image")


@pytest.mark.parametrize(
    ("names", "sets", "message"),
    [
        (["occlusio"], [], "no method 'occlusio'; there are .*occlusion.*rise"),
        (["occlusio"], [], "rise.*, the null controls whole-image, centre-box.*, or give module:Class"),
        (["null-occlusion"], [], "no method 'null-occlusion'; there are .*occlusion"),
        (["null:occlusion"], [], "no method 'null:occlusion'; there are .*occlusion"),
        ([""], [], "no method is named; there are .*occlusion.*whole-image"),
        (["nowhere:Class"], [], "nowhere:Class: cannot be imported"),
        ([f"{HERE}:Nothing"], [], "cannot be imported"),
        ([f"{HERE}:HERE"], [], "is not an attribution method"),
        ([f"{HERE}:Unnamed"], [], "cannot be submitted: /name"),
        (["occlusion"], ["cels=4"], "no setting 'cels', only cells, fill"),
        (["occlusion", "rise"], ["masks=4"], "occlusion has no setting 'masks'"),
        (["occlusion"], ["cells=many"], "setting cells: .*integer"),
        (["occlusion"], ["fill=NaN"], "finite"),
        (["occlusion"], ["fill=-inf"], "finite"),
        (["occlusion"], ["cells"], "write field=value"),
        (["occlusion"], ["=4"], "write field=value"),
        (["occlusion"], ["rise.cells=4"], "no method 'rise' in this run, only occlusion"),
        (["whole-image"], ["cells=4"], "a null control has no settings"),
        (["whole-image"], ["null-whole-image.cells=4"], "a null control has no settings"),
    ],
)
def test_what_is_no_method_or_setting_is_refused(names, sets, message):
    with pytest.raises(InputError, match=message):
        choose_methods(names, sets)


def test_two_methods_of_one_name_are_refused(monkeypatch):
    monkeypatch.setattr(Counting, "name", "occlusion")
    with pytest.raises(InputError, match="are both the method occlusion; name one"):
        choose_methods(["occlusion", f"{HERE}:Counting"])


@dataclass(frozen=True)
class Inner:
    depth: int = 3


@dataclass(frozen=True)
class Odd:
    pair: tuple[int, int] = (1, 2)
    inner: Inner = Inner()
    missing: float | None = None
    flags: tuple[bool, ...] = (True,)


def test_hyperparameters_fit_the_schema_of_a_submission():
    assert hyperparameters(Odd()) == {
        "pair": [1, 2],
        "inner": '{"depth": 3}',
        "missing": None,
        "flags": "[true]",
    }
