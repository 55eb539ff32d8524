"""RadEdit end to end, with a tiny random model of its classes."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from medfocus_bench.counterfactual.diffusion import DiffusionStack, EditSettings, Task, ddim_scheduler
from medfocus_bench.counterfactual.editors import (
    EDITS,
    EditorError,
    Redrawing,
    counterfactual_sets,
    edited_region,
    editor_label,
)
from medfocus_bench.counterfactual.radedit import TEXT_ENCODER, UNET, VAE, RadEdit
from medfocus_bench.counterfactual.registry import load_editor
from medfocus_bench.data.questions import Question
from medfocus_bench.geometry import Frame
from tests.counterfactual.diffusion_stack import TRAP, WORDS, save_stack, save_text_encoder

from .edits import counterfactual, counterfactuals

SIZE = 64
QUICK = EditSettings(steps=10, guidance=7.5, skip_ratio=0.3)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return save_stack(tmp_path_factory.mktemp("radedit"))


@pytest.fixture(scope="module")
def stack(parts):
    folders = (f"{parts['unet']}/unet", parts["vae"], parts["text_encoder"])
    return DiffusionStack.load(*folders, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def make(parts, stack):
    """Makes an editor of a few steps; `loaded`: with the model that is loaded already."""

    def editor(loaded=True, **more):
        made = load_editor("radedit", **parts | {"size": SIZE, "steps": 5} | more)
        if loaded:
            vars(made)["_stack"] = stack
        return made

    return editor


@pytest.fixture
def editor(make, tmp_path):
    return make(cache=tmp_path / "cache")


def picture(seed=0, shape=(SIZE, SIZE)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def region(x1=16, y1=24, x2=40, y2=48):
    mask = np.zeros((SIZE, SIZE), np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask


def task(prompt="No mass", seed=7, where=None, number=0):
    return Task(picture(number), region() if where is None else where, prompt, seed)


def question(shape=(90, 70), boxes=((20, 30, 50, 60),), index=0):
    return Question("toy", index, "p", "mass", picture(index, shape), np.array(boxes, dtype=np.float64))


def test_what_is_kept_is_the_pictures_own_latent_bit_for_bit(stack):
    """Not one step too noisy, as in the released pipeline."""
    edited, own = stack.edit([task()], QUICK), stack.encode([picture()])
    cells = stack.latent_region([region()]).expand_as(own)
    assert torch.equal(edited[~cells], own[~cells])
    assert (edited[cells] - own[cells]).abs().min() > 0


def test_skipping_every_step_leaves_what_the_autoencoder_makes_of_the_picture(stack):
    nothing = replace(QUICK, skip_ratio=1.0)
    own = stack.encode([picture()])
    assert torch.equal(stack.edit([task()], nothing), own)
    assert np.array_equal(stack.decode(stack.edit([task()], nothing))[0], stack.decode(own)[0])


def test_without_guidance_the_walk_back_is_the_walk_there(stack):
    """The remembered noise leads along the noised pictures to the last, from which one plain step remains."""
    everywhere = np.ones((SIZE, SIZE), np.bool_)
    found = stack.edit([task(prompt="", where=everywhere)], replace(QUICK, guidance=1.0))
    scheduler = ddim_scheduler()
    scheduler.set_timesteps(QUICK.steps)
    levels, own = scheduler.timesteps[QUICK.skipped :], stack.encode([picture()])
    generator = torch.Generator().manual_seed(7)
    for level in levels:
        drawn = torch.randn(own.shape[1:], generator=generator)[None]
        walk = scheduler.add_noise(own, drawn, level)
    with torch.inference_mode():
        predicted = stack.unet(walk, level, encoder_hidden_states=stack.embed([""])).sample
    expected = scheduler.step(predicted, level, walk, eta=0.0).prev_sample
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(stack.edit([task(where=everywhere)], QUICK), expected, atol=1e-2)


def test_an_edit_depends_on_seed_guidance_prompt_and_skipped_steps_alone(stack):
    plain = stack.edit([task()], QUICK)
    assert torch.equal(stack.edit([task()], QUICK), plain)
    for changed in (
        stack.edit([task(seed=8)], QUICK),
        stack.edit([task(prompt="No effusion")], QUICK),
        stack.edit([task()], replace(QUICK, guidance=2.0)),
        stack.edit([task()], replace(QUICK, skip_ratio=0.6)),
    ):
        assert not torch.allclose(plain, changed, atol=1e-3)


def test_a_batch_is_its_edits_one_by_one(stack):
    tasks = [
        task(),
        task(prompt="mass", where=region(0, 0, 9, 9)),
        task(seed=8),
        task(number=1, where=region(40, 8, 64, 30)),
    ]
    together = stack.edit(tasks, QUICK)
    alone = torch.cat([stack.edit([each], QUICK) for each in tasks])
    assert torch.allclose(together, alone, atol=1e-4)


def test_cells_of_the_latents_cover_the_region_and_no_more(stack):
    """Trap 28."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        (x1, x2), (y1, y2) = (np.sort(rng.choice(SIZE + 1, 2, replace=False)) for _ in range(2))
        mask = region(x1, y1, x2, y2)
        cells = stack.latent_region([mask])[0, 0].numpy()
        grown = np.kron(cells, np.ones((8, 8), np.bool_))
        assert grown[mask].all()
        x1, x2, y1, y2 = x1 // 8, -(-x2 // 8), y1 // 8, -(-y2 // 8)
        assert cells.sum() == (x2 - x1) * (y2 - y1)


