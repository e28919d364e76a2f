"""Defines the form of `priority:`: whose Runs start first on a cluster that several studies use."""

from typing import Annotated, Literal

from pydantic import Field

_WORDS = {"low": -10, "normal": 0, "urgent": 10}
Priority = Literal["low", "normal", "urgent"] | Annotated[int, Field(ge=-100, le=100)]


def number_of(priority: Priority) -> int:
    """Return a priority as a number: low -10, normal 0, urgent 10."""
    return _WORDS[priority] if isinstance(priority, str) else priority
