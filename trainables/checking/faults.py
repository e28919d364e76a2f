"""Says in words what breaks the contract of a trainable, with the line of its own file."""

from collections.abc import Iterator
from contextlib import contextmanager

from trainables.own_code.finder import place_of


class Broken(Exception):
    """The contract is broken; one line that says where, how, and what to do."""


def require(holds: object, message: str) -> None:
    """Raise Broken with a message unless something holds."""
    if not holds:
        raise Broken(message)


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Turn an exception of the trainable's own code in the block into Broken. what: such as `loss`,
    which the message begins with."""
    try:
        yield
    except Broken:
        raise
    except Exception as error:
        place = place_of(error)
        text = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise Broken(f"{what} raises {text}{f' at {place}' if place else ''}") from error