def test_the_text_encoder_is_the_bert_of_the_published_weights(tmp_path, stack):
    model = save_text_encoder(tmp_path)
    ids = torch.tensor([[2, WORDS.index("no"), WORDS.index("mass"), 3, *[0] * 124]])
    with torch.inference_mode():
        assert torch.allclose(stack.embed(["No mass"]), model.bert(ids)[0], atol=1e-6)


def test_no_code_of_a_repository_is_run(parts, stack):
    """Trap 32."""
    assert (Path(parts["text_encoder"]) / "modeling_cxrbert.py").read_text() == TRAP
    assert type(stack.text_encoder).__module__.startswith("transformers.")
    assert type(stack.tokenizer).__module__.startswith("transformers.")


def test_the_papers_weights_are_pinned_to_commits():
    """Trap 32."""
    for part in (UNET, VAE, TEXT_ENCODER):
        assert re.fullmatch(r"[\w-]+/[\w.-]+@[0-9a-f]{40}", part)
    RadEdit()  # fetches nothing yet


@pytest.mark.parametrize("vae", ["someone/else", "someone/else@main", "someone/else@842b19"])
def test_weights_without_a_commit_need_a_word(vae):
    with pytest.raises(EditorError, match=r"someone/else is not pinned to a commit.*allow_unpinned"):
        load_editor("radedit", vae=vae)
    load_editor("radedit", vae=vae, allow_unpinned=True)


def test_the_defaults_are_the_papers():
    editor = RadEdit()
    assert (editor.steps, editor.guidance, editor.skip_ratio, editor.size) == (200, 7.5, 0.3, 224)
    assert EditSettings(200, 7.5, 0.3).skipped == 60
    assert [editor.prompt(edit, "pleural effusion") for edit in EDITS] == [
        "No pleural effusion",
        "No pleural effusion",
        "No abnormality",
        "pleural effusion",
    ]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"steps": 7}, "steps 7"),
        ({"steps": 0}, "steps 0"),
        ({"size": 100}, "size 100"),
        ({"skip_ratio": 1.5}, "skip_ratio"),
        ({"guidance": float("nan")}, "guidance"),
        ({"batch": 0}, "batch"),
        ({"unet": "no/such/folder"}, "no/such/folder"),
        ({"unet": "../folder"}, r"\.\./folder"),
    ],
)
def test_a_setting_that_makes_no_sense_is_an_error_at_once(settings, names):
    """Trap 35."""
    with pytest.raises(EditorError, match=names):
        load_editor("radedit", **settings)


