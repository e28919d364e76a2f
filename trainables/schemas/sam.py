"""Makes masks of everything in an image with Meta's segment-anything (arXiv:2304.02643).

The generator of that package makes them; results are COCO run-length JSON and a picture of all
masks. An official checkpoint is verified by name, size and sha256, any other by its shapes.
"""

import hashlib
import importlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from trainables.schemas.producer import ProducerConfig, ProducerSchema

ADDRESS = "https://dl.fbaipublicfiles.com/segment_anything/"
_CODE = "trainables.tasks.sam"  # loads torch


class Official(NamedTuple):
    """A checkpoint as Meta publishes it: width and depth of its encoder, and the file."""

    width: int
    depth: int
    file: str
    bytes: int
    sha256: str


# sha256 and sizes as published with the files (github.com/facebookresearch/segment-anything)
OFFICIAL = {
    "vit_h": Official(1280, 32, "sam_vit_h_4b8939.pth", 2_564_550_879,
                      "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
    "vit_l": Official(1024, 24, "sam_vit_l_0b3195.pth", 1_249_524_607,
                      "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
    "vit_b": Official(768, 12, "sam_vit_b_01ec64.pth", 375_042_383,
                      "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
}  # fmt: skip


class SamConfig(ProducerConfig):
    """The second report's settings."""

    weights: str = Field(
        description="the checkpoint file; default: the official file in this folder"
    )
    model: Literal["vit_h", "vit_l", "vit_b", "any"] = Field(
        "vit_h", description="the network that the file must hold; any: the one its shapes fit"
    )
    points_per_side: Annotated[int, Field(ge=1, le=256)] = Field(
        32, description="points along each side of the image, from which masks are predicted"
    )
    points_per_batch: Annotated[int, Field(ge=1)] = Field(
        64, description="points predicted at once; halved when memory runs out"
    )
    pred_iou_threshold: Annotated[float, Field(ge=0, le=1)] = Field(
        0.88, description="predicted IoU below which a mask is left out"
    )
    stability_threshold: Annotated[float, Field(ge=0, le=1)] = Field(
        0.95, description="stability score below which a mask is left out"
    )
    nms_threshold: Annotated[float, Field(ge=0, le=1)] = Field(
        0.7, description="IoU of two masks' boxes above which the worse mask is left out"
    )
    min_area: Annotated[int, Field(ge=0)] = Field(
        100, description="px: smaller islands are removed, smaller holes filled"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="number format of the network; auto: bfloat16 on recent GPUs"
    )


class SamSchema(ProducerSchema):
    """Makes masks of one image after another; every rank holds the whole model."""

    Config = SamConfig
    FIGURES = ("sam/masks", "sam/best_iou")
    FOLDER = "sam"

    @classmethod
    def default_weights(cls, config: Mapping[str, Any]) -> str:
        return OFFICIAL.get(str(config.get("model")), OFFICIAL["vit_h"]).file

    @classmethod
    def check(cls, config: Any) -> None:
        path, known = Path(config.weights), OFFICIAL.get(config.model)
        if not path.is_file():
            what = known or OFFICIAL["vit_h"]
            raise ValueError(
                f"there is no file {path}: put {what.file} there ({what.bytes:,} bytes, sha256 "
                f"{what.sha256}, from {ADDRESS}{what.file}), or name yours"
            )
        place = path.stat()
        _check_file(path, config.model, (place.st_size, place.st_mtime_ns))


@lru_cache(maxsize=16)  # a study checks the file for every point of its grid
def _check_file(path: Path, model: str, version: tuple[int, int]) -> None:
    """Raise ValueError if a file does not hold the model. version: its size and mtime, for the
    cache.

    An official file is known by its hash; any other one is compared with the model that it should
    hold, which takes torch.
    """
    known = OFFICIAL.get(model)
    if known is None or version[0] != known.bytes or digest_of(path) != known.sha256:
        importlib.import_module(_CODE).check_file(path, model)


def digest_of(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
