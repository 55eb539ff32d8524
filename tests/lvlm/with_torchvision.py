"""Only where torchvision is installed: `make test-torchvision` names this file, `make test` does not."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    Qwen2_5_VLProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.utils import is_torchvision_available

from medfocus_bench.data.questions import prompt
from tests.lvlm.conftest import EVERY_FAMILY
from tests.lvlm.hub_layout import lay_out

QUESTION = prompt("nodule", "direct")
CUT_BY_THE_FILES = ("tiny_llava_next", "tiny_llava_onevision", "tiny_mllama")
"""Whose pictures the library would cut into tiles: no option of a call keeps it from that."""


def shown(height: int, width: int) -> Image.Image:
    """Smooth stripes: resized grain would differ between any two ways of resizing."""
    rows, columns = torch.arange(height)[:, None] / 9, torch.arange(width)[None] / 13
    grey = ((rows + columns).sin() * 100 + 128).to(torch.uint8)
    return Image.fromarray(grey.numpy()).convert("RGB")


def test_the_library_sees_torchvision():
    assert is_torchvision_available()


@pytest.mark.parametrize("name", [name for name in EVERY_FAMILY if name not in CUT_BY_THE_FILES])
def test_left_to_the_library_pictures_would_be_resized_by_torchvision(checkpoint, open_lvlm, tmp_path, name):
    """A grey level more or less here and there, which moves log-odds: so the processor is built with PIL."""
    folder = lay_out(checkpoint(name), tmp_path / "hub", "published")
    pictures = AutoImageProcessor.from_pretrained(folder)
    assert pictures.backend == "torchvision"
    options = {"return_tensors": "pt", **open_lvlm(name).family.image_options}
    theirs = pictures(images=[shown(500, 380)], **options)["pixel_values"]
    ours = open_lvlm(name).processor.image_processor(images=[shown(500, 380)], **options)["pixel_values"]
    assert theirs.shape == ours.shape
    assert (theirs - ours).abs().mean() < 0.02
    assert (theirs - ours).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "kind", "video"),
    [
        ("tiny_qwen2_vl", Qwen2VLProcessor, Qwen2VLVideoProcessor),
        ("phantom_qwen", Qwen2_5_VLProcessor, Qwen2VLVideoProcessor),
        ("tiny_qwen3_vl", Qwen3VLProcessor, Qwen3VLVideoProcessor),
    ],
)
def test_qwens_processor_without_its_video_part_gives_what_the_whole_one_gives(
    checkpoint, open_lvlm, tmp_path, name, kind, video
):
    """The library's own class, which torchvision lets load: the same tokens, type ids and grids."""
    folder = lay_out(checkpoint(name), tmp_path / "hub", "published")
    ours = open_lvlm(name).processor
    whole = kind(
        image_processor=AutoImageProcessor.from_pretrained(folder, backend="pil"),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        video_processor=video(),
        chat_template=ours.chat_template,
    )
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}
    text = whole.apply_chat_template([turn], add_generation_prompt=True)
    assert text == ours.apply_chat_template([turn], add_generation_prompt=True)
    given = {"text": [text], "images": [[shown(180, 150)]], "return_tensors": "pt"}
    theirs, own = whole(**given), ours(**given)
    assert set(theirs) == set(own)
    for key, values in theirs.items():
        assert torch.equal(values, own[key]), key
