"""Placement groups that Ray would keep for ever are given back, and no others."""

from types import SimpleNamespace

import pytest

from orchestrator.execution import resources
from orchestrator.execution.resources import OrphanedGroups
from orchestrator.needs.nodes import Node
from orchestrator.needs.resources import Resources
from orchestrator.planning.placement import DoesNotFit, ResourceRequest

GROUPS = {  # name → creator's job, state, detached
    "pending": ("ours", "PENDING", False),
    "used": ("ours", "CREATED", False),
    "demand": ("ours", "PENDING", False),  # of a Run that waits for nodes
    "gone": ("ours", "REMOVED", False),
    "others": ("theirs", "CREATED", False),
    "left": ("ended", "CREATED", False),
    "kept": ("ended", "CREATED", True),
    "unknown": ("of no job", "CREATED", False),
}


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the groups that were removed from a cluster with GROUPS."""
    names = {name.encode().hex(): name for name in GROUPS}
    groups = [
        SimpleNamespace(
            placement_group_id=i,
            creator_job_id=job,
            state=state,
            is_detached=detached,
            name=resources._DEMAND if names[i] == "demand" else "",
        )
        for i, (job, state, detached) in zip(names, GROUPS.values(), strict=True)
    ]
    actors = [SimpleNamespace(placement_group_id=b"used".hex(), state="ALIVE")]
    states = {"ours": "RUNNING", "theirs": "RUNNING", "ended": "STOPPED"}
    jobs = [SimpleNamespace(job_id=job, status=status) for job, status in states.items()]
    found: list[str] = []
    context = SimpleNamespace(get_job_id=lambda: "ours")
    monkeypatch.setattr(resources.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(resources, "list_actors", lambda **_: actors)
    monkeypatch.setattr(resources, "list_placement_groups", lambda **_: groups)
    monkeypatch.setattr(resources, "list_jobs", lambda **_: jobs)
    monkeypatch.setattr(resources.ray, "PlacementGroupID", lambda raw: raw.decode())
    monkeypatch.setattr(resources, "PlacementGroup", lambda name: name)
    monkeypatch.setattr(resources, "remove_placement_group", found.append)
    return found


def test_what_an_ended_job_left_is_removed_and_nothing_of_others(removed: list[str]):
    OrphanedGroups().remove()
    assert removed == ["left"]


def test_what_waits_longer_than_a_start_may_take_is_removed(
    removed: list[str], monkeypatch: pytest.MonkeyPatch
):
    orphans = OrphanedGroups()
    orphans.remove()
    removed.clear()
    later = resources.time.monotonic() + resources._ORPHAN_SECONDS + 1
    monkeypatch.setattr(resources.time, "monotonic", lambda: later)
    orphans.remove()
    assert removed == ["pending", "left"]


class Asked:
    """A cluster whose nodes come one by one, and the placement groups that were asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *nodes: list[Node]) -> None:
        self.nodes, self.groups = list(nodes), list[list[dict[str, float]]]()
        self.removed = 0
        monkeypatch.setattr(resources, "cluster_nodes", self._look)
        monkeypatch.setattr(resources, "has_room", lambda request: not self.nodes[1:])
        monkeypatch.setattr(resources, "placement_group", self._ask)
        monkeypatch.setattr(resources, "remove_placement_group", self._remove)
        monkeypatch.setattr(resources, "_POLL_SECONDS", 0.0)
        monkeypatch.setattr(resources.OrphanedGroups, "remove", lambda self: None)

    def _look(self) -> list[Node]:
        return self.nodes.pop(0) if self.nodes[1:] else self.nodes[0]

    def _ask(
        self, bundles: list[dict[str, float]], name: str, bundle_label_selector: object
    ) -> list[dict[str, float]]:
        self.groups.append(bundles)
        self.selectors = bundle_label_selector
        return bundles

    def _remove(self, group: object) -> None:
        self.removed += 1


HEAD, NODE = Node(0, 0), Node(1, 0)


