"""Segmentation: a whole training step against a plain PyTorch loop, evaluation against its forward
passes.

    python -m tests.benchmarks.segment [--network deeplabv3] [--side 128] [--batch 8] [--pairs 5]

The same network, batch, precision, threads and augmentation list, one process, turn by turn:

ours          this package: image and mask moved together in one batched pass
plain         torchvision's v2 transforms on each pair in a loader of one process, the same model
forward       the model on ready-made images, as in an evaluation
evaluation    the same with loss and confusion matrix at full resolution
"""

import argparse
import os

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from tests.benchmarks.turns import Work, machine, ratio, seconds
from trainables.dataset import IGNORED, DataInfo
from trainables.engine.step import build_optimizer
from trainables.numerics.precision import choose_precision
from trainables.tasks.segment import Segment, SegmentConfig
from trainables.trainable import Batch
from trainables.transforms.geometry import MEAN, STD, normalize

IMAGES, CLASSES = 64, ("a", "b", "c", "d", "e", "f")


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """Image and mask, as torchvision's reference transforms them: scale, crop, mirror, turn."""

    def __init__(self, images: np.ndarray, masks: np.ndarray, side: int) -> None:
        self.images, self.masks = images, masks
        self.moves = v2.Compose([
            v2.RandomResize(images.shape[2] // 2, images.shape[2] * 2),
            v2.RandomCrop(side, pad_if_needed=True, fill={tv_tensors.Mask: IGNORED, "others": 0}),
            v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ])  # fmt: skip

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        row = index % len(self.images)
        image = tv_tensors.Image(torch.from_numpy(self.images[row]))
        mask = tv_tensors.Mask(torch.from_numpy(self.masks[row]))
        moved, turned = self.moves(image, mask)
        turns = int(torch.randint(4, ()))
        return torch.rot90(moved, turns, (1, 2)), torch.rot90(turned, turns, (0, 1))


class Bench:
    """The model, and the steps that are measured on it."""

    def __init__(self, options: argparse.Namespace) -> None:
        backbone = "vgg16" if options.network == "fcn32s" else "resnet50"
        given = {"dataset": "d", "network": options.network, "backbone": backbone, "hidden": 256,
                 "crop": options.side, "batch_size": options.batch}  # fmt: skip
        config = SegmentConfig.model_validate(given)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.trainable = Segment(config, DataInfo(CLASSES, options.full))
        self.precision = choose_precision(config, self.device, options.full)
        self.model = self.trainable.model.to(self.device)
        self.model.to(memory_format=self.precision.memory_format)
        self.optimizer = build_optimizer(config, self.model)
        random = np.random.default_rng(0)
        shape = (IMAGES, 3, options.full, options.full)
        self.images = random.integers(0, 256, shape, dtype=np.uint8)
        self.masks = random.integers(0, len(CLASSES), (IMAGES, *shape[2:]), dtype=np.uint8)
        self.batch_size, self.count = options.batch, iter(range(10**9))
        pairs = Pairs(self.images, self.masks, options.side)
        self.loader = iter(DataLoader(pairs, options.batch))

    def steps(self) -> dict[str, Work]:
        return {
            "ours": self.ours, "plain": self.plain, "evaluation": self.evaluation,
            "forward": self.forward,
        }  # fmt: skip

    def batch(self, size: int) -> Batch:
        number = next(self.count)
        rows = torch.arange(number * size, (number + 1) * size) % IMAGES
        pixels, ids = (
            torch.from_numpy(each[rows.numpy()]).to(self.device)
            for each in (self.images, self.masks)
        )
        return Batch(pixels, ids, rows.to(self.device), 0, number)

    def ours(self) -> None:
        self.trainable.set_training(True)
        self.optimizer.zero_grad(set_to_none=True)
        with self.precision.context(self.device):
            loss = self.trainable.loss(self.model, self.batch(self.batch_size))
        loss.backward()
        self.optimizer.step()

    def plain(self) -> None:
        self.model.train()
        pixels, ids = (each.to(self.device) for each in next(self.loader))
        self.optimizer.zero_grad(set_to_none=True)
        with self.precision.context(self.device):
            losses = [
                nn.functional.cross_entropy(scores.float(), ids.long(), ignore_index=IGNORED)
                for scores in self.model(pixels).values()
            ]
        sum(loss * weight for loss, weight in zip(losses, (1.0, 0.4), strict=False)).backward()
        self.optimizer.step()

    @torch.inference_mode()
    def forward(self) -> None:
        self.model.eval()
        with self.precision.context(self.device):
            self.model(normalize(self.batch(2).images))

    @torch.inference_mode()
    def evaluation(self) -> None:
        self.model.eval()
        with self.precision.context(self.device):
            self.trainable.evaluate(self.batch(2))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", choices=("fcn32s", "deeplabv3"), default="deeplabv3")
    parser.add_argument("--full", type=int, default=512, help="side of the images")
    parser.add_argument("--side", type=int, default=128, help="of the square that is learnt from")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    found = seconds(Bench(options).steps(), options.pairs, options.steps)
    print(f"{machine()}, {options.network}, {options.side} px of {options.full}, batch "
          f"{options.batch}, n = {options.pairs} turns of {options.steps} steps")  # fmt: skip
    print(f"ours is {ratio(found['plain'], found['ours']):.2f} times as fast as the plain loop")
    costs = ratio(found["evaluation"], found["forward"])
    print(f"evaluation costs {costs:.2f} times its forward passes")


if __name__ == "__main__":
    main()
