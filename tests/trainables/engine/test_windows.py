"""An image that lies in windows is evaluated as the whole image is."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainables.data.datasets import DatasetConfig
from trainables.engine.evaluation import sums_over
from trainables.loading.batches import evaluation_shares
from trainables.loading.decoded_cache import load_table
from trainables.loading.image_table import ImageTable
from trainables.models.modules import Encoding
from trainables.monitoring.predictions import PredictionWatch
from trainables.monitoring.watched_images import watched_in_table, watched_masks
from trainables.numerics.distributed import ALONE, World
from trainables.tasks.segment import Segment
from trainables.transforms.geometry import normalize
from trainables.transforms.windows import joined


class OfPixels(Encoding):
    """A network that looks at each pixel alone, or at its neighbors too."""

    def __init__(self, reach: int) -> None:
        super().__init__(nn.Conv2d(3, 4, 2 * reach + 1, padding=reach))
        self.at_once: list[int] = []

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.at_once.append(len(images))
        return {"out": self.encoder(images)}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[ImageTable]:
    """The same scenes of 64 px: whole, and in windows of 48 px."""
    folder: Path = tmp_path_factory.mktemp("cache")
    configs = [DatasetConfig(type="digit_scenes", limit=20, size=size) for size in (64, 48)]
    return [load_table(config, folder) for config in configs]


def segment(table: ImageTable, reach: int = 0) -> Segment:
    config = Segment.Config.model_validate(
        {"dataset": "d", "network": "deeplabv3", "class_weights": [1.0, 2.0, 3.0, 4.0]}
    )
    with torch.device("meta"):
        trainable = Segment(config, table.info)
    torch.manual_seed(0)
    trainable.model = OfPixels(reach)
    return trainable


def test_the_figures_are_those_of_whole_images(tables: list[ImageTable]) -> None:
    found = []
    for table in tables:
        trainable = segment(table)
        watch = PredictionWatch(trainable, table, ALONE)
        sums = sums_over("test", trainable, table, ALONE, nullcontext, 0)
        found.append((sums, watch.arrays(sums), trainable.model.at_once))
    (whole, images, _), (windows, parts, at_once) = found
    assert torch.equal(whole["confusion"], windows["confusion"])
    assert float(whole["loss"]) == pytest.approx(float(windows["loss"]), rel=1e-6)
    assert float(whole["count"]) == float(windows["count"])
    for name in ("hits", "truth", "guessed", "names"):
        assert np.array_equal(images[name], parts[name]), name
    assert len(parts["rows"]) == len(tables[0].parts["test"])
    assert at_once == [4] * len(parts["rows"])


def test_logits_are_averaged_where_windows_overlap(tables: list[ImageTable]) -> None:
    _, table = tables
    trainable = segment(table, reach=3)
    sums = sums_over("test", trainable, table, ALONE, nullcontext, 0)
    wanted = torch.zeros(4, 4, dtype=torch.int64)
    for rows in table.of_images(table.parts["test"]):
        places = table.places(rows) or []
        with torch.inference_mode():
            given = normalize(torch.from_numpy(np.array(table.images[rows])))
            guess = joined([trainable.model(given)["out"]], places)[0].argmax(0)
        truth = np.zeros((64, 64), dtype=np.uint8)
        assert table.masks is not None
        for row, (top, left) in zip(rows, places, strict=True):
            truth[top : top + 48, left : left + 48] = table.masks[row]
        pairs = torch.from_numpy(truth).long() * 4 + guess
        wanted += torch.bincount(pairs.flatten(), minlength=16).view(4, 4)
    assert torch.equal(sums["confusion"], wanted)


def test_ranks_share_whole_images_and_all_have_as_many_batches(tables: list[ImageTable]) -> None:
    _, table = tables
    cpu = torch.device("cpu")
    for size in (2, 3, 5):
        shares = [evaluation_shares(table, "test", 8, World(k, size, cpu)) for k in range(size)]
        assert len({len(share) for share in shares}) == 1
        rows = [each for share in shares for each in share if len(each)]
        assert all(len(each) == 4 for each in rows)
        together = np.sort(np.concatenate(rows))
        assert np.array_equal(together, table.parts["test"])
    nothing = segment(table)
    batch = sums_over("test", nothing, table, ALONE, nullcontext, 0)
    assert set(batch) == {"confusion", "loss", "count"}


def test_of_a_watched_image_in_windows_a_middle_one_is_drawn(tables: list[ImageTable]) -> None:
    _, table = tables
    assert table.windows is not None
    rows = watched_in_table(table, [])
    images = table.windows[rows, 0]
    assert images.tolist() == np.unique(table.windows[table.parts["val"], 0])[:3].tolist()
    kept = watched_masks(segment(table), table, rows, torch.device("cpu"), nullcontext)
    assert kept["images"].shape == (len(rows), 48, 48, 3)
    name = table.names[table.parts["test"][0]].partition("/")[2]
    (row,) = watched_in_table(table, [name])
    assert table.names[row].endswith(name)
