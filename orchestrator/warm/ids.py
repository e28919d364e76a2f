"""Keep forked processes from drawing equal ids and random numbers.

Ray draws ids from a generator that is seeded when it is first used. Were that before the fork, two
workers would draw equal ids: two placement groups of one id, say, of which one's end ends both.
"""

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PROBES = 2


@contextmanager
def class_ids_of_the_system() -> Iterator[None]:
    """Let classes that become Ray actors during an import draw their id from the system, and
    leave Ray's generator unused."""
    import ray
    import ray.actor

    class SystemIds:
        """Stands in for Ray's ids of classes."""

        @staticmethod
        def from_random() -> ray.ActorClassID:
            return ray.ActorClassID(os.urandom(len(ray.ActorClassID.nil().binary())))

    drawn = ray.actor.ActorClassID
    ray.actor.ActorClassID = SystemIds
    try:
        yield
    finally:
        ray.actor.ActorClassID = drawn


def forks_draw_different_ids() -> bool:
    """Return whether processes that are forked now draw different ids."""
    return len({_drawn_in_a_fork() for _ in range(_PROBES)}) == _PROBES


def _drawn_in_a_fork() -> bytes:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        import ray

        os.write(writing, ray.NodeID.from_random().binary())
        os._exit(0)
    os.close(writing)
    try:
        return os.read(reading, 256)
    finally:
        os.close(reading)


def draw_anew() -> None:
    """Seed the global random generators of this process from the system, where they are loaded.
    Python seeds its own after a fork."""
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(int.from_bytes(os.urandom(4), "big"))
    if "torch" in sys.modules:
        sys.modules["torch"].seed()
