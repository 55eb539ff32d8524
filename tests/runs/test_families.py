"""Methods that assume of a model what does not hold are refused before anything is computed."""

from __future__ import annotations

import pytest

from medfocus_bench.attribution.registry import load_method
from medfocus_bench.data.resolve import load_benchmark
from medfocus_bench.data.writing import write_benchmark
from medfocus_bench.errors import InputError
from medfocus_bench.lvlm import registry
from medfocus_bench.runs import methods as run_methods
from medfocus_bench.runs.attribute import attribute
from medfocus_bench.runs.methods import check_methods, choose_methods
from medfocus_bench.runs.picture import UserImage, explain_picture
from medfocus_bench.runs.tune import tune
from tests.lvlm.checkpoints import save_mllama

from .conftest import track_rows

REFUSED = "attention-head, lrp cannot explain crossing: Llama 3.2 Vision does not read a picture as tokens"
NAMES = ["occlusion", "attention-head", "rise", "lrp"]


@pytest.fixture(scope="module")
def crossing(tmp_path_factory):
    """A tiny model whose decoder looks at the picture by cross-attention, and a benchmark of its answers."""
    root = tmp_path_factory.mktemp("families")
    folder = save_mllama(root / "crossing")
    rows = [row | {"lvlm": "crossing"} for row in track_rows("dev") if row["group"] == "grounded"][:2]
    write_benchmark(root / "bench", {"dev": rows}, name="crossed", version="1")
    return str(folder), load_benchmark(root / "bench")


@pytest.fixture
def never_loaded(monkeypatch):
    def load_lvlm(*args, **options):
        raise AssertionError("an LVLM was loaded")

    monkeypatch.setattr(registry, "load_lvlm", load_lvlm)
    registry._LAST.clear()


def test_a_run_names_all_methods_that_are_refused_and_writes_nothing(crossing, never_loaded, tmp_path):
    source, benchmark = crossing
    with pytest.raises(InputError, match=REFUSED) as caught:
        attribute(NAMES, benchmark, tmp_path / "run", lvlms=source)
    assert str(caught.value).count("Llama 3.2 Vision") == 1
    assert not (tmp_path / "run").exists()


def test_the_command_line_asks_before_it_reads_the_benchmark(crossing, never_loaded):
    with pytest.raises(InputError, match=REFUSED):
        check_methods(choose_methods(NAMES), [crossing[0]], "cpu")
    check_methods(choose_methods(["occlusion", "rise"]), [crossing[0]], "cpu")


def test_a_model_whose_type_is_known_when_it_is_loaded_is_refused_then(crossing, monkeypatch, tmp_path):
    source, benchmark = crossing
    monkeypatch.setattr(run_methods, "model_type_of", lambda source: None)
    with pytest.raises(InputError, match=REFUSED):
        attribute(NAMES, benchmark, tmp_path / "run", lvlms=source)
    assert not list((tmp_path / "run").rglob("*.jsonl"))


@pytest.mark.parametrize("known", [True, False])
def test_settings_are_not_tuned_for_a_model_that_the_method_cannot_explain(crossing, monkeypatch, known):
    source, benchmark = crossing
    if not known:
        monkeypatch.setattr(run_methods, "model_type_of", lambda source: None)
    with pytest.raises(InputError, match="attention-head cannot explain crossing"):
        tune("attention-head", source, benchmark, mode=benchmark.samples[0].mode)


def test_methods_that_need_no_image_tokens_run_and_are_tuned(crossing, tmp_path):
    source, benchmark = crossing
    specs = choose_methods(["occlusion", "rise"], ["cells=2", "rise.masks=4"])
    run = attribute(specs, benchmark, tmp_path / "run", lvlms=source)
    assert [(outcome.new, len(outcome.reasons)) for outcome in run.outcomes] == [(2, 0), (2, 0)]


def test_of_a_picture_each_refused_method_says_why_once_and_the_others_go_on(crossing):
    source, benchmark = crossing
    lvlm = registry.load_lvlm(source)
    picture = UserImage("picture.png", benchmark.samples[0].image)
    specs = choose_methods(["occlusion", "lrp"], ["occlusion.cells=2"])
    found = explain_picture(picture, "Is there a mass?", lvlm, specs, response="Yes.")
    assert [one.error is None for one in found.explanations] == [True, False]
    assert found.explanations[1].error.startswith("lrp cannot explain crossing: Llama 3.2 Vision")


def test_a_family_that_breaks_nothing_refuses_nothing():
    check_methods(choose_methods(["all"]), ["phantom_qwen", "phantom_gemma"], "cpu")
    assert load_method("lrp").assumes
