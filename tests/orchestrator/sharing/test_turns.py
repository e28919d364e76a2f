"""Who may start the next Run: decided by each driver for itself, over many cases."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.needs.nodes import Node
from orchestrator.planning.placement import ResourceRequest, at_once, left_beside
from orchestrator.sharing.claims import Claim, counted
from orchestrator.sharing.order import in_order
from orchestrator.sharing.turns import Turns, left_free, may_start

ONE, TWO = ResourceRequest(1, 1, 0.0), ResourceRequest(2, 1, 0.0)
GPU = ResourceRequest(1, 1, 1.0)
REQUESTS = st.sampled_from([ONE, TWO, GPU, ResourceRequest(1, 3, 0.0), ResourceRequest(1, 1, 0.5)])
NODES = st.lists(
    st.builds(Node, st.integers(0, 6).map(float), st.integers(0, 2).map(float)), max_size=4
)


@st.composite
def waiting(draw: st.DrawFn, requests: st.SearchStrategy[ResourceRequest]) -> list[Claim]:
    """Up to five studies of up to three people, each of which waits for something."""
    return [
        Claim(
            f"{index:08d}",
            draw(st.sampled_from("abc")),
            f"s{index}",
            draw(st.sampled_from([-10, 0, 10])),
            waiting=((draw(requests), 1),),
        )
        for index in range(draw(st.integers(1, 5)))
    ]


def allowed(claims: Sequence[Claim], nodes: Sequence[Node]) -> list[int]:
    """Which studies may start what they wait for now."""
    others = [[other for other in claims if other is not claim] for claim in claims]
    return [
        index
        for index, claim in enumerate(claims)
        if at_once(claim.waiting[0][0], nodes)
        and may_start(claim.waiting[0][0], claim, others[index], nodes) is None
    ]


def started(claim: Claim) -> Claim:
    running = [item for item, count in claim.running for _ in range(count)]
    return replace(claim, running=counted([*running, claim.waiting[0][0]]))


@settings(deadline=None)
@given(waiting(REQUESTS), NODES, st.data())
def test_runs_start_until_the_cluster_is_full_and_no_further(
    claims: list[Claim], nodes: list[Node], data: st.DataObject
) -> None:
    """In any order in which each study thinks that it may."""
    for _ in range(40):
        able, left = allowed(claims, nodes), left_free(claims, nodes)
        first = next((c for c in in_order(claims, nodes) if at_once(c.waiting[0][0], nodes)), None)
        if first is not None and left_beside(first.waiting[0][0], left) is not None:
            assert claims.index(first) in able  # the first one never waits for others
        if not able:
            return
        chosen = data.draw(st.sampled_from(able))
        claims[chosen] = started(claims[chosen])
    raise AssertionError("more Runs than the nodes hold")


@settings(deadline=None)
@given(waiting(st.sampled_from([ONE, TWO, ResourceRequest(3, 1, 0.0)])), NODES, st.data())
def test_nobody_takes_what_another_has_a_right_to(
    claims: list[Claim], nodes: list[Node], data: st.DataObject
) -> None:
    """Workers of one CPU: what fits beside what is a sum."""
    while able := allowed(claims, nodes):
        order, before = in_order(claims, nodes), left_free(claims, nodes)
        chosen = data.draw(st.sampled_from(able))
        ahead = order[: order.index(claims[chosen])]
        claims[chosen] = started(claims[chosen])
        after = left_free(claims, nodes)
        assert sum(node.cpus for node in after) >= 0
        for claim in ahead:
            wanted = claim.waiting[0][0]
            if at_once(wanted, nodes):
                assert at_once(wanted, before) and at_once(wanted, after)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.data())
def test_people_get_equal_shares(people: list[int], data: st.DataObject) -> None:
    """However many studies a person has, and whichever Run ends: each place goes to one of those
    who have least."""
    nodes = [Node(6, 0)]
    claims = [
        Claim(f"{index:08d}", str(person), "s", waiting=((ONE, 1),))
        for index, person in enumerate(people)
    ]
    used = dict.fromkeys(people, 0)
    for _ in range(30):
        if sum(used.values()) == 6:
            ends = data.draw(st.sampled_from([i for i, c in enumerate(claims) if c.running]))
            claims[ends] = replace(
                claims[ends], running=counted([ONE] * (claims[ends].running[0][1] - 1))
            )
            used[people[ends]] -= 1
        able = allowed(claims, nodes)
        first = next(i for i in able if claims[i] == in_order(claims, nodes)[0])
        assert used[people[first]] == min(used.values())
        if sum(used.values()) == 5:  # one place is left: nobody else may take it
            assert able == [first]
        claims[first] = started(claims[first])
        used[people[first]] += 1


def test_an_urgent_study_gets_the_next_place() -> None:
    nodes = [Node(2, 0)]
    usual = Claim("01", "ann", "usual", 0, running=((ONE, 1),), waiting=((ONE, 1),))
    urgent = Claim("02", "ann", "urgent", 10, running=((ONE, 0),), waiting=((ONE, 1),))
    assert may_start(ONE, usual, [urgent], nodes) == urgent
    assert may_start(ONE, urgent, [usual], nodes) is None
    assert may_start(ONE, usual, [replace(urgent, waiting=())], nodes) is None
    two = [Node(3, 0)]  # two places are free, and the urgent study has a right to both
    assert may_start(ONE, usual, [urgent], two) is None
    several = replace(urgent, waiting=((ONE, 2),))
    assert may_start(ONE, usual, [several], two) == several
    equal = replace(urgent, priority=0, waiting=((ONE, 2),), person="bob")
    assert may_start(ONE, usual, [equal], two) is None


def test_a_large_run_is_not_kept_waiting_by_small_ones_for_ever() -> None:
    nodes = [Node(2, 0), Node(2, 1)]
    large = Claim("01", "ann", "large", waiting=((ResourceRequest(4, 1, 0.0), 1),))
    small = Claim("02", "bob", "small", running=((ONE, 2),), waiting=((ONE, 1),))
    assert may_start(ONE, small, [large], nodes) == large  # though a node is free
    on_gpu = replace(large, waiting=((GPU, 1),))
    taken = Claim("03", "eve", "taken", running=((GPU, 1),))
    assert may_start(ONE, small, [on_gpu, taken], nodes) == on_gpu
    other = [*nodes, Node(1, 0)]
    assert may_start(ONE, small, [on_gpu, taken], other) is None  # no node that it could use


def test_a_run_without_nodes_waits_for_nobody() -> None:
    own, other = (
        Claim("02", "a", "s", waiting=((GPU, 1),)),
        Claim("01", "b", "t", waiting=((GPU, 1),)),
    )
    assert may_start(GPU, own, [other], [Node(4, 0)]) is None


class Paper:
    """A board of two drivers in one process."""

    def __init__(self, claims: dict[str, Claim], job: str) -> None:
        self._claims, self._job = claims, job

    def write(self, claim: Claim) -> None:
        self._claims[self._job] = Claim.decoded(claim.encoded())

    def others(self) -> list[Claim]:
        return [claim for job, claim in self._claims.items() if job != self._job]


def test_two_drivers_take_turns_one_run_after_the_other() -> None:
    claims: dict[str, Claim] = {}
    nodes = [Node(4, 0)]
    turns = [Turns(Paper(claims, job), Claim(job, job, f"study{job}")) for job in ("1", "2")]
    running: list[list[ResourceRequest]] = [[], []]
    said = ""
    for _ in range(3):  # seconds
        for own, has in zip(turns, running, strict=True):
            own.announce([ONE, ONE], has)
        for own, has in zip(turns, running, strict=True):
            own.announce([ONE, ONE], has)
            while not own.rests and not (said := own.before(ONE, nodes)):
                own.took(ONE)
                has.append(ONE)
    assert [len(has) for has in running] == [2, 2]
    assert said == "waits for room: Runs of other studies use the cluster" or "turn" in said


def test_a_claim_is_read_as_it_was_written() -> None:
    request = ResourceRequest(2, 3, 0.5, 60.0, 1e9, (("license", 1.0),), (("zone", "in(a, b)"),))
    claim = Claim("1", "ann", "s", 10, ((request, 2),), ((request, 1), (ONE, 3)), 7)
    assert Claim.decoded(claim.encoded()) == claim
