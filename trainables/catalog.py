"""The trainables and producers a study may name. To add one: write its file, add one line here."""

from trainables.byol import Byol
from trainables.classify import Classify
from trainables.config import TrainableConfig
from trainables.datasets import DATASETS, DatasetConfig
from trainables.producer import Producer
from trainables.rotation import Rotation
from trainables.sam import SamMasks
from trainables.segment import Segment
from trainables.trainable import KNN, PROBES, Trainable

TRAINABLES: dict[str, type[Trainable]] = {
    "byol": Byol,
    "classify": Classify,
    "rotation": Rotation,
    "segment": Segment,
}


PRODUCERS: dict[str, type[Producer]] = {"sam": SamMasks}


def gaps(metric: str, config: TrainableConfig, data: DatasetConfig | None) -> str:
    """Why a figure that a trainable reports is missing in some or all epochs of a Run; empty where
    it is not. data: what the configuration names, if it is known."""
    if metric in PROBES and getattr(config, "probe_every", 1) != 1:
        return f"{metric!r} is not reported every epoch: set `probe_every: 1`"
    if metric == KNN and data and (not data.labels or DATASETS[data.type].masked):
        return f"{metric!r} asks for labels of images, and {config.dataset!r} has none"
    return ""


def reported_metrics(name: str) -> list[str]:
    """Names of the metrics that Runs of a trainable or producer report."""
    if name in PRODUCERS:
        return list(PRODUCERS[name].FIGURES)
    kind = TRAINABLES[name]
    every = [f"{part}/{figure}" for part in ("val", "test") for figure in kind.FIGURES]
    return ["train/loss", *every, *(PROBES if kind.PROBED else ())]
