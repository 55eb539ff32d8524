"""A checkpoint answers alike in every layout of the Hub, whatever classes its files name."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from medfocus_bench.data.questions import prompt
from medfocus_bench.lvlm.adapter import frame_picture
from medfocus_bench.lvlm.families import Family
from medfocus_bench.lvlm.families.gemma3 import Gemma3
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.phantom.render import Patient, render
from tests.lvlm.conftest import EVERY_FAMILY, picture
from tests.lvlm.hub_layout import LAYOUTS, lay_out

QUESTION = prompt("nodule", "direct")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_a_folder_as_on_the_hub_answers_as_the_same_weights_saved_today(
    checkpoint, open_lvlm, tmp_path, name, layout
):
    folder = lay_out(checkpoint(name), tmp_path / "hub", layout)
    assert not (folder / "processor_config.json").exists() or name not in ("phantom_qwen", "tiny_paligemma")
    theirs, ours = load_lvlm(folder), open_lvlm(name)
    image = render(Patient.sample((16, 0))).image
    read = [lvlm.encode(image, QUESTION, "Yes.") for lvlm in (theirs, ours)]
    assert (read[0].ids == read[1].ids).all()
    assert (read[0].pixel_values == read[1].pixel_values).all()
    assert theirs.chat_format.special == ours.chat_format.special
    written, expected = (lvlm.generate(image, QUESTION, max_new_tokens=4) for lvlm in (theirs, ours))
    assert written.ids == expected.ids
    assert written.log_odds == pytest.approx(expected.log_odds, abs=1e-4)
    scores = [lvlm.log_probs([image], QUESTION, "No.") for lvlm in (theirs, ours)]
    assert np.abs(scores[0] - scores[1]).max() < 1e-4


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_pictures_are_resized_by_pil_whatever_else_is_installed(open_lvlm, name):
    """Torchvision resizes by other arithmetic: with it there, `AutoProcessor` would take that."""
    pictures = open_lvlm(name).processor.image_processor
    assert pictures.backend == "pil"
    assert type(pictures).__name__.endswith("Pil")


@pytest.mark.parametrize("name", ["phantom_gemma", "tiny_paligemma", "tiny_idefics3", "tiny_llava"])
def test_a_question_gets_the_tokens_that_the_librarys_own_choice_gives(checkpoint, open_lvlm, tmp_path, name):
    """Qwen2.5-VL's is held against the library's where torchvision lets that load."""
    lvlm = open_lvlm(name)
    given = {"text": [lvlm.prompt(QUESTION)], "images": [[frame_picture(picture(1), 224)]]}
    given |= {"return_tensors": "pt", **lvlm.family.image_options}
    library = AutoProcessor.from_pretrained(lay_out(checkpoint(name), tmp_path / "hub", "published"))
    theirs, ours = library(**given), lvlm.processor(**given)
    assert set(theirs) == set(ours)
    for key in set(theirs) - {"pixel_values"}:
        assert torch.equal(theirs[key], ours[key]), key
    assert (theirs["pixel_values"] - ours["pixel_values"]).abs().mean() < 0.01


CUTS = {
    "tiny_idefics3": ("do_image_splitting", {"size": {"longest_edge": 224}}),
    "tiny_smolvlm": ("do_image_splitting", {"size": {"longest_edge": 224}}),
    "tiny_internvl": ("crop_to_patches", {"min_patches": 1, "max_patches": 4}),
}
"""The setting that cuts a picture into several, and what it needs to do so with one of 224 x 448 pixels."""


@pytest.mark.parametrize("name", CUTS)
def test_a_picture_is_one_and_batches_are_padded_on_the_left_whatever_the_files_say(
    checkpoint, tmp_path, name
):
    switch, more = CUTS[name]
    folders = {on: shutil.copytree(checkpoint(name), tmp_path / str(on)) for on in (True, False)}
    for on, folder in folders.items():
        change(folder / "processor_config.json", "image_processor", {switch: on, **more})
        change(folder / "tokenizer_config.json", None, {"padding_side": "right" if on else "left"})
    theirs, ours = (load_lvlm(folder, framing="native") for folder in folders.values())
    image = render(Patient.sample((16, 0))).image[:112]
    read = [lvlm.encode(image, QUESTION, "Yes.") for lvlm in (theirs, ours)]
    assert torch.equal(read[0].ids, read[1].ids)
    assert torch.equal(read[0].pixel_values, read[1].pixel_values)
    questions = [QUESTION, prompt("pleural effusion", "reasoning")]
    said = [lvlm.respond([image, image], questions, max_new_tokens=4) for lvlm in (theirs, ours)]
    assert said[0] == said[1]


def change(file, part, settings):
    """Add settings to a JSON file, or to a part of it."""
    held = json.loads(file.read_text())
    (held if part is None else held[part]).update(settings)
    file.write_text(json.dumps(held))


def test_a_family_that_names_no_processor_gets_the_one_of_the_files_and_pil(checkpoint):
    class Another(Gemma3):
        processor = Family.processor

    processor = Another().processor(checkpoint("phantom_gemma"), {})
    assert type(processor).__name__ == "Gemma3Processor"
    assert processor.image_processor.backend == "pil"
    assert processor.chat_template
