"""Defines the form of `max_failures:`: how often a Run starts again after a death of each kind."""

from typing import Annotated

from pydantic import Field

from trainables.config import Config


class MaxFailures(Config):
    """Says after how many deaths of a kind a Run is still started again. They count one after the
    other: with a new checkpoint since the last death, the count begins anew."""

    crash: Annotated[int, Field(ge=0)] = Field(
        default=2, description="a process ended by a signal, by hand or for an unknown cause"
    )
    memory: Annotated[int, Field(ge=0)] = Field(
        default=2, description="a process ended by the kernel or by Ray, since memory ran out"
    )
    node: Annotated[int, Field(ge=0)] = Field(
        default=10, description="a worker that was lost with its node"
    )
    network: Annotated[int, Field(ge=0)] = Field(
        default=10, description="workers that lost contact with each other"
    )

    def of(self, kind: str) -> int:
        """Return the limit of a kind, by the name of its key."""
        return int(getattr(self, kind))
