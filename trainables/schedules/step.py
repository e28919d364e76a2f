"""A drop of the learning rate every few epochs."""

from trainables.schedules.contract import Settings


def step(progress: float, settings: Settings) -> float:
    """`step_gamma` to the power of the drops so far, one every `step_epochs` epochs."""
    return settings.step_gamma ** int(progress // settings.step_epochs)
