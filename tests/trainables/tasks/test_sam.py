"""Segment-anything's own masks, written so that anybody can read them; files that do not fit."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

from trainables.dataset import IGNORED
from trainables.schemas import sam as schema
from trainables.schemas.sam import OFFICIAL, SamConfig
from trainables.tasks import sam as module
from trainables.tasks.sam import SamMasks, best_iou, build_sam, overlay

SIDE, WIDTH, DEPTH, CHANNELS = 128, 32, 2, 32
EVERYTHING: dict[str, Any] = {  # chance's masks are poor: none is left out
    "model": "any", "points_per_side": 3, "pred_iou_threshold": 0.0, "stability_threshold": 0.0,
    "min_area": 0, "nms_threshold": 1.0,
}  # fmt: skip


def small_sam(path: Path, seed: int = 0) -> Path:
    """A checkpoint in the official format of a small model with chance's weights."""
    torch.manual_seed(seed)
    patches = SIDE // 16
    encoder = ImageEncoderViT(
        img_size=SIDE, embed_dim=WIDTH, depth=DEPTH, num_heads=2, out_chans=CHANNELS,
        use_rel_pos=True, window_size=4, global_attn_indexes=(1,),
    )  # fmt: skip
    prompts = PromptEncoder(CHANNELS, (patches, patches), (SIDE, SIDE), 16)
    decoder = MaskDecoder(
        transformer_dim=CHANNELS,
        transformer=TwoWayTransformer(
            depth=2, embedding_dim=CHANNELS, num_heads=8, mlp_dim=2048
        ),
    )  # fmt: skip
    torch.save(Sam(encoder, prompts, decoder).state_dict(), path)
    return path


def photograph(height: int = 60, width: int = 80) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + c) * np.cos(y / 7 + c) for c in range(3)]
    return (128 + 100 * np.stack(waves, -1)).astype(np.uint8)


def config(path: Path, **changes: Any) -> SamConfig:
    given = {"dataset": "d", "weights": str(path), **EVERYTHING, **changes}
    return SamConfig.model_validate(given)


@pytest.fixture
def masks(tmp_path: Path) -> SamMasks:
    return SamMasks(config(small_sam(tmp_path / "small.pth")), torch.device("cpu"))


def test_masks_are_those_of_the_packages_own_generator(masks: SamMasks, tmp_path: Path) -> None:
    product = masks.produce("a", photograph(), None, 0)
    found = json.loads(product.files[".json"])["annotations"]
    state = torch.load(tmp_path / "small.pth", weights_only=True)
    shipped = SamAutomaticMaskGenerator(
        build_sam(state), points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0,
        box_nms_thresh=1.0, output_mode="coco_rle",
    ).generate(photograph())  # fmt: skip
    assert len(found) == len(shipped) == product.figures["sam/masks"] > 1
    shipped.sort(key=lambda one: -one["area"])
    for mine, theirs in zip(found, shipped, strict=True):
        assert {name: mine[name] for name in theirs} == theirs
        assert coco.area(mine["segmentation"]) == mine["area"]
    assert "sam/best_iou" not in product.figures


def test_the_picture_has_the_images_size_and_the_same_colours_again(masks: SamMasks) -> None:
    files = [masks.produce("a", photograph(), None, 0).files[".png"] for _ in range(2)]
    assert files[0] == files[1]
    painted = np.asarray(Image.open(io.BytesIO(files[0])))
    assert painted.shape == (60, 80, 3) and not np.array_equal(painted, photograph())


def test_smaller_masks_lie_above_larger_ones() -> None:
    large = np.ones((4, 4), dtype=bool)
    small = np.zeros((4, 4), dtype=bool)
    small[0, 0] = True
    black = np.zeros((4, 4, 3), dtype=np.uint8)
    both, alone = overlay(black, [large, small], "a"), overlay(black, [large], "a")
    assert (both[1:] == alone[1:]).all() and (both[0, 0] != alone[0, 0]).any()
    assert (overlay(black, [large], "b") != alone).any()


def test_the_best_mask_of_each_class_is_counted_without_what_is_ignored() -> None:
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, IGNORED]], dtype=np.uint8)
    left = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], dtype=bool)  # class 0, exactly
    right = np.array([[0, 0, 1, 0], [0, 0, 1, 1]], dtype=bool)  # two of three, and what is ignored
    assert best_iou([left, right], truth, 3) == pytest.approx((1 + 2 / 3) / 2)
    assert best_iou([], truth, 3) == 0.0


