"""Small photographs with digits on them, and masks that are exact by construction: what an embedded
segmentation study learns from. Everything comes with scikit-learn."""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

SCENE_CLASSES = ("photograph", "zero", "one", "seven")
SIDE = 64
_DIGITS = (0, 1, 7)  # of the classes after the first
_COUNT, _SEED = 60, 0
_LARGER = 3  # a digit of 8x8 px becomes 24x24
_INK = 8  # grey level of 16 from which a pixel belongs to the digit


def digit_scenes() -> tuple[Pixels, Pixels]:
    """(60, 64, 64, 3) RGB and (60, 64, 64) class ids: cut-outs of two photographs, each with two to
    four digits in a colour of their own; where digits meet, the later one lies above."""
    from sklearn.datasets import load_digits, load_sample_images  # seconds to load, seldom needed

    digits, photographs = load_digits(), load_sample_images().images
    chance = np.random.Generator(np.random.PCG64(_SEED))
    images = np.empty((_COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    masks = np.zeros((_COUNT, SIDE, SIDE), dtype=np.uint8)
    for image, mask in zip(images, masks, strict=True):
        photograph = photographs[chance.integers(len(photographs))]
        top, left = (chance.integers(length - SIDE) for length in photograph.shape[:2])
        image[:] = photograph[top : top + SIDE, left : left + SIDE]
        for _ in range(chance.integers(2, 5)):
            number = int(chance.integers(len(_DIGITS)))
            drawn = digits.images[chance.choice(np.flatnonzero(digits.target == _DIGITS[number]))]
            ink = np.kron(drawn >= _INK, np.ones((_LARGER, _LARGER), dtype=bool))
            y, x = chance.integers(SIDE - len(ink) + 1, size=2)
            spot = (slice(y, y + len(ink)), slice(x, x + len(ink)))
            image[spot][ink] = chance.integers(256, size=3)
            mask[spot][ink] = number + 1
    return images, masks
