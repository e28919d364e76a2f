"""Defines what the driver of a study says to the others: who it is, what it uses, what it waits
for."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.planning.placement import ResourceRequest

Requests = tuple[tuple[ResourceRequest, int], ...]  # what Runs get → how many such Runs


@dataclass(frozen=True)
class Claim:
    """States the claim of one driver. job: id of its Ray job, in the order in which jobs began;
    person: whose study it is, the name of a home; beat: a number that grows while the driver
    lives."""

    job: str
    person: str
    study: str
    priority: int = 0
    running: Requests = ()
    waiting: Requests = ()  # of the Runs that could start
    beat: int = 0

    def encoded(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decoded(cls, content: bytes) -> "Claim":
        """Return the claim that `encoded` wrote."""
        found = json.loads(content)
        read = {
            name: tuple((_request(item), int(count)) for item, count in found[name])
            for name in ("running", "waiting")
        }
        return cls(**{**found, **read})


def counted(requests: Iterable[ResourceRequest]) -> Requests:
    """Return equal requests together, with their number."""
    return tuple(Counter(requests).items())


def _request(found: dict[str, Any]) -> ResourceRequest:
    pairs = {
        name: tuple((key, value) for key, value in found[name]) for name in ("custom", "labels")
    }
    return ResourceRequest(**{**found, **pairs})
