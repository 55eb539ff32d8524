from __future__ import annotations

import sys
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from medfocus_bench.data.concepts import CONCEPTS
from medfocus_bench.errors import InputError
from medfocus_bench.evaluation.overlap import box_overlap
from medfocus_bench.medfocus import atlas
from medfocus_bench.medfocus.atlas import AtlasSettings, localise_by_atlas
from medfocus_bench.medfocus.concept_mask import ConceptMask, tight_box
from medfocus_bench.medfocus.localisers import localise
from medfocus_bench.medfocus.reference import ReferencePool, phantom_pool
from medfocus_bench.phantom.render import Patient, Phantom, render

Masks = dict[str, np.ndarray]


@cache
def unseen(number: int, size: int = 224) -> Phantom:
    return render(Patient.sample((42_000_000, number)), size)


@cache
def few() -> ReferencePool:
    return phantom_pool().subset([0, 3, 6, 9, 12])


def overlaps(regions: dict[str, ConceptMask], masks: Masks) -> dict[str, float]:
    return {c: box_overlap(regions[c].box, tight_box(mask)).iou for c, mask in masks.items()}


def test_unseen_phantoms_are_located_and_better_than_by_transport_on_every_concept() -> None:
    pool, numbers = few(), (2, 3)
    by: dict[str, list[dict[str, float]]] = {"atlas": [], "transport": []}
    for method, found in by.items():
        for number in numbers:
            phantom = unseen(number)
            found.append(overlaps(localise(phantom.image, pool, method), phantom.concepts))  # type: ignore[arg-type]
    mean = {m: {c: np.mean([image[c] for image in found]) for c in CONCEPTS} for m, found in by.items()}
    assert np.mean(list(mean["atlas"].values())) >= 0.85
    assert all(mean["atlas"][concept] > mean["transport"][concept] for concept in CONCEPTS)


def test_a_reference_is_located_by_itself_alone_and_among_others() -> None:
    pool = few()
    for others in (pool.subset([1]), pool):
        found = overlaps(localise(pool.images[1], others, "atlas"), dict(pool.masks[1]))
        assert min(found.values()) >= 0.95


def moved(
    phantom: Phantom, angle: float, scale: float, shift: tuple[float, float]
) -> tuple[np.ndarray, Masks]:
    turn = np.deg2rad(angle)
    linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) / scale
    middle = np.full(2, (len(phantom.image) - 1) / 2)
    offset = middle - linear @ (middle + shift)

    def draw(array: np.ndarray) -> np.ndarray:
        return ndimage.affine_transform(array.astype(np.float32), linear, offset, order=1)

    image = np.clip(np.round(draw(phantom.image)), 0, 255).astype(np.uint8)
    return image, {concept: draw(mask) > 0.5 for concept, mask in phantom.concepts.items()}


def padded(image: np.ndarray, masks: Masks, edges: tuple, grey: int) -> tuple[np.ndarray, Masks]:
    around = np.pad(image, edges, constant_values=grey)
    return around, {concept: np.pad(mask, edges) for concept, mask in masks.items()}


def resized(image: np.ndarray, masks: Masks, width: int, height: int) -> tuple[np.ndarray, Masks]:
    def draw(array: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR))

    return draw(image), {c: draw(mask.astype(np.uint8) * 255) > 127 for c, mask in masks.items()}