@pytest.mark.parametrize("settings", [{"dtype": "fp8"}, {"device": "abacus"}])
def test_an_unknown_dtype_or_device_is_an_error_that_names_it(make, settings):
    with pytest.raises(EditorError, match=next(iter(settings.values()))):
        counterfactual(make(loaded=False, **settings), question(), "foreground")


def test_missing_weights_and_wrong_parts_are_errors_that_name_them(make, parts, tmp_path):
    for name in ("text", "vae"):
        shutil.copytree(Path(parts["vae"]).parent / name, tmp_path / name)
    text = tmp_path / "text" / "model.safetensors"
    weights = load_file(text)
    lost = next(name for name in weights if name.startswith("bert.encoder"))
    save_file({k: v for k, v in weights.items() if k != lost}, text, metadata={"format": "pt"})
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    for part, folder, said in (
        ("text_encoder", text.parent, re.escape(lost.removeprefix("bert."))),
        ("vae", tmp_path / "vae", r"vae: holds no config.json with weights"),
        ("vae", parts["text_encoder"], r"cannot be read as AutoencoderKL|lacks the weights"),
    ):
        with pytest.raises(EditorError, match=said):
            counterfactual(make(loaded=False, **{part: str(folder)}), question(), "sham")


def test_values_that_are_not_finite_are_an_error(stack):
    broken = stack.unet.conv_out.bias.detach().clone()
    try:
        stack.unet.conv_out.bias[0] = float("nan")
        with pytest.raises(EditorError, match="not finite"):
            stack.edit([task()], QUICK)
    finally:
        stack.unet.conv_out.bias.copy_(broken)


@pytest.mark.parametrize(
    ("shape", "edit"),
    [((64, 64), "sham"), ((50, 200, 3), "background"), *(((90, 70), edit) for edit in EDITS)],
)
def test_pixels_outside_the_region_are_the_originals_in_the_native_frame(editor, shape, edit):
    """Trap 16."""
    asked = question(shape, boxes=((20.5, 10, 50, 44.2),))
    found = counterfactual(editor, asked, edit)
    touched = edited_region(asked, edit)
    assert found.shape == asked.image.shape
    assert np.array_equal(found[~touched], asked.image[~touched])
    assert (found[touched] != asked.image[touched]).mean() > 0.5


def test_all_pictures_that_are_compared_are_at_the_editors_resolution(editor):
    """Trap 15: an original with more detail than its edits would tell them apart without any finding."""
    asked = question((180, 140), boxes=((40, 60, 100, 120),))
    pictures = counterfactuals(editor, asked, sham_seeds=(0, 1))
    assert {found.shape for found in pictures.values()} == {Frame(140, 180, SIZE).content_size[::-1]}
    resized = Image.fromarray(asked.image).resize((50, 64), Image.Resampling.BICUBIC)
    assert np.array_equal(pictures["original"], np.asarray(resized))
    kept = np.ones((64, 50), np.bool_)
    kept[21:43, 14:36] = False
    for name in ("foreground", "sham", "sham_1"):
        assert np.array_equal(pictures[name][kept], pictures["original"][kept])
    for name in ("background", "background_normal"):
        assert np.array_equal(pictures[name][~kept], pictures["original"][~kept])
    assert not np.array_equal(pictures["sham"], pictures["sham_1"])


def test_the_original_is_what_an_lvlm_of_that_frame_sees_of_the_native_picture(editor):
    from medfocus_bench.lvlm.adapter import frame_picture

    asked = question((180, 141))
    shown = counterfactuals(editor, asked)["original"]
    assert np.array_equal(
        np.asarray(frame_picture(asked.image, SIZE)), np.asarray(frame_picture(shown, SIZE))
    )


def test_several_questions_are_edited_in_batches_and_alike(make):
    asked = [question(index=0), question((64, 64), index=1)]
    wide, narrow = (make(batch=batch) for batch in (8, 1))
    together = counterfactual_sets(wide, asked)
    alone = [counterfactuals(narrow, each) for each in asked]
    for one, other in zip(together, alone, strict=True):
        for name in one:
            assert np.abs(one[name].astype(int) - other[name]).max() <= 1


