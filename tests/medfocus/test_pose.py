from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medfocus_bench.medfocus.pose import best_poses


def picture(height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
    rough = np.random.default_rng(seed).standard_normal((height, width))
    smooth = ndimage.gaussian_filter(rough, 2.0, mode="constant")
    return (smooth / smooth.std()).astype(np.float32)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_shifted_picture_or_its_negative_is_found_to_the_pixel(sign: int) -> None:
    whole = picture(48, 48)
    reference, cut = whole[:40, :40], sign * whole[5:45, 3:43]
    found, (pose,) = best_poses(cut, [reference])
    assert found == sign
    np.testing.assert_allclose(pose.matrix, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(pose.shift, [5, 3], atol=1e-9)
    assert pose.score > 0.8


def test_a_turned_and_larger_picture_is_brought_back() -> None:
    reference = picture(40, 40)
    angle, scale = np.deg2rad(10), 1.17
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.full(2, 19.5)
    to_reference = turn / scale
    moved = ndimage.affine_transform(reference, to_reference, middle - to_reference @ middle, order=1)
    _, (pose,) = best_poses(moved, [reference])
    np.testing.assert_allclose(pose.matrix, to_reference, atol=0.02)
    np.testing.assert_allclose(pose.matrix @ middle + pose.shift, middle, atol=0.8)


def test_references_may_have_other_shapes_and_each_has_its_own_pose() -> None:
    whole = picture(40, 48)
    references = [whole[:32, :32], whole[4:36, 8:48], picture(28, 36, seed=1)]
    sign, poses = best_poses(whole[4:36, 6:38], references)
    assert sign == 1
    np.testing.assert_allclose(poses[0].shift, [4, 6], atol=1e-9)
    np.testing.assert_allclose(poses[1].shift, [0, -2], atol=1e-9)
    assert poses[2].score < min(poses[0].score, poses[1].score)


def test_polarity_is_decided_by_all_references_together() -> None:
    seen = picture()
    sign, poses = best_poses(seen, [-seen, seen, -seen])
    assert sign == -1
    assert poses[0].score > 0.9
