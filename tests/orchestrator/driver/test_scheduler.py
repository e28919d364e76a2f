"""Which Runs of a study start next: what nodes hold, and whose turn it is."""

import pytest

from orchestrator.config.study_loader import from_mapping
from orchestrator.driver.scheduler import Starts
from orchestrator.execution import resources
from orchestrator.execution.resources import Requests
from orchestrator.needs.nodes import Node
from orchestrator.needs.resources import Resources
from orchestrator.planning.placement import ResourceRequest
from orchestrator.planning.plan import PlannedRun
from orchestrator.planning.prepare import prepare
from orchestrator.planning.run import Run
from orchestrator.sharing.claims import Claim
from orchestrator.sharing.turns import Turns
from orchestrator.storage.home import Home
from tests.conftest import SMALL

ZONE = (("zone", "a"),)


class Paper:
    """A board on which others stand already."""

    def __init__(self, *others: Claim) -> None:
        self._others, self.shown = list(others), list[Claim]()

    def write(self, claim: Claim) -> None:
        self.shown.append(claim)

    def others(self) -> list[Claim]:
        return self._others


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ResourceRequest | None]:
    """What is asked of the cluster for Runs that wait for nodes; there is none here."""
    found: list[ResourceRequest | None] = []
    monkeypatch.setattr(resources.Demand, "set", lambda self, request: found.append(request))
    return found


@pytest.fixture
def ready(digits_home: Home) -> list[PlannedRun]:
    stage = {"trainable": "classify", "config": SMALL}
    mapping = {
        "study": "small",
        "data": {"digits": {"type": "digits", "limit": 60}},
        "stages": {"plain": stage, "zone": stage | {"config": {**SMALL, "lr": 0.02}}},
        "seeds": [0, 1, 2],
    }
    return list(prepare(from_mapping(mapping), None, digits_home).planned)


def wanted(run: Run) -> Resources:
    return Resources(cpus_per_worker=1, labels={"zone": "a"} if run.stage == "zone" else {})


def started(paper: Paper, ready: list[PlannedRun]) -> list[tuple[str, int]]:
    starts = Starts(Requests(True, lambda text: None), Turns(paper, Claim("02", "ann", "small")))
    found = []
    for item, request in starts.among(ready, wanted):
        starts.took(item.run, request)
        found.append((item.run.stage, item.run.seed))
    return found


def test_runs_start_on_the_nodes_that_their_stage_asks_for(
    ready: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [Node(1, 0), Node(2, 0, labels=ZONE)]
    monkeypatch.setattr(resources, "cluster_nodes", lambda: nodes)
    paper = Paper()
    assert started(paper, ready) == [("plain", 0), ("plain", 1), ("plain", 2)]
    assert started(paper, ready[::-1]) == [("zone", 2), ("zone", 1), ("plain", 2)]
    both = {(ResourceRequest(1, 1, 0.0), 3), (ResourceRequest(1, 1, 0.0, labels=ZONE), 3)}
    assert set(paper.shown[0].waiting) == both
    assert sum(count for _, count in paper.shown[-1].running) == 3


def test_a_stage_without_nodes_keeps_no_other_one_waiting(
    ready: list[PlannedRun],
    asked: list[ResourceRequest | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resources, "cluster_nodes", lambda: [Node(2, 0)])
    assert started(Paper(), ready[::-1]) == [("plain", 2), ("plain", 1)]
    assert asked == [ResourceRequest(1, 1, 0.0, labels=ZONE)]


def test_others_get_their_turn_between_two_runs(
    ready: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ResourceRequest(1, 1, 0.0)
    monkeypatch.setattr(resources, "cluster_nodes", lambda: [Node(3, 0)])
    assert started(Paper(Claim("03", "bob", "other", waiting=((one, 1),))), ready) == [("plain", 0)]
    urgent = Claim("03", "bob", "other", 10, ((one, 2),), ((one, 1),))
    assert started(Paper(urgent), ready) == []
