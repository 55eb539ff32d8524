"""docs/other-libraries.md as printed: its blocks of Python one after the other, as a reader runs them."""

from __future__ import annotations

import re
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medfocus_bench import load_method

torch.set_num_threads(1)
PAGE = Path(__file__).parents[1] / "docs" / "other-libraries.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
FIRST, CAPTUM, METHOD, GRAD_CAM, QUANTUS = range(5)


@pytest.fixture(scope="module")
def read() -> dict[str, Any]:
    """The names of the page up to the method of one's own; the first blocks are the others' ground."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in BLOCKS[: METHOD + 1]:
        _play(block, names)
    return names


def _play(block: str, names: dict[str, Any]) -> None:
    exec(compile(block, str(PAGE), "exec"), names)


def _or_skip(library: str) -> None:
    """Skip, with the words of the import, where a library is not installed or lacks one that it imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import_module(library)
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"{library} cannot be imported ({error}): see docs/other-libraries.md")


def test_captums_attributions_are_of_the_module_and_score(read):
    for name in ("gradients", "shap", "ablation"):
        assert read[name].shape == read["pixels"].shape
        assert read[name].any(), name
    ours, sample = load_method("integrated-gradients", steps=16), read["sample"]
    found = ours.attribute(read["lvlm"], sample.image, sample.question, sample.response).saliency
    theirs = read["gradients"][0].sum(0).abs().numpy()
    assert np.corrcoef(found.ravel(), theirs.ravel())[0, 1] > 0.999
    assert found.max() == pytest.approx(theirs.max(), rel=1e-2)


def test_a_token_that_is_ablated_is_one_value_and_the_largest_is_the_largest_drop(read):
    module, pixels, black = read["module"], read["pixels"], read["black"]
    mask, values = module.feature_mask(), read["ablation"]
    chosen = int(mask[0, 0].flatten()[values[0, 0].abs().argmax()])
    assert len(values[:, :1][mask == chosen].unique()) == 1
    with torch.no_grad():
        drop = module(pixels) - module(torch.where(mask == chosen, black, pixels))
    assert values[:, :1][mask == chosen][0] == pytest.approx(float(drop), abs=1e-4)


def test_the_method_of_ones_own_is_counted(read):
    assert read["attribution"].saliency.shape == (224, 224)
    assert read["attribution"].cost.forward_passes == len(read["example"].grid) + 1
    assert read["attribution"].cost.backward_passes == 0


@pytest.mark.filterwarnings("ignore")
def test_pytorch_grad_cam_finds_the_map_of_our_grad_cam(read):
    _or_skip("pytorch_grad_cam")
    names = dict(read)
    _play(BLOCKS[GRAD_CAM], names)
    lvlm, sample = read["lvlm"], read["sample"]
    method = load_method("grad-cam", layer=lvlm.layers // 2)
    ours = method.attribute(lvlm, sample.image, sample.question, sample.response).saliency
    theirs = names["grad_cam"].saliency
    rows, columns = ours.shape
    cells = theirs.reshape(rows, len(theirs) // rows, columns, -1).mean((1, 3))
    assert theirs.shape == (224, 224)
    assert np.corrcoef(cells.ravel(), ours.ravel())[0, 1] > 0.95


@pytest.mark.filterwarnings("ignore")
def test_quantus_scores_an_attribution_with_the_module(read):
    _or_skip("quantus")
    names = dict(read)
    _play(BLOCKS[QUANTUS], names)
    share = names["given"]["a_batch"][0, 0]
    assert -1 <= names["correlation"][0] <= 1
    assert names["correlation"][0] != 0
    assert names["sensitivity"][0] > 0
    assert 0 < names["sparseness"][0] < 1
    mask = read["sample"].mask
    assert names["mass"][0] == pytest.approx(share[mask].sum() / share.sum(), abs=1e-3)
