"""Windows cover an image, overlap by a quarter, and hold its pixels and its mask as they are."""

import numpy as np
import pytest

from trainables.dataset import IGNORED
from trainables.pixels.images import UnreadableImage
from trainables.pixels.windows import cut_pair, windows


@pytest.mark.parametrize("size", [(8, 8), (3, 5), (9, 8), (8, 30), (21, 34), (100, 17)])
def test_windows_cover_the_image_and_overlap_by_a_quarter(size: tuple[int, int]) -> None:
    width, height = size
    places = windows(size, 8)
    covered = np.zeros((height, width), dtype=int)
    for top, left in places:
        assert top + 8 <= max(8, height) and left + 8 <= max(8, width)
        covered[top : top + 8, left : left + 8] += 1
    assert covered.min() == 1 or max(size) > 8
    assert covered.min() >= 1
    for starts in ({top for top, _ in places}, {left for _, left in places}):
        gaps = np.diff(sorted(starts))
        assert not len(gaps) or (gaps.max() <= 6 and gaps.max() - gaps.min() <= 1)


def test_an_image_that_fits_is_one_window() -> None:
    assert list(windows((8, 8), 8)) == list(windows((2, 5), 8)) == [(0, 0)]


def test_a_window_holds_the_pixels_and_the_mask_of_its_place() -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (5, 13, 3), dtype=np.uint8)
    ids = generator.integers(0, 4, (5, 13), dtype=np.uint8)
    places = windows((13, 5), 8)
    pixels = np.zeros((len(places), 3, 8, 8), np.uint8)
    masks = np.full((len(places), 8, 8), IGNORED, np.uint8)
    cut_pair(image, ids, places, (pixels, masks))
    assert [place[0] for place in places] == [0] * len(places) and len(places) == 2
    for window, mask, (_, left) in zip(pixels, masks, places, strict=True):
        part = image[:, left : left + 8].transpose(2, 0, 1)
        assert np.array_equal(window[:, :5], part) and not window[:, 5:].any()
        assert np.array_equal(mask[:5], ids[:, left : left + 8])
        assert (mask[5:] == IGNORED).all()
    with pytest.raises(UnreadableImage, match="13x5 px, and its header says otherwise"):
        cut_pair(image, ids, [(0, 0)], (pixels[:1], masks[:1]))
    with pytest.raises(UnreadableImage, match="image has 13x5 px, its mask 12x5"):
        cut_pair(image, ids[:, 1:], places, (pixels, masks))