def test_a_study_waits_for_the_nodes_of_a_cluster_and_asks_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Asked(monkeypatch, [HEAD], [HEAD, NODE], [HEAD, NODE, NODE])
    said: list[str] = []
    requests = resources.Requests(patient=True, note=said.append)
    request = requests.wait_for(Resources(workers=2, cpus_per_worker=1))
    assert (request.workers, request.cpus) == (2, 1)
    assert cluster.groups == [[{"CPU": 1.0}] * 2] and cluster.removed == 1
    assert said == [
        "waits for nodes: a Run asks for 2 workers with 1 CPUs and 0 GPUs each; the cluster has "
        "0 CPUs, 0 GPUs",
        "waits for nodes: a Run asks for 2 workers with 1 CPUs and 0 GPUs each; the cluster has "
        "0 CPUs, 0 GPUs + 1 CPUs, 0 GPUs",
        "",
    ]


def test_stages_wait_each_for_nodes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    zone = Node(2, 0, labels=(("zone", "a"),))
    cluster = Asked(monkeypatch, [NODE])
    said: list[str] = []
    requests = resources.Requests(patient=True, note=said.append)
    plain, in_zone = Resources(), Resources(labels={"zone": "a"})
    assert requests.of(in_zone) == []
    assert requests.of(plain) == [ResourceRequest(1, 1, 0.0)] and requests.slots() == 1
    assert requests.of(in_zone) == []
    assert cluster.groups == [[{"CPU": 1.0}]] and cluster.selectors == [{"zone": "a"}]
    cluster.nodes = [[NODE, zone]]
    assert requests.of(in_zone) == [ResourceRequest(1, 2, 0.0, labels=(("zone", "a"),))]
    assert requests.of(plain) == [ResourceRequest(1, 1, 0.0)]  # its threads stay as many
    assert cluster.removed == 1 and [bool(text) for text in said] == [True, False]


def test_what_is_still_asked_for_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Asked(monkeypatch, [NODE])
    requests = resources.Requests(patient=True, note=lambda text: None)
    assert requests.of(Resources(gpu="A100")) == []
    assert cluster.groups == [[{"CPU": 1.0, "GPU": 1.0, "accelerator_type:A100": 0.001}]]
    requests.close()
    requests.close()
    assert cluster.removed == 1


def test_a_machine_refuses_what_it_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    Asked(monkeypatch, [NODE])
    with pytest.raises(DoesNotFit):
        resources.Requests(patient=False, note=lambda text: None).of(Resources(gpu="A100"))


def test_places_are_shared_out_among_runs_of_several_kinds() -> None:
    two, one = ResourceRequest(1, 2, 0.0), ResourceRequest(1, 1, 0.0)
    places = resources.Places([Node(4, 0)], [two])
    assert places.hold(two) and places.hold(one)
    places.take(one)
    assert not places.hold(two) and places.hold(one)
    mixed = resources.Places([Node(4, 1), Node(16, 1)], [])
    sizes = [ResourceRequest(1, 16, 1.0), ResourceRequest(1, 4, 1.0)]
    for size in (*sizes, None):  # each node is used to its size
        assert mixed.largest(sizes) == size
        mixed.take(size or sizes[0])
    none = resources.Places([], [])
    assert none.hold(two)  # it waits for the node that has left
    none.take(two)
    assert not none.hold(one)


def test_a_run_waits_for_nodes_only_where_they_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_LOST_NODE_SECONDS", 0.0)
    request = ResourceRequest(1, 1, 0.0)
    cluster = Asked(monkeypatch, [HEAD], [HEAD], [HEAD, NODE], [HEAD, NODE])
    assert resources.wait_for_room(request, "a seed 0", patient=True)
    assert len(cluster.groups) == cluster.removed == 1
    cluster = Asked(monkeypatch, [HEAD], [HEAD])
    assert not resources.wait_for_room(request, "a seed 0")
    assert cluster.groups == []
