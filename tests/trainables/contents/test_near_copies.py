"""Images that look nearly the same are found by a hash and then by their pixels."""

import io
from itertools import product

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from trainables.contents.near_copies import MOST_BITS, _close, difference_hashes, near_pairs
from trainables.data.named_datasets import load_digits, load_photographs
from trainables.dataset import Indices

SIDE = 64


def scenes(count: int, seed: int = 0) -> list[Image.Image]:
    """Different places of scikit-learn's two photographs."""
    chance, photographs = np.random.default_rng(seed), load_photographs()
    found = []
    for number in range(count):
        picture = photographs[number % 2]
        top, left = (int(chance.integers(length - 200)) for length in picture.shape[:2])
        found.append(Image.fromarray(picture[top : top + 200, left : left + 200]))
    return found


def stacked(pictures: list[Image.Image]) -> np.ndarray:
    """(N, 3, SIDE, SIDE) uint8, as a cache holds them."""
    small = [np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX)) for picture in pictures]
    return np.stack(small).transpose(0, 3, 1, 2)


def saved_anew(picture: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=60)
    return Image.open(stream).convert("RGB")


def compared(own: np.ndarray, others: np.ndarray) -> list[list[int]]:
    groups = [
        (images, difference_hashes(images), np.arange(len(images))) for images in (own, others)
    ]
    return sorted(near_pairs(*groups).tolist())


def test_a_hash_says_which_cell_is_darker_than_the_next() -> None:
    """By hand: 9 columns of 8 px a side; the third is the darkest, the last one the brightest."""
    columns = np.array([90, 60, 10, 20, 40, 80, 70, 200, 210], np.uint8)
    image = np.broadcast_to(np.repeat(columns, 8), (72, 72))
    bits = [after > before for before, after in zip(columns[:-1], columns[1:], strict=True)]
    expected = np.packbits(np.array(bits * 8)).view(np.uint64)
    assert difference_hashes(np.stack([[image] * 3])).tolist() == expected.tolist()


@pytest.mark.parametrize("change", ["saved anew", "half the size", "brighter"])
def test_pictures_that_were_changed_a_little_are_found_and_others_are_not(change: str) -> None:
    pictures = scenes(40)
    changes = {
        "saved anew": saved_anew,
        "half the size": lambda picture: picture.resize((100, 100), Image.Resampling.LANCZOS),
        "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.08),
    }
    changed = [changes[change](picture) for picture in pictures[:20]]
    found = compared(stacked(changed), stacked(pictures))
    assert all(own == other for own, other in found)
    assert len(found) >= 16  # of 20
    assert compared(stacked(scenes(40, seed=1)), stacked(scenes(40, seed=2))) == []


def test_pictures_of_one_color_are_no_copies() -> None:
    flat = np.stack([np.full((3, SIDE, SIDE), level, np.uint8) for level in (0, 120, 255)])
    assert difference_hashes(flat).tolist() == [0, 0, 0]
    assert compared(flat, flat) == []


def test_digits_of_one_class_are_no_copies_of_each_other() -> None:
    grey = np.rint(load_digits()[0] * (255 / 16)).astype(np.uint8)
    images = np.repeat(grey[:, None], 3, axis=1)
    assert compared(images[:360], images[360:]) == []


def test_close_hashes_are_those_that_comparing_all_pairs_finds() -> None:
    chance = np.random.default_rng(0)
    hashes = chance.integers(0, 2**64, 60, dtype=np.uint64)
    others = hashes.copy()
    for place, bits in enumerate(np.arange(60) % 9):  # 0 to 8 bits are other
        for bit in chance.choice(64, bits, replace=False):
            others[place] ^= np.uint64(1 << int(bit))
    expected = [
        [own, other]
        for own, other in product(range(60), range(60))
        if (int(hashes[own]) ^ int(others[other])).bit_count() <= MOST_BITS
    ]
    assert len(expected) == sum(bits <= MOST_BITS for bits in np.arange(60) % 9)
    assert _close(hashes, others).tolist() == expected


def test_a_picture_that_is_there_thousands_of_times_is_one_pair_for_each_copy() -> None:
    """Such as `image not available`: comparing each with each would fill the memory."""
    one = stacked(scenes(1))
    many: Indices = np.zeros(5000, np.int64)
    found = near_pairs(
        (one, difference_hashes(one), np.zeros(1, np.int64)),
        (one[many], difference_hashes(one)[many], np.arange(5000)),
    )
    assert found.tolist() == [[0, 0]]
