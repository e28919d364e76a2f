"""Find what installed packages offer to studies: their entry points."""

from importlib import metadata

TRAINABLES = "vision_orchestrator.trainables"
DATASETS = "vision_orchestrator.datasets"
BACKBONES = "vision_orchestrator.backbones"


def target_of(group: str, name: str) -> str | None:
    """Return the `module:Name` that an installed package offers under a name; None for none."""
    for point in metadata.entry_points(group=group, name=name):
        return point.value.partition("[")[0].strip()
    return None


def offered(group: str) -> dict[str, str]:
    """Return name → `module:Name` of all that installed packages offer in a group."""
    return {point.name: point.value for point in metadata.entry_points(group=group)}
