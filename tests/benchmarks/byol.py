"""How many views a second does a whole BYOL step make, here and with others?

    python -m tests.benchmarks.byol [--side 96] [--batch 16] [--pairs 5] [--backbone resnet18]

The same model, batch, precision, threads and list of augmentations, one process, turn by turn:

ours          this package: batches from the cache, two views in one batched pass
floor         the same step on ready-made random views: what the hardware allows
lightly       lightly's modules, torchvision's per-image transforms in two loader processes
byol-pytorch  its learner, torchvision's transforms on each image of a batch of tensors
"""

import argparse
import copy
import os
import statistics

import byol_pytorch
import numpy as np
import torch
import torchvision
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from tests.benchmarks.turns import Work, machine, ratio, seconds
from trainables.dataset import DataInfo
from trainables.engine.step import build_optimizer
from trainables.numerics.precision import choose_precision
from trainables.tasks.byol import Byol, ByolConfig
from trainables.trainable import Batch
from trainables.transforms.geometry import MEAN, STD

IMAGES = 512


def transform(side: int, tensors: bool) -> transforms.Compose:
    """The report's list, from a PIL image or from a tensor."""
    first = [] if tensors else [transforms.ToTensor()]
    return transforms.Compose([
        transforms.RandomResizedCrop(side), transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(0.2, 0.2, 0.2, 0.2), *first, transforms.Normalize(MEAN, STD),
    ])  # fmt: skip


class Pairs(Dataset):
    """Two views of each image, as the loader's processes make them."""

    def __init__(self, images: np.ndarray, side: int) -> None:
        self.images, self.transform = images, transform(side, tensors=False)

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = Image.fromarray(self.images[index % len(self.images)])
        return self.transform(image), self.transform(image)


def ours(options: argparse.Namespace, images: np.ndarray, device: torch.device) -> dict[str, Work]:
    shape = {"backbone": options.backbone, "batch_size": options.batch}
    config = ByolConfig(dataset="d", precision="float32", **shape)
    trainable = Byol(config, DataInfo((), options.side))
    precision = choose_precision(config, device, options.side)
    model = trainable.model.to(device).to(memory_format=precision.memory_format)
    optimizer = build_optimizer(config, model)
    trainable.set_training(True)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    labels, count = torch.zeros(len(pixels), dtype=torch.long), iter(range(10**9))
    ready = [torch.randn(options.batch, 3, options.side, options.side, device=device)
             for _ in range(2)]  # fmt: skip

    def finish(loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        trainable.after_step(0.5)

    def whole() -> None:
        number = next(count)
        rows = torch.arange(number * options.batch, (number + 1) * options.batch) % len(pixels)
        batch = Batch(*(t[rows].to(device) for t in (pixels, labels)), rows.to(device), 0, number)
        with precision.context(device):
            loss = trainable.loss(model, batch)
        finish(loss)

    def floor() -> None:
        with precision.context(device):
            loss = model(*ready).mean()
        finish(loss)

    return {"ours": whole, "floor": floor}


def lightly(options: argparse.Namespace, images: np.ndarray, device: torch.device) -> Work:
    backbone = getattr(torchvision.models, options.backbone)()
    width, backbone.fc = backbone.fc.in_features, nn.Identity()
    online = nn.Sequential(backbone, BYOLProjectionHead(width, 4096, 256)).to(device)
    predictor = BYOLPredictionHead(256, 4096, 256).to(device)
    target = copy.deepcopy(online)
    deactivate_requires_grad(target)
    parameters = [*online.parameters(), *predictor.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    criterion = NegativeCosineSimilarity()
    loader = DataLoader(Pairs(images, options.side), options.batch, num_workers=2,
                        persistent_workers=True, prefetch_factor=2)  # fmt: skip
    stream = iter(loader)

    def step() -> None:
        one, two = (views.to(device) for views in next(stream))
        p1, p2 = predictor(online(one)), predictor(online(two))
        with torch.no_grad():
            z1, z2 = target(one), target(two)
        optimizer.zero_grad()
        (0.5 * (criterion(p1, z2) + criterion(p2, z1))).backward()
        optimizer.step()
        update_momentum(online, target, 0.99)

    return step


def others(options: argparse.Namespace, images: np.ndarray, device: torch.device) -> Work:
    """byol-pytorch's learner, each image with its own parameters."""
    single = transform(options.side, tensors=True)

    def each(batch: Tensor) -> Tensor:
        return torch.stack([single(image) for image in batch])

    learner = byol_pytorch.BYOL(
        getattr(torchvision.models, options.backbone)().to(device), image_size=options.side,
        hidden_layer="avgpool", augment_fn=each, use_simplicial_embeddings=False,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3, weight_decay=0.01)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    count = iter(range(10**9))

    def step() -> None:
        number = next(count)
        rows = torch.arange(number * options.batch, (number + 1) * options.batch) % len(pixels)
        loss = learner(pixels[rows].to(device).float() / 255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        learner.update_moving_average()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--backbone", default="resnet18")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = (IMAGES, options.side, options.side, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    steps = ours(options, images, device)
    steps["lightly"] = lightly(options, images, device)
    steps["byol-pytorch"] = others(options, images, device)
    found = seconds(steps, options.pairs, options.steps)
    print(f"{machine()}, {options.backbone}, {options.side} px, batch {options.batch}, "
          f"n = {options.pairs} turns of {options.steps} steps")  # fmt: skip
    views = 2 * options.batch * options.steps
    for name, taken in found.items():
        faster = ratio(taken, found["ours"])
        print(f"{name:13} {views / statistics.median(taken):8.1f} views/s   "
              f"ours is {faster:.2f} times as fast")  # fmt: skip


if __name__ == "__main__":
    main()
