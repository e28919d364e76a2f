"""A checkpoint → class names and probabilities. What the MLflow model loads; needs torch alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from PIL import Image

from trainables.catalog import TRAINABLES
from trainables.config import TrainableConfig, as_plain
from trainables.images import square
from trainables.trainable import DataInfo
from trainables.transforms import normalise

MODEL = "model.json"  # beside weights.pt in a checkpoint's folder


def describe_model(
    trainable: str, config: TrainableConfig, classes: Sequence[str], size: int
) -> dict[str, Any]:
    """What is needed to build the model again; JSON."""
    return {
        "trainable": trainable,
        "config": as_plain(config),
        "classes": list(classes),
        "size": size,
    }


class Classifier:
    """A trained classifier on the CPU."""

    def __init__(self, folder: Path) -> None:
        described = json.loads((folder / MODEL).read_text(encoding="utf-8"))
        kind = TRAINABLES[described["trainable"]]
        config = kind.Config.model_validate(described["config"])
        self.classes: list[str] = described["classes"]
        self.size = int(described["size"])
        self.trainable = kind(config, DataInfo(tuple(self.classes), self.size))
        weights = torch.load(folder / "weights.pt", map_location="cpu", weights_only=True)
        self.trainable.model.load_state_dict(weights)
        self.trainable.set_training(False)
        self.trainable.model.eval()

    @torch.inference_mode()
    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pandas.DataFrame:
        """images: (B, H, W, 3) uint8 in [0, 255], any H and W, or one (H, W, 3).

        Returns a row an image: `class`, `probability`, and one `p(<class>)` a class. Raises
        ValueError on another shape or type.
        """
        images = np.asarray(model_input)
        images = images[None] if images.ndim == 3 else images
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise ValueError(
                f"images must be (B, H, W, 3) uint8, not {images.shape} {images.dtype}"
            )
        fitted = np.stack([np.asarray(square(Image.fromarray(i), self.size)) for i in images])
        batch = torch.from_numpy(fitted).permute(0, 3, 1, 2)  # as `cache` makes it: (B, 3, S, S)
        probabilities = self.trainable.model(normalise(batch)).float().softmax(1).numpy()
        best = probabilities.argmax(1)
        columns: dict[str, Any] = {
            "class": [self.classes[i] for i in best],
            "probability": probabilities.max(1),
        }
        columns |= {f"p({name})": probabilities[:, i] for i, name in enumerate(self.classes)}
        return pandas.DataFrame(columns)


def _load_pyfunc(path: str) -> Classifier:
    """Entry point of MLflow's loader_module (no MLflow import is needed for it)."""
    return Classifier(Path(path))