def test_a_second_run_reads_what_the_first_has_drawn(editor, make, tmp_path):
    first = counterfactuals(editor, question())
    files = sorted((tmp_path / "cache").rglob("*"))
    assert len([path for path in files if path.suffix == ".png"]) == 4
    assert not [path for path in files if path.suffix == ".partial"]
    again = make(loaded=False, cache=tmp_path / "cache")
    second = counterfactuals(again, question())
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert "_stack" not in vars(again)  # the model has not even been loaded


@pytest.mark.parametrize("damage", ["cut", "text", "pixel", "empty"])
def test_a_damaged_cached_picture_is_drawn_again(editor, tmp_path, damage):
    first = counterfactual(editor, question(), "sham")
    (path,) = (tmp_path / "cache").rglob("*.png")
    sound = path.read_bytes()
    if damage == "pixel":
        with Image.open(path) as image:
            changed, note = np.array(image), image.text
        changed[0, 0] ^= 1
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        for name, value in note.items():
            info.add_text(name, value)
        Image.fromarray(changed).save(path, pnginfo=info)
    else:
        path.write_bytes({"cut": sound[: len(sound) // 2], "text": b"<html>", "empty": b""}[damage])
    assert np.array_equal(counterfactual(editor, question(), "sham"), first)
    assert path.read_bytes() == sound


def test_what_decides_a_picture_decides_its_place_in_the_cache(editor, make, tmp_path):
    def files():
        return len(list((tmp_path / "cache").rglob("*.png")))

    asked = question()
    touched = edited_region(asked, "sham")
    counterfactual(editor, asked, "sham")
    others = [
        make(cache=editor.cache, **{name: value})
        for name, value in (("guidance", 2.0), ("skip_ratio", 0.5), ("sham_prompt", "nodule"))
    ]
    assert len({editor_label(each) for each in (editor, *others)}) == 4
    for number, each in enumerate(others, start=2):
        counterfactual(each, asked, "sham")
        assert files() == number
    editor.redraw_many([Redrawing(asked, "sham", touched, 1), Redrawing(asked, "sham", ~touched, 0)])
    counterfactual(editor, question(index=1), "sham")
    assert files() == 7
    assert editor_label(make(batch=1, cache=editor.cache)) == editor_label(editor)


def test_other_weights_are_another_editor(editor, make, parts, tmp_path):
    weights = shutil.copytree(parts["vae"], tmp_path / "vae") / "diffusion_pytorch_model.safetensors"
    loaded = load_file(weights)
    save_file({name: value * 1.001 for name, value in loaded.items()}, weights, metadata={"format": "pt"})
    assert editor_label(make()) == editor_label(editor) != editor_label(make(vae=str(weights.parent)))
    assert re.fullmatch(r"radedit 1 [0-9a-f]{12}", editor_label(editor))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of huggingface_hub in a temporary folder, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_the_pinned_commits_are_what_is_loaded_from_the_hub(parts, hub):
    for pinned, part in ((UNET, "unet"), (VAE, "vae"), (TEXT_ENCODER, "text_encoder")):
        repository, commit = pinned.split("@")
        snapshot = hub / f"models--{repository.replace('/', '--')}" / "snapshots" / commit
        shutil.copytree(parts[part], snapshot)
    few = {"steps": 2, "size": SIZE}
    fetched, local = load_editor("radedit", **few), load_editor("radedit", **parts, **few)
    edited, same = (counterfactual(each, question(), "foreground") for each in (fetched, local))
    assert np.array_equal(edited, same)
    assert editor_label(fetched) != editor_label(local)


def test_weights_that_cannot_be_fetched_are_an_error_with_a_way_out(hub):
    with pytest.raises(
        EditorError, match=r"microsoft/radedit: the weights cannot be fetched .* give the folder"
    ):
        counterfactual(RadEdit(), question(), "foreground")
