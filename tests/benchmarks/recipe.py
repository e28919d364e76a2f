"""What does a plain loop with torchvision's reference recipe reach on the same images?

    python -m tests.benchmarks.recipe --data DIR [--study segmentation_landcover] [--seeds 0 1]

For each stage of the study: the same network, images, split, crop, batch, epochs and precision.
The recipe (references/segmentation in torchvision's repository): SGD 0.01 with momentum 0.9 and
weight decay 1e-4, polynomial decay of power 0.9, random resize by 0.5 to 2, mirror, crop, the
auxiliary loss at half weight and its head at ten times the rate; the last epoch's weights.
The mean IoU is counted here, pixel by pixel, over the classes that the test images show.
"""

import argparse
import os
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from orchestrator.config.study_loader import read as read_study
from trainables.data.datasets import read as read_data
from trainables.dataset import IGNORED, DataInfo
from trainables.loading.decoded_cache import build
from trainables.loading.fingerprints import fingerprint
from trainables.loading.image_table import ImageTable, open_table
from trainables.numerics.precision import Precision, choose_precision
from trainables.tasks.segment import Segment, SegmentConfig
from trainables.transforms.geometry import MEAN, STD, normalize

AUXILIARY, RATE, MOMENTUM, DECAY, POWER = 0.5, 0.01, 0.9, 1e-4, 0.9


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """Training images and masks as the recipe transforms them."""

    def __init__(self, table: ImageTable, side: int) -> None:
        self.table, self.rows = table, table.parts["train"]
        self.moves = v2.Compose([
            v2.RandomResize(table.size // 2, table.size * 2), v2.RandomHorizontalFlip(),
            v2.RandomCrop(side, pad_if_needed=True, fill={tv_tensors.Mask: IGNORED, "others": 0}),
            v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        row = self.rows[index]
        assert self.table.masks is not None
        image = tv_tensors.Image(torch.tensor(self.table.images[row]))
        mask = tv_tensors.Mask(torch.tensor(self.table.masks[row]))
        moved: tuple[Tensor, Tensor] = self.moves(image, mask)
        return moved


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """The auxiliary head learns ten times as fast."""
    head = [p for name, p in model.named_parameters() if name.startswith("auxiliary.")]
    rest = [p for name, p in model.named_parameters() if not name.startswith("auxiliary.")]
    return [{"params": rest}] + ([{"params": head, "lr": 10 * RATE}] if head else [])


def train(model: nn.Module, table: ImageTable, config: SegmentConfig, precision: Precision) -> None:
    device = next(model.parameters()).device
    optimizer = torch.optim.SGD(groups(model), RATE, MOMENTUM, weight_decay=DECAY)
    side = config.crop or table.size
    # as the reference loads: what does not fill a batch waits for the next epoch
    loader = DataLoader(Pairs(table, side), config.batch_size, shuffle=True, drop_last=True)
    steps = config.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps, POWER)
    model.train()
    for _ in range(config.epochs):
        for images, masks in loader:
            with precision.context(device):
                found = model(images.to(device))
            wanted = masks.to(device).long()
            losses = {
                name: nn.functional.cross_entropy(scores.float(), wanted, ignore_index=IGNORED)
                for name, scores in found.items()
            }
            optimizer.zero_grad(set_to_none=True)
            (losses["out"] + AUXILIARY * losses.get("aux", torch.zeros(()))).backward()
            optimizer.step()
            schedule.step()


@torch.inference_mode()
def mean_iou(model: nn.Module, table: ImageTable, precision: Precision) -> float:
    device = next(model.parameters()).device
    model.eval()
    both, either, shown = np.zeros((3, len(table.classes)), np.int64)
    assert table.masks is not None
    for row in table.parts["test"]:
        with precision.context(device):
            scores = model(normalize(torch.tensor(table.images[row : row + 1]).to(device)))["out"]
        guess, truth = scores.argmax(1)[0].cpu().numpy(), table.masks[row]
        counts = truth != IGNORED
        for k in range(len(table.classes)):
            mine, true = (guess == k) & counts, truth == k
            both[k] += (mine & true).sum()
            either[k] += (mine | true).sum()
            shown[k] += true.sum()
    return float((both / np.maximum(either, 1))[shown > 0].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--study", default="segmentation_landcover")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--stages", nargs="+")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    study = read_study(options.study)
    with TemporaryDirectory() as folder:
        for stage in study.stages:
            config = stage.variants[0].config
            if not isinstance(config, SegmentConfig) or stage.name not in (
                options.stages or [stage.name]
            ):
                continue
            chosen = study.data[config.dataset]
            source = read_data(chosen, options.data)
            mark = fingerprint(source, chosen, Path(folder) / "manifest.json")
            table = open_table(build(source, chosen, mark, Path(folder)))
            found, started = [], time.perf_counter()
            for seed in options.seeds:
                torch.manual_seed(seed)
                model = Segment(config, DataInfo(table.classes, table.size)).model
                precision = choose_precision(config, device, table.size)
                model.to(device).to(memory_format=precision.memory_format)
                train(model, table, config, precision)
                found.append(mean_iou(model, table, precision))
                print(f"{stage.name} seed {seed}: test mIoU {100 * found[-1]:.2f}", flush=True)
            taken = time.perf_counter() - started
            print(f"{stage.name}: {100 * statistics.fmean(found):.2f} (n = {len(found)}), "
                  f"{config.epochs} epochs, {precision}, {taken:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
