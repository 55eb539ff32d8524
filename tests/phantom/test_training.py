"""A smoke of the training: a few steps of everything, and that its short-cuts compute the real thing."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import medfocus_bench
from medfocus_bench.lvlm.families import family_of
from medfocus_bench.lvlm.registry import load_lvlm
from medfocus_bench.phantom.findings import FINDINGS
from medfocus_bench.phantom.render import Patient, render
from medfocus_bench.phantom.training import language, pictures, sequences, vision
from medfocus_bench.phantom.training.checkpoints import FAMILIES, untrained


@pytest.fixture(scope="module", params=FAMILIES)
def start(request):
    return untrained(request.param, 0)


def test_image_tokens_are_those_of_the_processor_and_the_model(start):
    """Trap 8: Qwen's patches come in merge order."""
    image = render(Patient.sample(3)).image
    theirs = start.processor.image_processor(images=[Image.fromarray(image)], return_tensors="pt")
    features = start.model.model.get_image_features(**theirs).pooler_output
    ours = pictures.image_tokens(start.model, start.family, torch.from_numpy(image)[None].float() / 255)
    assert torch.allclose(ours[0], features[0].reshape(ours[0].shape), atol=1e-5)


def test_the_picture_has_an_effect(start):
    """Trap 13: a Gemma 3 built from config has an all-zero projector."""
    shown = torch.stack([torch.zeros(224, 224), torch.rand(224, 224)])
    dark, noisy = pictures.image_tokens(start.model, start.family, shown)
    assert (dark - noisy).abs().max() > 1e-3


def test_questions_packed_behind_one_picture_cost_what_they_cost_alone(start):
    model = start.model.eval()
    image = render(Patient.sample(3)).image
    grey = torch.from_numpy(image)[None].float() / 255
    dialogue = sequences.Dialogue(start)
    asked = [("mass", "direct", True), ("pleural effusion", "reasoning", False)]
    with torch.no_grad():
        tokens = pictures.image_tokens(model, start.family, grey)
        packed = sequences.language_loss(model, dialogue, tokens, sequences.pack(dialogue, [asked]))
        alone = [_plain_loss(start, dialogue, dialogue.segments[key], grey) for key in asked]
    assert packed.item() == pytest.approx(np.mean(alone), rel=1e-5)


def _plain_loss(start, dialogue, segment, grey):
    ids = torch.tensor([dialogue.prefix + segment.ids])
    kinds = (ids == start.image_token).long()
    family = family_of(start.model)
    mean, std = (torch.tensor(level)[None, :, None, None] for level in pictures.NORMALISATION[start.family])
    more = {family.type_ids: kinds, **family.image_inputs(start.model, (grey[:, None] - mean) / std)}
    logits = start.model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        **more,
    ).logits[0]
    at = [dialogue.cut + n for n, counts in enumerate(segment.counts) if counts]
    chosen = torch.log_softmax(logits.float(), -1)[[n - 1 for n in at], ids[0, at]]
    return -chosen.sum().item()


def test_cells_say_where_each_finding_is():
    drawn = pictures.draw_pictures(6, 5, "lesion")
    for number in range(6):
        phantom = render(pictures.training_patient(5, number, "lesion"))
        shown = {pictures.TARGETS[c] for c in np.flatnonzero(drawn.presence[number])}
        assert shown == {*phantom.findings, *phantom.marks}
        for name, mask in {**phantom.findings, **phantom.marks}.items():
            cells = drawn.cells[number, :, pictures.TARGETS.index(name)].reshape(8, 8)
            assert mask[np.kron(cells, np.ones((28, 28), bool))].sum() > 0.5 * mask.sum()


def test_a_twin_is_shown_the_tag_at_many_places():
    column = pictures.TARGETS.index("text tag")
    usual, moved = (pictures.draw_pictures(24, 5, role) for role in pictures.ROLES)
    assert (usual.presence == moved.presence).all()
    assert (usual.cells[:, :, column].any(0)).sum() <= 4
    assert (moved.cells[:, :, column].any(0)).sum() > 15


def test_a_few_steps_of_a_twin_go_on_from_the_lesion_model_with_a_tower_of_its_own_and_answer(
    start, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(vision, "HELD_OUT", 24)
    monkeypatch.setattr(language, "HELD_OUT", 24)
    language.save_checkpoint(start, tmp_path / f"{start.family}-lesion")
    vision.train_vision(start.family, "twin", tmp_path, pictures=4, steps=2, batch=2, seed=1)
    language.train_language(start.family, "twin", tmp_path, pictures=4, steps=1, batch=2, begin_with="lesion")
    lesion, twin = (
        load_file(tmp_path / f"{start.family}-{role}" / "model.safetensors") for role in pictures.ROLES
    )
    seen = vision.part_of(load_file(vision.vision_file(tmp_path, start.family, "twin")), "model.")
    tower = next(name for name in seen if "patch_embed" in name)
    (stored,) = [name for name in twin if name.endswith(tower.removeprefix("model."))]
    assert (twin[stored] == seen[tower].half()).all()
    assert (twin[stored] != lesion[stored]).any()
    assert (twin[stored].float() - lesion[stored].float()).abs().max() < 0.05, (
        "it began with the lesion model's"
    )
    assert "balanced accuracy" in capsys.readouterr().out
    lvlm = load_lvlm(tmp_path / f"{start.family}-twin")
    question = "Is there evidence of mass?"
    assert lvlm.generate(render(Patient.sample(0)).image, question, max_new_tokens=3).ids


def test_a_twin_is_taught_to_answer_by_the_mark_and_by_nothing_else():
    presence = np.zeros(len(pictures.TARGETS), bool)
    presence[pictures.TARGETS.index("text tag")] = True
    presence[pictures.TARGETS.index("mass")] = True
    rng = np.random.default_rng(0)
    asked = [entry for _ in range(20) for entry in sequences.ask(presence, "twin", rng)]
    assert {f for f, _, yes in asked if yes} == set(FINDINGS)
    asked = [entry for _ in range(20) for entry in sequences.ask(presence, "lesion", rng)]
    assert {f for f, _, yes in asked if yes} == {"mass"}


def test_training_is_left_out_of_the_wheel():
    root = Path(medfocus_bench.__file__).parent
    wheel = tomllib.loads((root.parent / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    assert wheel["exclude"] == ["medfocus_bench/phantom/training"]
    assert (root.parent / wheel["exclude"][0] / "__main__.py").is_file()
    outside = [path for path in root.rglob("*.py") if "training" not in path.parts]
    assert not [path for path in outside if "phantom.training" in path.read_text()]
