"""What does it cost to feed a training? Batched augmentation against torchvision's on each image,
and an epoch from a cold and a warm cache against reading the files every epoch."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from tests.benchmarks.photographs import build_table, make_photographs
from tests.benchmarks.turns import Line, Work, ratio, seconds, shown
from trainables.loading.batches import BatchStream, training_steps
from trainables.loading.image_table import open_table
from trainables.transforms.geometry import AUGMENTATIONS, MEAN, STD

IMAGES, SIDE, BATCH = 1_500, 96, 64
THEIRS: dict[str, list[Callable[[object], object]]] = {
    "crop_flip": [
        transforms.Pad(SIDE // 8), transforms.RandomCrop(SIDE), transforms.RandomHorizontalFlip(),
    ],
    "resized_crop_flip": [
        transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip(),
    ],
}  # fmt: skip
_FINISH = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]


def measure(turns: int) -> list[Line]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photographs(folder / "images", IMAGES, SIDE)
        return [*_augmentations(folder / "images", turns), *_epochs(folder, turns)]


def _augmentations(folder: Path, turns: int) -> list[Line]:
    """One thread, on images that are decoded already."""
    torch.set_num_threads(1)
    paths = sorted(folder.rglob("*.jpg"))[: 4 * BATCH]
    decoded = [Image.open(path).convert("RGB") for path in paths]
    pixels = torch.stack([transforms.functional.pil_to_tensor(image) for image in decoded])
    lines = []
    for name, moves in THEIRS.items():
        draws, augment = AUGMENTATIONS[name]
        one_by_one = transforms.Compose([*moves, *_FINISH])

        def ours(augment=augment, draws=draws) -> None:  # type: ignore[no-untyped-def]
            for start in range(0, len(pixels), BATCH):
                augment(pixels[start : start + BATCH], torch.rand(BATCH, draws))

        def theirs(one_by_one=one_by_one) -> None:  # type: ignore[no-untyped-def]
            for start in range(0, len(decoded), BATCH):
                torch.stack([one_by_one(image) for image in decoded[start : start + BATCH]])

        found = seconds({"ours": ours, "theirs": theirs}, turns)
        speeds = [len(pixels) / taken for taken in found["ours"]]
        faster = ratio(found["theirs"], found["ours"])
        lines += [
            Line(f"`{name}`, {SIDE} px, one core", shown(speeds, "images/s"), "", turns),
            Line(f"`{name}`: speed over torchvision's on each image", f"{faster:.2f}", "", turns),
        ]
    return lines


def _epochs(folder: Path, turns: int) -> list[Line]:
    """All images once, as a training would get them; no model."""
    cores = os.cpu_count() or 1
    torch.set_num_threads(cores)
    numbers = iter(range(10**6))
    warm = build_table(folder / "images", SIDE, folder / "warm")
    files = ImageFolder(str(folder / "images"), transforms.Compose(
        [*THEIRS["crop_flip"], *_FINISH]))  # fmt: skip
    loader = DataLoader(files, BATCH, shuffle=True, drop_last=True, num_workers=cores,
                        persistent_workers=True)  # fmt: skip

    def through(path: Path) -> None:
        table, (draws, augment) = open_table(path), AUGMENTATIONS["crop_flip"]
        steps = training_steps(table.parts["train"], BATCH, 0, 1)
        for images, _, _ in BatchStream(table, steps, torch.device("cpu")):
            augment(images, torch.rand(len(images), draws))

    def cold() -> None:
        through(build_table(folder / "images", SIDE, folder / f"cold{next(numbers)}"))

    def decoding() -> None:
        for _ in loader:
            pass

    works: dict[str, Work] = {"cold": cold, "warm": lambda: through(warm), "decoding": decoding}
    found = seconds(works, turns)
    what = f"{IMAGES} JPEG files of {SIDE} px"
    return [
        Line(f"first epoch's input with a cold cache, {what}", shown(found["cold"]), "", turns),
        Line("the same with a warm cache", shown(found["warm"]), "", turns),
        Line("reading and decoding the files, every epoch", shown(found["decoding"]), "", turns),
        Line("warm cache: speed over decoding", f"{ratio(found['decoding'], found['warm']):.2f}",
             "", turns),
        Line("cold cache: speed over decoding", f"{ratio(found['decoding'], found['cold']):.2f}",
             "", turns),
    ]  # fmt: skip
