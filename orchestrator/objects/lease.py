"""Own a key by a lease: claim it, renew it, begin attempts, give it back.

No clock of another host is asked. An owner that lives changes the beat in the head; one whose beat
another host has seen unchanged for long enough, by its own clock, is taken for dead, and the key is
taken over on the condition that the beat still has not changed. Every claim has a higher number.
An owner that was only frozen finds another one in the head when it wakes, and what it had trained
has an older number: both can change nothing any more.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from orchestrator.objects.contract import Objects
from orchestrator.objects.head import Head, Owner, change_head, read_head

RENEW_SECONDS = 10.0
EXPIRE_SECONDS = 60.0
_GAP_SECONDS = 10.0  # that count between two looks: the store may have been away for longer


class LeaseLost(Exception):
    """Says that another process owns the key now."""


class StaleAttempt(Exception):
    """Says that a newer attempt has begun: this one can change nothing any more."""


class Lease:
    """Holds a key that this process owns. Methods raise LeaseLost and ObjectsError."""

    def __init__(self, objects: Objects, key: str, owner: Owner, attempt: int) -> None:
        self._objects, self.key, self._id = objects, key, owner.id
        self._unused: int | None = attempt  # the number that came with the claim

    def renew(self) -> None:
        """Show that the owner lives."""
        self._change(lambda head, own: replace(head, owner=replace(own, beat=own.beat + 1)))

    def begin_attempt(self, least: int = 1) -> int:
        """Return the number of a new attempt; all older ones are refused from now on. least: the
        lowest number that it may have."""
        number, self._unused = self._unused, None
        if number is not None and number >= least:
            return number

        def next_number(head: Head, own: Owner) -> Head:
            return replace(head, attempt=max(head.attempt + 1, least))

        return self._change(next_number).attempt

    def release(self) -> None:
        """Give the key back."""
        self._change(lambda head, own: replace(head, owner=None))

    def _change(self, change: Callable[[Head, Owner], Head]) -> Head:
        def if_own(head: Head) -> Head:
            if head.owner is None or head.owner.id != self._id:
                raise LeaseLost(self.key)
            return change(head, head.owner)

        return change_head(self._objects, self.key, if_own)[1]


@dataclass
class _Seen:
    """Remembers what was last seen of another owner. quiet: seconds for which it gave no sign of
    life."""

    owner: tuple[str, int]
    at: float
    quiet: float = 0.0


class Claims:
    """Claims keys on behalf of one home."""

    def __init__(
        self,
        objects: Objects,
        home: str,
        clock: Callable[[], float] = time.monotonic,
        expire_seconds: float = EXPIRE_SECONDS,
    ) -> None:
        """home: its name. An owner of the same home is dead: the caller holds the lock of the key
        in it. clock: this process's own, in s, from any beginning."""
        self._objects, self._home, self._clock = objects, home, clock
        self._expire = expire_seconds
        self._seen: dict[str, _Seen] = {}

    def claim(self, key: str, words: str) -> Lease | None:
        """Own a key; None while another process does. Raises ObjectsError."""
        mine = Owner(secrets.token_hex(8), self._home, words)
        other = read_head(self._objects, key).owner
        if other is not None and other.home != self._home and not self._is_dead(key, other):
            return None

        def take(head: Head) -> Head:
            if head.owner == mine:  # the answer to an earlier try was lost
                return head
            if head.owner != other:
                raise LeaseLost(key)
            return replace(head, owner=mine, attempt=head.attempt + 1)

        try:
            head = change_head(self._objects, key, take)[1]
        except LeaseLost:
            return None
        self._seen.pop(key, None)
        return Lease(self._objects, key, mine, head.attempt)

    def owner(self, key: str) -> str | None:
        """Return who owns a key, in a few words; None where it is free. Raises ObjectsError."""
        owner = read_head(self._objects, key).owner
        return None if owner is None else owner.words

    def _is_dead(self, key: str, other: Owner) -> bool:
        now, life = self._clock(), (other.id, other.beat)
        seen = self._seen.get(key)
        if seen is None or seen.owner != life:
            self._seen[key] = _Seen(life, now)
            return False
        seen.quiet += min(now - seen.at, _GAP_SECONDS)
        seen.at = now
        return seen.quiet > self._expire
