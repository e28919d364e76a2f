"""Says whether a GPU may round float32 to TF32 (10 bits of mantissa) in products and convolutions.

torch allows it for convolutions unless told otherwise, from compute capability 8.0 on. A CPU has no
TF32.
"""

import torch


def allow_tf32(precision: str) -> None:
    """Set this process to `precision` of a configuration: `float32` forbids TF32, `tf32` allows it
    everywhere, others restore torch's defaults: allowed in convolutions, not in matrix products."""
    torch.backends.cudnn.allow_tf32 = precision != "float32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
