"""A key has one owner at a time whose work counts, whoever is frozen, whatever clocks show."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.objects.address import open_objects
from orchestrator.objects.cloud import open_memory
from orchestrator.objects.contract import Changed, Objects
from orchestrator.objects.head import Head, StoredFile, change_head, read_head
from orchestrator.objects.lease import EXPIRE_SECONDS, Claims, Lease, LeaseLost
from tests.s3_server import BUCKET, s3_server


@dataclass
class Clock:
    """A clock of one host: its own zero, its own pace."""

    now: float
    pace: float = 1.0

    def __call__(self) -> float:
        return self.now

    def go(self, seconds: float) -> None:
        self.now += seconds * self.pace


def wait(claims: Claims, clock: Clock, seconds: float, key: str = "k") -> Lease | None:
    """Ask for a key every five seconds for so long."""
    for _ in range(int(seconds / 5)):
        clock.go(5)
        if lease := claims.claim(key, "waits"):
            return lease
    return None


@pytest.fixture
def memory() -> Objects:
    return open_memory()


def test_a_key_has_one_owner_until_it_is_given_back(memory: Objects) -> None:
    one, two = Claims(memory, "one"), Claims(memory, "two")
    lease = one.claim("k", "study a")
    assert lease is not None and lease.begin_attempt() == 1
    assert two.claim("k", "study b") is None and two.owner("k") == "study a"
    assert lease.begin_attempt() == 2
    lease.release()
    other = two.claim("k", "study b")
    assert other is not None and other.begin_attempt() == 3 and one.owner("k") == "study b"


def test_an_owner_that_lives_is_never_taken_over(memory: Objects) -> None:
    clock = Clock(5e8)
    lease = Claims(memory, "one").claim("k", "a")
    assert lease is not None
    other = Claims(memory, "two", clock)
    for _ in range(30):
        assert wait(other, clock, EXPIRE_SECONDS / 2) is None
        lease.renew()


def test_a_dead_owner_is_taken_over_and_changes_nothing_when_it_wakes(memory: Objects) -> None:
    clock = Clock(-7.0)
    frozen = Claims(memory, "one").claim("k", "a")
    assert frozen is not None and frozen.begin_attempt() == 1
    other = Claims(memory, "two", clock)
    assert wait(other, clock, EXPIRE_SECONDS) is None
    new = wait(other, clock, 15)
    assert new is not None and new.begin_attempt() == 2
    for act in (frozen.renew, frozen.begin_attempt, frozen.release):
        with pytest.raises(LeaseLost):
            act()
    assert read_head(memory, "k").attempt == 2


def test_a_home_takes_over_from_its_own_dead_driver_at_once(memory: Objects) -> None:
    assert Claims(memory, "one").claim("k", "a")
    again = Claims(memory, "one").claim("k", "a")
    assert again is not None and again.begin_attempt() == 2


def test_a_store_that_was_away_lets_nobody_expire(memory: Objects) -> None:
    clock = Clock(0.0)
    lease = Claims(memory, "one").claim("k", "a")
    other = Claims(memory, "two", clock)
    assert lease is not None and other.claim("k", "b") is None
    clock.go(1000.0)  # nobody could ask, and nobody could renew
    assert other.claim("k", "b") is None
    lease.renew()


def test_attempts_go_on_from_the_number_of_a_home(memory: Objects) -> None:
    lease = Claims(memory, "one").claim("k", "a")
    assert lease is not None and lease.begin_attempt(5) == 5 and lease.begin_attempt(5) == 6


class LostAnswers:
    """A store whose answers get lost: what was put on a condition looks refused."""

    def __init__(self, objects: Objects) -> None:
        self._objects, self.address = objects, objects.address

    def __getattr__(self, name: str) -> object:
        return getattr(self._objects, name)

    def put_if_absent(self, name: str, content: bytes) -> str:
        self._objects.put_if_absent(name, content)
        raise Changed(name)

    def put_if_unchanged(self, name: str, content: bytes, version: str) -> str:
        self._objects.put_if_unchanged(name, content, version)
        raise Changed(name)


def test_an_answer_that_is_lost_counts_nothing_twice(memory: Objects) -> None:
    lossy: Objects = LostAnswers(memory)  # type: ignore[assignment]
    lease = Claims(lossy, "one").claim("k", "a")
    assert lease is not None and [lease.begin_attempt(), lease.begin_attempt()] == [1, 2]
    lease.renew()
    assert read_head(memory, "k").attempt == 2


# --- two hosts, any order of events ---------------------------------------------------------------

HOSTS = 2
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["wait", "claim", "renew", "begin", "commit", "release", "freeze", "wake"]),
        st.integers(0, HOSTS - 1),
    ),
    max_size=60,
)


class Stale(Exception):
    """A commit of an older attempt."""


class Host:
    """A driver and its worker. While it is frozen it does nothing, and others may take over."""

    def __init__(self, objects: Objects, number: int, clock: Clock) -> None:
        self.objects, self.clock, self.number = objects, clock, number
        self.claims = Claims(objects, f"home {number}", clock)
        self.lease: Lease | None = None
        self.attempt = 0
        self.frozen = False

    def claim(self) -> None:
        if self.lease is None:
            self.lease = self.claims.claim("k", f"host {self.number}")

    def of_lease(self, what: str) -> None:
        if self.lease is None:
            return
        try:
            if what == "begin":
                self.attempt = self.lease.begin_attempt()
            elif what == "renew":
                self.lease.renew()
            else:
                self.lease.release()
                self.lease = None
        except LeaseLost:
            self.lease = None

    def commit(self) -> bool:
        """As a worker does: by the number of its attempt alone."""

        def change(head: Head) -> Head:
            if head.attempt != self.attempt:
                raise Stale
            name = f"epoch {len(head.files) + 1} of {self.attempt}"
            stored = StoredFile(self.attempt, 0, name)
            return replace(head, committed=self.attempt, files={**head.files, name: stored})

        try:
            change_head(self.objects, "k", change)
        except Stale:
            return False
        return True

    def do(self, what: str) -> None:
        """Do what a host does, unless it is frozen."""
        if what in ("freeze", "wake"):
            self.frozen = what == "freeze"
        elif self.frozen:
            return
        elif what == "claim":
            self.claim()
        elif what == "commit":
            newest = read_head(self.objects, "k").attempt
            assert not self.attempt or self.commit() == (self.attempt == newest)
        else:
            self.of_lease(what)


def play(objects: Objects, events: list[tuple[str, int]], paces: tuple[float, float]) -> None:
    """Let things happen, and check after each that what counts is the newest attempt's."""
    hosts = [Host(objects, n, Clock(1e6 * n, pace)) for n, pace in enumerate(paces)]
    begun: set[int] = set()
    for what, number in events:
        host, before = hosts[number], read_head(objects, "k")
        had = host.attempt
        if what == "wait":
            for each in hosts:
                each.clock.go(10.0)
        else:
            host.do(what)
        if host.attempt != had:
            assert host.attempt > max(begun, default=0)  # no number twice
            begun.add(host.attempt)
        after = read_head(objects, "k")
        assert after.attempt >= before.attempt and after.committed >= before.committed
        assert before.files.items() <= after.files.items()
        numbers = [stored.attempt for stored in after.files.values()]
        assert numbers == sorted(numbers)  # nothing of an older attempt after a newer one


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.tuples(st.floats(0.5, 2.0), st.floats(0.5, 2.0)))
def test_what_counts_is_the_newest_attempts_alone(
    events: list[tuple[str, int]], paces: tuple[float, float]
) -> None:
    play(open_memory(), events, paces)


@pytest.fixture(scope="module")
def prefixes() -> Iterator[Iterator[str]]:
    with s3_server():
        yield (f"s3://{BUCKET}/{number}" for number in range(10**6))


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(EVENTS, st.tuples(st.floats(0.5, 2.0), st.floats(0.5, 2.0)))
def test_the_same_holds_on_s3(
    prefixes: Iterator[str], events: list[tuple[str, int]], paces: tuple[float, float]
) -> None:
    play(open_objects(next(prefixes)), events, paces)
