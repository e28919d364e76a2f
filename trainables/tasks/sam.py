"""Makes masks of everything in an image with Meta's segment-anything (arXiv:2304.02643).

The generator of that package makes them; results are COCO run-length JSON and a picture of all
masks. An official checkpoint is verified by name, size and sha256, any other by its shapes.
"""

import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from trainables.dataset import IGNORED, Pixels
from trainables.numerics.seeds import derived_seed
from trainables.producer import Producer, Product
from trainables.schemas.sam import OFFICIAL, SamConfig, SamSchema, digest_of

_SHARE = 0.55  # of the color of a mask in the picture
Annotation = dict[str, Any]


class SamMasks(SamSchema, Producer):
    """Makes masks of one image after another; every rank holds the whole model."""

    def __init__(self, config: Any, device: torch.device) -> None:
        self.config: SamConfig = config
        self.sam = build_sam(read_weights(Path(config.weights))).to(device)
        modern = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        if config.precision == "bfloat16" or (config.precision == "auto" and modern):
            for part in (self.sam.image_encoder, self.sam.mask_decoder):
                part.forward = partial(_in_bfloat16, part.forward, device.type)
        self.points_per_batch = config.points_per_batch

    @torch.inference_mode()
    def produce(self, name: str, image: Pixels, truth: Pixels | None, classes: int) -> Product:
        from segment_anything.utils.amg import coco_encode_rle, rle_to_mask  # see build_sam

        annotations = sorted(self._annotations(image), key=lambda item: -item["area"])
        masks = [rle_to_mask(item["segmentation"]) for item in annotations]
        encoded = [
            item | {"segmentation": coco_encode_rle(item["segmentation"])} for item in annotations
        ]
        figures = {"sam/masks": float(len(annotations))}
        if truth is not None and (truth != IGNORED).any():
            figures["sam/best_iou"] = best_iou(masks, truth, classes)
        height, width = image.shape[:2]
        described = {
            "image": name,
            "width": width,
            "height": height,
            "settings": self.config.model_dump(mode="json", exclude={"dataset", "watch"}),
            "points_per_batch": self.points_per_batch,
            **figures,
            "annotations": [{"id": number, **item} for number, item in enumerate(encoded, 1)],
        }
        picture = io.BytesIO()
        Image.fromarray(overlay(image, masks, name)).save(picture, "png")
        return Product(
            {".json": json.dumps(described).encode(), ".png": picture.getvalue()}, figures
        )

    def _annotations(self, image: Pixels) -> list[Annotation]:
        """Generate masks, with as many points at once as memory allows."""
        from segment_anything import SamAutomaticMaskGenerator

        while True:
            generator = SamAutomaticMaskGenerator(
                self.sam,
                points_per_side=self.config.points_per_side,
                points_per_batch=self.points_per_batch,
                pred_iou_thresh=self.config.pred_iou_threshold,
                stability_score_thresh=self.config.stability_threshold,
                box_nms_thresh=self.config.nms_threshold,
                min_mask_region_area=self.config.min_area,
                output_mode="uncompressed_rle",
            )
            try:
                annotations: list[Annotation] = generator.generate(image)
                return annotations
            except torch.OutOfMemoryError:
                if self.points_per_batch == 1:
                    raise
                self.points_per_batch //= 2
                torch.cuda.empty_cache()


PRODUCER = SamMasks


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Map the tensors of a checkpoint. Raises ValueError if it is no checkpoint of tensors."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises nearly everything on damaged input
        raise ValueError(f"{path} is no checkpoint of tensors") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, not named tensors")
    return state


def build_sam(state: Mapping[str, Tensor], load: bool = True) -> Any:
    """Build the model that fits the shapes of a checkpoint, in evaluation mode.

    state: named tensors; load: also copy the weights. Raises ValueError if it is not of SAM.
    """
    # seconds to load, needed for masks alone
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    patch = state["image_encoder.patch_embed.proj.weight"]
    width, depth = _shape(state, Path("the checkpoint"))
    side = state["image_encoder.pos_embed"].shape[1]
    steps = [state[f"image_encoder.blocks.{k}.attn.rel_pos_h"] for k in range(depth)]
    local = [len(step) for step in steps if len(step) != 2 * side - 1]
    channels = state["image_encoder.neck.0.weight"].shape[0]
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=side * patch.shape[-1],
            patch_size=patch.shape[-1],
            embed_dim=width,
            depth=depth,
            num_heads=width // steps[0].shape[1],
            out_chans=channels,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=(local[0] + 1) // 2 if local else 0,
            global_attn_indexes=tuple(
                k for k, step in enumerate(steps) if len(step) == 2 * side - 1
            ),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=channels,
            image_embedding_size=(side, side),
            input_image_size=(side * patch.shape[-1],) * 2,
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=channels,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=channels, num_heads=8, mlp_dim=2048
            ),
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
    )
    if load:
        sam.load_state_dict(state)
    sam.eval().requires_grad_(False)
    return sam


