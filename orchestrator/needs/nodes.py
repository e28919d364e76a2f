"""Describes what one machine of a cluster has."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

KIND_OF_GPU = "accelerator_type:"  # begins the name of the resource by which Ray knows a kind


@dataclass(frozen=True)
class Node:
    """Describes one machine. memory: bytes that workers may take, infinite where it is not known;
    custom: amount of each further resource, a kind of GPU among them; labels: sorted pairs."""

    cpus: float
    gpus: float
    memory: float = math.inf
    custom: tuple[tuple[str, float], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, resources: Mapping[str, float], labels: Mapping[str, str]) -> "Node":
        """Return the machine that Ray describes by amounts of resources and by labels."""
        known = ("CPU", "GPU", "memory", "object_store_memory")
        custom = {
            name: amount
            for name, amount in resources.items()
            if name not in known and not name.startswith("node:")
        }
        return cls(
            resources.get("CPU", 0.0),
            resources.get("GPU", 0.0),
            resources.get("memory", 0.0),
            tuple(sorted(custom.items())),
            tuple(sorted((str(key), str(value)) for key, value in labels.items())),
        )

    def has(self, amounts: Iterable[tuple[str, float]]) -> bool:
        """Return whether it has so much of every further resource."""
        own = dict(self.custom)
        return all(own.get(name, 0.0) >= amount for name, amount in amounts)
