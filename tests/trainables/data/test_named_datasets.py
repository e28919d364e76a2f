"""The embedded scenes: the same every time, with every class, masks exact."""

import numpy as np

from trainables.data.named_datasets import SCENE_CLASSES, SIDE, digit_scenes


def test_scenes_are_the_same_every_time_and_show_every_class() -> None:
    images, masks = digit_scenes()
    again = digit_scenes()
    assert np.array_equal(images, again[0]) and np.array_equal(masks, again[1])
    assert images.shape == (60, SIDE, SIDE, 3) and masks.shape == (60, SIDE, SIDE)
    assert images.dtype == masks.dtype == np.uint8
    assert set(np.unique(masks)) == set(range(len(SCENE_CLASSES)))
    shares = np.bincount(masks.ravel()) / masks.size
    assert shares[0] > 0.7 and shares[1:].min() > 0.01


def test_every_image_shows_a_digit_and_differs_from_the_others() -> None:
    images, masks = digit_scenes()
    assert (masks > 0).any(axis=(1, 2)).all()
    assert len({image.tobytes() for image in images}) == len(images)
