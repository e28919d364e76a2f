"""Read how busy a GPU is, and how much of its memory this process has reserved."""

import logging

import torch

log = logging.getLogger(__name__)


class GpuUsage:
    """Reads the GPU that this process trains on."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._tells = True  # whether the driver tells how busy the GPU is

    def busy(self) -> float | None:
        """Return the share of the last moments in which the GPU did anything, in [0, 1], by
        whatever process; None where the driver does not tell, such as for a part of a GPU (MIG)."""
        if not self._tells:
            return None
        try:
            return torch.cuda.utilization(self._device) / 100
        except Exception as error:  # the errors of NVML have no class that is always there
            log.info("how busy the GPU is stays unknown: %s: %s", type(error).__name__, error)
            self._tells = False
            return None

    def memory(self) -> int:
        """Return the bytes that torch has reserved for this process, with those it holds free."""
        return int(torch.cuda.memory_reserved(self._device))
