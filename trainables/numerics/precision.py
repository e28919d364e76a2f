"""Chooses precision and memory format by hardware, by measured rules, the same on every rank."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from trainables.training_config import TrainableConfig

Transform = TypeVar("Transform", bound=Callable[..., Any])
Autocast = Callable[[], AbstractContextManager[Any]]  # a context of a model in its precision

_LARGE = 32  # px from which a CPU gains
_REDUCED = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """Says how a model is run.

    autocast: the reduced type, None for plain float32; memory_format: of weights and images; tf32:
    whether products of float32 are rounded, see `tf32.py`.
    """

    autocast: torch.dtype | None
    memory_format: torch.memory_format
    tf32: bool = False

    def __str__(self) -> str:
        plain = "tf32" if self.tf32 else "float32"
        kind = plain if self.autocast is None else str(self.autocast).removeprefix("torch.")
        return f"{kind}, {'channels-last' if self.channels_last else 'contiguous'}"

    def context(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return a context in which a model runs in the reduced precision, if there is one."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.autocast)

    @property
    def channels_last(self) -> bool:
        return self.memory_format is torch.channels_last


def choose_precision(config: TrainableConfig, device: torch.device, side: int) -> Precision:
    """Choose the precision for images of `side` px on a device.

    CPU: bfloat16 autocast is 20-30 times slower than float32 where AVX512-BF16 and AMX are missing.
    Where AVX512-BF16 is there, ResNet18 trains, 2 cores (AMD EPYC), n = 5, 1.87 times as fast at
    32 px with small_input, 1.34 with ImageNet's, 1.60 at 64 and at 96 px; ResNet50 1.44 at 64.
    Channels-last, ResNet18, 2 cores, n = 5: 1.06 times the speed at 32 px, 1.09 at 96 px, 0.79 at
    8 px. GPU: bfloat16 and channels-last from compute capability 8.0 (tensor cores for it) on.
    """
    modern = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    large = device.type == "cpu" and side >= _LARGE
    gains = modern or (large and multiplies_bfloat16())
    asked = config.precision if config.precision != "auto" else "bfloat16" if gains else "float32"
    last = modern or large
    return Precision(
        _REDUCED.get(asked),
        torch.channels_last if last else torch.contiguous_format,
        tf32=modern and config.precision == "tf32",
    )


def exact(transform: Transform) -> Transform:
    """Decorate a transform of a batch of images, so that it stays in float32 within
    `Precision.context`. Autocast would round the coordinates of a crop (`affine_grid` is a matrix
    product) and the colors of a blur to eight bits."""

    @wraps(transform)
    def unrounded(images: Tensor, *rest: Any) -> Any:
        kind = images.device.type
        if not torch.amp.is_autocast_available(kind):  # nothing is rounded there
            return transform(images, *rest)
        with torch.autocast(kind, enabled=False):
            return transform(images, *rest)

    return cast(Transform, unrounded)


@lru_cache(maxsize=64)
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return the values as float32 (N,), made once per device. To make a tensor of Python numbers
    in every step would synchronize with the GPU. Do not write to it."""
    with torch.inference_mode(False):  # inference tensors never take part in autograd
        return torch.tensor(values, device=device)


def multiplies_bfloat16() -> bool:
    """Return whether torch finds instructions for bfloat16 in this CPU (AVX512-BF16 or AMX)."""
    read = getattr(torch.cpu, "get_capabilities", dict)  # absent in older torch
    capabilities: dict[str, Any] = read()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
