"""Records and maps do not depend on the engine, nor on a worker that was lost."""

from __future__ import annotations

import pytest

from medfocus_bench.engine.choose import open_engine
from medfocus_bench.runs.attribute import attribute
from medfocus_bench.runs.methods import choose_methods

from . import drivers
from .conftest import SAMPLES
from .methods import HERE

NAMES = ["grad-cam", "occlusion", f"{HERE}:Dying"]


def explained(bench, folder, engine, deaths):
    place = folder / "place"
    place.mkdir(parents=True)
    sets = ["occlusion.cells=2", f"dying.place={place}", f"dying.deaths={deaths}"]
    result = attribute(choose_methods(NAMES, sets), bench, folder / "run", engine=engine)
    assert [outcome.new for outcome in result.outcomes] == [SAMPLES] * 3
    return drivers.content(folder / "run")


@pytest.fixture(scope="module")
def in_process(bench, tmp_path_factory):
    return explained(bench, tmp_path_factory.mktemp("one"), None, deaths=0)


@pytest.mark.parametrize("name", ["local", "ray"])
def test_every_engine_makes_the_same_records_and_maps_to_the_byte(
    bench, tmp_path, in_process, monkeypatch, name
):
    if name == "ray":
        pytest.importorskip("ray", reason="Ray is not installed: the extra `cluster` brings it")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # or Ray writes a token into the home folder
    with open_engine(name, 2) as engine:
        assert explained(bench, tmp_path, engine, deaths=1) == in_process