def lettered(image: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(image)
    drawing, unit = ImageDraw.Draw(picture), len(image) / 224
    drawing.rectangle((170 * unit, 195 * unit, 215 * unit, 215 * unit), fill=0)
    drawing.text((172 * unit, 197 * unit), "AP 12:31", fill=255, font_size=10 * unit)
    drawing.text((12 * unit, 14 * unit), "R", fill=255, font_size=24 * unit)
    return np.asarray(picture)


def exposed(image: np.ndarray, gamma: float) -> np.ndarray:
    return np.round(255 * (image / 255) ** gamma).astype(np.uint8)


@cache
def hard_pictures() -> dict[str, tuple[np.ndarray, Masks]]:
    phantom = unseen(3)
    image, masks = phantom.image, phantom.concepts
    large, small = moved(phantom, 0, 1.15, (-4, 5)), moved(phantom, -5, 0.8, (8, -12))
    mixed = padded(lettered(small[0]), small[1], ((30, 0), (0, 60)), 255)
    return {
        "dark": (exposed(image, 2.0), masks),
        "pale and lettered": (exposed(lettered(image), 0.5), masks),
        "turned": moved(phantom, 8, 1.0, (0, 0)),
        "large": large,
        "black borders": padded(image, masks, ((30, 12), (40, 70)), 0),
        "white borders": padded(image, masks, ((10, 25), (60, 8)), 255),
        "wide": resized(image, masks, 300, 224),
        "of 1400 x 1100 pixels": resized(image, masks, 1400, 1100),
        "small negative, turned, with borders": (255 - mixed[0], mixed[1]),
    }


@pytest.mark.parametrize("name", list(hard_pictures()))
def test_pictures_as_clinics_have_them_are_located_as_well(name: str) -> None:
    image, masks = hard_pictures()[name]
    regions = localise(image, few().subset([0, 1, 3]), "atlas", size=96)
    assert all(region.mask.shape == image.shape for region in regions.values())
    assert np.mean(list(overlaps(regions, masks).values())) >= 0.75


def test_a_negative_gives_the_regions_of_its_picture() -> None:
    image = unseen(2).image
    one, other = (localise(picture, few().subset([0, 1]), "atlas") for picture in (image, 255 - image))
    assert min(overlaps(one, {concept: region.mask for concept, region in other.items()}).values()) > 0.95


def test_references_of_other_sizes_and_with_concepts_of_their_own_serve_as_well() -> None:
    pool = few()
    images, masks = [], []
    for number, (width, height) in enumerate([(224, 224), (400, 360), (180, 200)]):
        image, drawn = resized(pool.images[number], dict(pool.masks[number]), width, height)
        images.append(image)
        masks.append(drawn)
    masks[0] = {"heart": masks[0]["cardiac silhouette"]}
    masks[1] = {"left lung": masks[1]["left lung"], "right lung": masks[1]["right lung"]}
    masks[2] = {"left lung": masks[2]["left lung"]}
    phantom = unseen(3)
    regions = localise(phantom.image, ReferencePool(images, masks), "atlas")
    assert list(regions) == ["heart", "left lung", "right lung"]
    truth = {c: phantom.concepts[c] for c in ("left lung", "right lung")}
    truth["heart"] = phantom.concepts["cardiac silhouette"]
    assert min(overlaps(regions, truth).values()) > 0.75


def test_the_best_references_by_pose_are_taken_where_fewer_are_asked_for() -> None:
    pool = few()
    regions = localise(pool.images[2], pool, "atlas", references=1)
    assert min(overlaps(regions, dict(pool.masks[2])).values()) >= 0.95


def test_an_image_is_registered_once_and_again_with_the_same_result() -> None:
    image, pool = unseen(4).image, few().subset([0])
    first = localise(image, pool, "atlas")
    misses = atlas._votes.cache_info().misses
    again = localise(image.copy(), pool, "atlas")
    assert atlas._votes.cache_info().misses == misses
    atlas._votes.cache_clear()
    afresh = localise(image, pool, "atlas")
    for concept, region in first.items():
        assert np.array_equal(region.mask, again[concept].mask)
        assert np.array_equal(region.mask, afresh[concept].mask)
    localise(image, pool, "atlas", size=96)
    assert atlas._votes.cache_info().misses == 2


def test_an_image_without_contrast_is_refused() -> None:
    with pytest.raises(InputError, match="one grey level"):
        localise_by_atlas(np.full((64, 64), 90, dtype=np.uint8), few())


def test_without_simpleitk_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(InputError, match=r"pip install 'medfocus-bench\[medfocus\]'"):
        localise_by_atlas(unseen(5).image, few(), AtlasSettings(size=64))
