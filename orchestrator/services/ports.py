"""Find ports that no process listens on."""

import itertools
import random
import socket
from pathlib import Path

_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST_PORT, _DRAWN = 15_000, 50


def free_ports(count: int) -> list[int]:
    """Return different ports that no process listens on now.

    They lie below those that the system gives to outgoing connections, where it can: one of these
    could take a port before the service that it is meant for.
    """
    possible = range(_FIRST_PORT, _first_outgoing_port())
    drawn = random.SystemRandom().sample(possible, min(len(possible), _DRAWN * count))
    found = list(itertools.islice(filter(is_free, drawn), count))
    return found if len(found) == count else _ports_of_the_system(count)


def _first_outgoing_port() -> int:
    try:
        return int(_OUTGOING.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):  # not Linux
        return 0


def _ports_of_the_system(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("", 0))
        return [int(item.getsockname()[1]) for item in sockets]
    finally:
        for item in sockets:
            item.close()


def is_free(port: int) -> bool:
    """Return whether a process could listen on a port now."""
    with socket.socket() as item:
        item.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            item.bind(("", port))
        except OSError:
            return False
        return True
