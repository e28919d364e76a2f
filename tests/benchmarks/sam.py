"""How many images a minute does the `sam` producer make, and the package's own generator?

    python -m tests.benchmarks.sam [--weights FILE] [--images 4] [--side 512] [--points 16]

The same model, images, settings and threads, turn by turn; without a file a ViT-B with chance's
weights, which takes as long. The masks of both must be the same. Then, what a Run's two workers of
one core each make, against one of two cores.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry

from trainables.tasks.sam import SamConfig, SamMasks, build_sam, read_weights


def pictures(count: int, side: int) -> list[np.ndarray]:
    """Smooth noise: waves of several lengths."""
    y, x = np.mgrid[:side, :side] / side
    found = []
    for number in range(count):
        waves = [np.sin(x * (9 + 7 * c + number)) * np.cos(y * (8 + 5 * c)) for c in range(3)]
        found.append((128 + 100 * np.stack(waves, -1)).astype(np.uint8))
    return found


def config(options: argparse.Namespace, weights: Path) -> SamConfig:
    return SamConfig(
        dataset="d", weights=str(weights), model="any", points_per_side=options.points,
        pred_iou_threshold=options.threshold, stability_threshold=options.threshold,
        precision="float32",
    )  # fmt: skip


def shipped(options: argparse.Namespace, weights: Path) -> SamAutomaticMaskGenerator:
    return SamAutomaticMaskGenerator(
        build_sam(read_weights(weights)), points_per_side=options.points,
        pred_iou_thresh=options.threshold, stability_score_thresh=options.threshold,
        min_mask_region_area=100, output_mode="coco_rle",
    )  # fmt: skip


def work(options: argparse.Namespace, weights: Path, rank: int, threads: int, size: int) -> float:
    """Seconds of a worker's share, without the loading of the model."""
    torch.set_num_threads(threads)
    made = SamMasks(config(options, weights), torch.device("cpu"))
    images = pictures(options.images, options.side)[rank::size]
    started = time.perf_counter()
    for number, image in enumerate(images):
        made.produce(str(number), image, None, 0)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--points", type=int, default=16)
    parser.add_argument("--threshold", type=float, default=0.0)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(options.weights or Path(folder) / "vit_b.pth")
        if options.weights is None:
            torch.manual_seed(0)
            torch.save(sam_model_registry["vit_b"]().state_dict(), weights)
        compare(options, weights)


def compare(options: argparse.Namespace, weights: Path) -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    ours, theirs = (
        SamMasks(config(options, weights), torch.device("cpu")),
        shipped(options, weights),
    )
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
          f"{options.side} px, {options.points} points a side, float32")  # fmt: skip
    ratios = []
    for turn in range(options.pairs + 1):  # the first one warms up
        (image,) = pictures(turn + 1, options.side)[turn:]
        started = time.perf_counter()
        found = theirs.generate(image)
        middle = time.perf_counter()
        made = json.loads(ours.produce("x", image, None, 0).files[".json"])["annotations"]
        ended = time.perf_counter()
        found.sort(key=lambda one: -one["area"])
        same = [one["segmentation"] for one in found] == [one["segmentation"] for one in made]
        assert same, "the masks differ"
        if turn:
            ratios.append((middle - started) / (ended - middle))
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"one worker is {statistics.median(ratios):.2f} times as fast as the generator ({shown})")
    context = get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        both = [pool.submit(work, options, weights, rank, 1, 2) for rank in range(2)]
        two = max(each.result() for each in both)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        one = pool.submit(work, options, weights, 0, 1, 1).result()
    print(f"two workers of one core each are {one / two:.2f} times as fast as one of one core")


if __name__ == "__main__":
    main()