def test_fewer_points_at_once_when_memory_runs_out(masks: SamMasks, monkeypatch) -> None:
    wanted = json.loads(masks.produce("a", photograph(), None, 0).files[".json"])
    generate = SamAutomaticMaskGenerator.generate

    def scarce(self: SamAutomaticMaskGenerator, image: np.ndarray) -> list[dict[str, Any]]:
        if self.points_per_batch > 2:
            raise torch.OutOfMemoryError
        found: list[dict[str, Any]] = generate(self, image)
        return found

    monkeypatch.setattr(SamAutomaticMaskGenerator, "generate", scarce)
    found = json.loads(masks.produce("a", photograph(), None, 0).files[".json"])
    assert (wanted["points_per_batch"], found["points_per_batch"]) == (64, 2)
    assert len(found["annotations"]) == len(wanted["annotations"])


def test_half_precision_gives_float_masks_that_agree(tmp_path: Path) -> None:
    path = small_sam(tmp_path / "small.pth")
    sizes = []
    for precision in ("float32", "bfloat16"):
        one = SamMasks(config(path, precision=precision), torch.device("cpu"))
        found = json.loads(one.produce("a", photograph(), None, 0).files[".json"])["annotations"]
        sizes.append(found[0]["area"])
    assert sizes[1] == pytest.approx(sizes[0], rel=0.2)


@pytest.mark.parametrize("name", ["vit_b"])
def test_the_packages_own_models_are_known_by_their_shapes(name: str) -> None:
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        state = sam_model_registry[name]().state_dict()
    assert module._shape(state, Path("f")) == (OFFICIAL[name].width, OFFICIAL[name].depth)


def test_a_small_model_is_built_as_it_was(tmp_path: Path) -> None:
    state = torch.load(small_sam(tmp_path / "small.pth"), weights_only=True)
    built = build_sam(state)
    assert built.image_encoder.img_size == SIDE
    windows = [block.window_size for block in built.image_encoder.blocks]
    assert windows == [4, 0]
    assert {name: w.shape for name, w in built.state_dict().items()} == {
        name: w.shape for name, w in state.items()
    }


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (None, {"model": "vit_b"}, "sam_vit_b_01ec64.pth there .375,042,383 bytes, sha256 ec2df"),
        (b"no checkpoint", {}, "small.pth is no checkpoint of tensors"),
        ({"fc.weight": torch.zeros(1)}, {}, "no checkpoint of segment-anything"),
        ("more", {}, "mask_decoder.hf_token is missing, or does not fit"),
        ([1], {}, "holds a list"),
        ("small", {"model": "vit_h"}, "32 wide and 2 deep, not vit_h: set model: any"),
    ],
)
def test_a_file_that_does_not_fit_is_named(
    tmp_path: Path, content: Any, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "small.pth"
    if content in ("small", "more"):
        small_sam(path)
    if content == "more":  # another model that is built on it
        state = torch.load(path, weights_only=True)
        torch.save(state | {"mask_decoder.hf_token": torch.zeros(1)}, path)
    elif content == "small":
        pass
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        SamMasks.check(config(path, **changes))


def test_an_official_model_must_be_the_official_file(tmp_path: Path, monkeypatch) -> None:
    path = small_sam(tmp_path / "mine.pth")
    small = OFFICIAL["vit_b"]._replace(width=WIDTH, depth=DEPTH)
    monkeypatch.setitem(OFFICIAL, "vit_b", small)
    with pytest.raises(ValueError, match="Meta's sam_vit_b_01ec64.pth has 375,042,383: load it"):
        SamMasks.check(config(path, model="vit_b"))
    monkeypatch.setitem(OFFICIAL, "vit_b", small._replace(bytes=path.stat().st_size, file="x"))
    schema._check_file.cache_clear()
    with pytest.raises(ValueError, match="has sha256 .*, Meta's x has ec2df.*: load it again"):
        SamMasks.check(config(path, model="vit_b"))


@pytest.mark.parametrize(
    ("model", "file"), [("vit_l", "sam_vit_l_0b3195.pth"), (None, "sam_vit_h_4b8939.pth")]
)
def test_the_file_that_is_not_named_is_that_of_the_model(model: str | None, file: str) -> None:
    assert SamMasks.default_weights({"model": model} if model else {}) == file
