"""A checkpoint → class names and probabilities, or masks. What the MLflow model loads; needs torch
alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas
import torch
from PIL import Image
from torch import Tensor

from trainables.config import as_plain
from trainables.data.images import square
from trainables.dataset import DataInfo
from trainables.loading.image_table import ImageTable
from trainables.tasks.registry import TRAINABLES
from trainables.training_config import TrainableConfig, with_present_keys
from trainables.transforms.geometry import normalise

MODEL = "model.json"  # beside weights.pt in a checkpoint's folder
Pixels = npt.NDArray[np.uint8]


def describe_model(trainable: str, config: TrainableConfig, table: ImageTable) -> dict[str, Any]:
    """What is needed to build the model again; JSON."""
    return {
        "trainable": trainable,
        "config": as_plain(config),
        "classes": list(table.classes),
        "colours": [list(colour) for colour in table.colours],
        "size": table.size,
    }


class Predictor:
    """A trained model on the CPU."""

    def __init__(self, folder: Path) -> None:
        described = json.loads((folder / MODEL).read_text(encoding="utf-8"))
        kind = TRAINABLES[described["trainable"]]
        config = kind.Config.model_validate(with_present_keys(described["config"]))
        self.classes: list[str] = described["classes"]
        self.colours: list[list[int]] = described.get("colours", [])  # of older models
        self.size = int(described["size"])
        self.trainable = kind(config, DataInfo(tuple(self.classes), self.size))
        weights = torch.load(folder / "weights.pt", map_location="cpu", weights_only=True)
        self.trainable.model.load_state_dict(weights)
        self.trainable.set_training(False)
        self.trainable.model.eval()


class Classifier(Predictor):
    """Says which class an image shows."""

    @torch.inference_mode()
    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pandas.DataFrame:
        """images: (B, H, W, 3) uint8 in [0, 255], any H and W, or one (H, W, 3).

        Returns a row an image: `class`, `probability`, and one `p(<class>)` a class. Raises
        ValueError on another shape or type.
        """
        images = _checked(model_input)
        fitted = np.stack([np.asarray(square(Image.fromarray(i), self.size)) for i in images])
        logits = self.trainable.model(normalise(_first_channels(fitted)))
        probabilities = logits.float().softmax(1).numpy()
        best = probabilities.argmax(1)
        columns: dict[str, Any] = {
            "class": [self.classes[i] for i in best],
            "probability": probabilities.max(1),
        }
        columns |= {f"p({name})": probabilities[:, i] for i, name in enumerate(self.classes)}
        return pandas.DataFrame(columns)


class Segmenter(Predictor):
    """Says which class every pixel shows."""

    @torch.inference_mode()
    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Pixels:
        """images: (B, H, W, 3) uint8 in [0, 255], any H and W, or one (H, W, 3).

        Returns (B, H, W) uint8: places in `classes`. The image is looked at as it is: a thing must
        have about as many px as in the images that were learnt from. Raises ValueError on another
        shape or type.
        """
        return np.stack([self._mask(image) for image in _checked(model_input)])

    def _mask(self, image: Pixels) -> Pixels:
        scores = self.trainable.model(normalise(_first_channels(image[None])))["out"]
        return np.asarray(scores[0].argmax(0).to(torch.uint8))


def load(folder: Path) -> Classifier | Segmenter | None:
    """What predicts with a checkpoint's files; None where the model was for pretraining."""
    kind = TRAINABLES[json.loads((folder / MODEL).read_text(encoding="utf-8"))["trainable"]]
    if kind.PREDICTS is None:
        return None
    return Segmenter(folder) if kind.PREDICTS == "masks" else Classifier(folder)


def _checked(given: Any) -> Pixels:
    images = np.asarray(given)
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images must be (B, H, W, 3) uint8, not {images.shape} {images.dtype}")
    return images


def _first_channels(images: Pixels) -> Tensor:
    """As `cache` makes them: (B, 3, S, S)."""
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2)


def _load_pyfunc(path: str) -> Classifier | Segmenter | None:
    """Entry point of MLflow's loader_module (no MLflow import is needed for it)."""
    return load(Path(path))