def best_iou(masks: list[Any], truth: Pixels, classes: int) -> float:
    """Return how well the best mask fits each class that is present, as the mean of their IoU.

    masks: (H, W) bool each; truth: (H, W) class ids, IGNORED where a pixel does not count; classes:
    their number. Returns a value in [0, 1].
    """
    counted = truth != IGNORED
    sizes = np.bincount(truth[counted], minlength=classes)
    best = np.zeros(classes)
    for mask in masks:
        inside = np.bincount(truth[mask & counted], minlength=classes)
        best = np.maximum(best, inside / np.maximum(1, inside.sum() + sizes - inside))
    return float(best[sizes > 0].mean())


def overlay(image: Pixels, masks: list[Any], name: str) -> Pixels:
    """Paint every mask in its own color, which depends on the name and its place alone.

    image: (H, W, 3) uint8 RGB; masks: (H, W) bool each, larger ones first, so that none is hidden.
    Returns (H, W, 3) uint8.
    """
    draw = np.random.Generator(np.random.PCG64(derived_seed("sam", name)))
    painted = image.astype(np.float32)
    for mask in masks:
        color = draw.integers(40, 256, size=3)
        painted[mask] = (1 - _SHARE) * painted[mask] + _SHARE * color
    return np.asarray(painted.round().astype(np.uint8))


def _shape(state: Mapping[str, Tensor], path: Path) -> tuple[int, int]:
    """Return width and depth of the encoder. Raises ValueError if the tensors are not of SAM."""
    if (
        "image_encoder.patch_embed.proj.weight" not in state
        or "mask_decoder.iou_token.weight" not in state
    ):
        raise ValueError(
            f"{path} is no checkpoint of segment-anything: its tensors have other names"
        )
    depth = sum(name.endswith("attn.rel_pos_h") for name in state)
    return len(state["image_encoder.patch_embed.proj.weight"]), depth


def check_file(path: Path, model: str) -> None:
    """Raise ValueError if a file does not hold the model."""
    state = read_weights(path)
    width, depth = _shape(state, path)
    with torch.device("meta"):
        built = build_sam(state, load=False).state_dict()
    unfit = [n for n in built.keys() | state.keys()
           if n not in built or n not in state or built[n].shape != state[n].shape]  # fmt: skip
    if unfit:
        raise ValueError(
            f"{path} is no checkpoint of segment-anything: {min(unfit)} is missing, or does not fit"
        )
    known = OFFICIAL.get(model)
    if known is None:
        return
    if (width, depth) != (known.width, known.depth):
        names = [
            name
            for name, official in OFFICIAL.items()
            if (official.width, official.depth) == (width, depth)
        ]
        what = names[0] if names else f"an encoder {width} wide and {depth} deep"
        raise ValueError(f"{path} holds {what}, not {model}: set model: {(names or ['any'])[0]}")
    size = path.stat().st_size
    if size != known.bytes:
        raise ValueError(
            f"{path} has {size:,} bytes, Meta's {known.file} has {known.bytes:,}: load it "
            "again, or set model: any"
        )
    digest = digest_of(path)
    if digest != known.sha256:
        raise ValueError(
            f"{path} has sha256 {digest}, Meta's {known.file} has {known.sha256}: load it "
            "again, or set model: any"
        )


def _in_bfloat16(forward: Callable[..., Any], device: str, *given: Any, **named: Any) -> Any:
    """Run one part in bfloat16 and return float32, which the rest of the package needs."""
    with torch.autocast(device, dtype=torch.bfloat16):
        output = forward(*given, **named)
    if isinstance(output, tuple):
        return tuple(tensor.float() for tensor in output)
    return output.float()
