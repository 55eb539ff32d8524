"""Reference pools: what they hold, how they are kept, which reference is closest."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from medfocus_bench.data.concepts import CONCEPTS
from medfocus_bench.errors import InputError
from medfocus_bench.medfocus import ReferencePool
from medfocus_bench.medfocus.reference import build_pool, phantom_pool
from medfocus_bench.phantom.render import Patient, render


def small_pool():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((20, 30), (17, 13))]
    return ReferencePool(images, [{"heart": image > 100, "left lung": image > 200} for image in images])


def same(one, other):
    return all(
        np.array_equal(a, b) and set(m) == set(n) and all(np.array_equal(m[c], n[c]) for c in m)
        for a, b, m, n in zip(one.images, other.images, one.masks, other.masks, strict=True)
    )


def test_the_shipped_pool_is_what_the_renderer_draws():
    pool = phantom_pool()
    assert len(pool) == 16
    assert set(pool.concepts) == set(CONCEPTS)
    for number in (0, 15):
        drawn = render(Patient.sample((40_000_000, number), findings=[], marks=[]))
        assert np.array_equal(pool.images[number], drawn.image)
        assert all(np.array_equal(pool.masks[number][c], mask) for c, mask in drawn.concepts.items())


def test_a_pool_comes_back_as_it_was_saved(tmp_path):
    pool = small_pool()
    pool.save(tmp_path / "deep" / "pool.safetensors")
    assert same(pool, ReferencePool.load(tmp_path / "deep" / "pool.safetensors"))


@pytest.mark.parametrize("by_concept", [False, True])
def test_a_folder_of_images_and_masks_becomes_a_pool(tmp_path, by_concept):
    pool = small_pool()
    for number, (image, masks) in enumerate(zip(pool.images, pool.masks, strict=True)):
        places = {f"images/{number}.png": image}
        for concept, mask in masks.items():
            place = f"masks/{concept}/{number}.png" if by_concept else f"masks/{number}/{concept}.png"
            places[place] = mask.astype(np.uint8) * 255
        for place, pixels in places.items():
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / place)
    assert same(pool, build_pool(tmp_path))


def test_folders_that_are_no_pool_are_errors_that_name_the_file(tmp_path):
    """Traps 18 and 35."""
    with pytest.raises(InputError, match="has no images"):
        build_pool(tmp_path)
    (tmp_path / "images").mkdir()
    Image.fromarray(np.arange(81, dtype=np.uint8).reshape(9, 9)).save(tmp_path / "images" / "a.png")
    with pytest.raises(InputError, match=r"a\.png: has no masks"):
        build_pool(tmp_path)
    (tmp_path / "masks" / "a").mkdir(parents=True)
    Image.fromarray(np.full((8, 9), 255, np.uint8)).save(tmp_path / "masks" / "a" / "heart.png")
    with pytest.raises(InputError, match=r"heart\.png: is 9 x 8, its image 9 x 9"):
        build_pool(tmp_path)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "masks" / "a" / "heart.png")
    with pytest.raises(InputError, match=r"heart\.png: is empty"):
        build_pool(tmp_path)
    (tmp_path / "images" / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.png"):
        build_pool(tmp_path)


def test_files_that_are_no_pool_are_errors_that_name_the_file(tmp_path):
    path = tmp_path / "pool.safetensors"
    with pytest.raises(InputError, match="cannot be read"):
        ReferencePool.load(path)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="cannot be read"):
        ReferencePool.load(path)
    save_file({"x": np.zeros(3)}, path)
    with pytest.raises(InputError, match="is not a reference pool"):
        ReferencePool.load(path)
    damaged = {"0/image": np.zeros((4, 4), np.uint8), "0/mask/heart": np.zeros(99, np.uint8)}
    save_file(damaged, path, metadata={"format": "medfocus-bench references 1"})
    with pytest.raises(InputError, match=r"damaged.*heart does not fit"):
        ReferencePool.load(path)


@pytest.mark.parametrize(
    ("images", "masks", "said"),
    [
        ([], [], "0 reference images"),
        ([np.zeros((4, 4))], [{"a": np.ones((4, 4), bool)}], "not uint8"),
        ([np.zeros((4, 4), np.uint8)], [{"a": np.ones((4, 5), bool)}], "mask of a"),
        ([np.zeros((4, 4), np.uint8)], [{"a": np.zeros((4, 4), bool)}], "mask of a"),
        ([np.zeros((4, 4), np.uint8)], [{}], "no concepts"),
    ],
)
def test_what_is_no_pool_is_an_error(images, masks, said):
    with pytest.raises(ValueError, match=said):
        ReferencePool(images, masks)


def test_the_divergence_finds_the_image_itself_and_the_cost_need_not():
    """Trap 27: the paper's cost follows how much of the reference is bright."""
    pool = phantom_pool().subset(range(8))
    found = [pool.closest(image, by="divergence") for image in pool.images]
    assert found == list(range(len(pool)))
    distances = pool.distances(pool.images[3], by="divergence")
    assert distances[3] == pytest.approx(0, abs=1e-9)
    assert (distances > -1e-9).all()
    chosen = {pool.closest(image, by="cost") for image in pool.images}
    assert len(chosen) < len(pool) / 2


def test_a_subset_keeps_images_with_their_masks():
    pool = small_pool()
    part = pool.subset([1])
    assert np.array_equal(part.images[0], pool.images[1])
    assert np.array_equal(part.masks[0]["heart"], pool.masks[1]["heart"])
