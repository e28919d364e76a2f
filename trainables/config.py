"""Strict configuration: unknown keys, wrong types, NaN and values out of range are errors.

Every default of the product that concerns learning stands in a `Config` class, once.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

# keys that decide what is shown or kept, not what is trained: they are not in the key of a Run
ONLY_LOOKS = ("tsne_epochs", "probe_every", "on_collapse", "watch", "checkpoint_every")

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]


class Config(BaseModel):
    """Base of all configuration: frozen, strict, finite, no unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True
    )


def as_plain(config: Config) -> dict[str, Any]:
    """Return the configuration as JSON-ready data, defaults filled in."""
    return config.model_dump(mode="json")
