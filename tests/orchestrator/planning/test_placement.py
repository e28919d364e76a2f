"""What a Run takes of a cluster, and how many Runs it holds: never more than a node has."""

import math
import os
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.needs.nodes import Node
from orchestrator.needs.resources import Resources
from orchestrator.planning.placement import (
    DoesNotFit,
    ResourceRequest,
    at_once,
    left_beside,
    request_of,
    sizes_of,
    this_machine,
)

LAPTOP = [Node(8, 0)]
GPU_BOX = [Node(64, 8)]
TWO_GPU_BOXES = [Node(16, 2), Node(32, 2)]
HEAD_AND_GPUS = [Node(4, 0), Node(16, 1), Node(16, 1)]


@pytest.mark.parametrize(
    ("nodes", "workers", "share", "runs"),
    [
        (LAPTOP, 1, ResourceRequest(1, 8, 0.0), 1),
        (LAPTOP, 2, ResourceRequest(2, 4, 0.0), 1),
        (LAPTOP, 3, ResourceRequest(3, 2, 0.0), 1),
        ([Node(1, 0)], 1, ResourceRequest(1, 1, 0.0), 1),
        (GPU_BOX, 1, ResourceRequest(1, 8, 1.0), 8),
        (GPU_BOX, 4, ResourceRequest(4, 8, 1.0), 2),
        ([Node(8, 1)], 1, ResourceRequest(1, 8, 1.0), 1),
        ([Node(4, 8)], 1, ResourceRequest(1, 1, 1.0), 4),  # more GPUs than CPUs
        (TWO_GPU_BOXES, 1, ResourceRequest(1, 8, 1.0), 4),  # the poorer node's share of CPUs
        (HEAD_AND_GPUS, 2, ResourceRequest(2, 16, 1.0), 1),  # the head has no GPU
        ([Node(8, 0), Node(8, 0)], 1, ResourceRequest(1, 8, 0.0), 2),
        ([Node(8, 0), Node(8, 0)], 2, ResourceRequest(2, 8, 0.0), 1),
        ([Node(8, 0), Node(8, 0)], 3, ResourceRequest(3, 4, 0.0), 1),
    ],
)
def test_auto_shares_out_what_there_is(
    nodes: list[Node], workers: int, share: ResourceRequest, runs: int
) -> None:
    assert request_of(Resources(workers=workers), nodes) == share
    assert at_once(share, nodes) == runs


@pytest.mark.parametrize(
    ("asked", "nodes", "share", "runs"),
    [
        (Resources(cpus_per_worker=1), LAPTOP, ResourceRequest(1, 1, 0.0), 8),
        (Resources(cpus_per_worker=3), LAPTOP, ResourceRequest(1, 3, 0.0), 2),
        (Resources(cpus_per_worker=3, workers=2), LAPTOP, ResourceRequest(2, 3, 0.0), 1),
        (Resources(cpus_per_worker=2), GPU_BOX, ResourceRequest(1, 2, 1.0), 8),
        (Resources(gpus_per_worker=0.0), GPU_BOX, ResourceRequest(1, 64, 0.0), 1),
        (Resources(gpus_per_worker=0.5), [Node(16, 1)], ResourceRequest(1, 8, 0.5), 2),
        (Resources(gpus_per_worker=2.0), GPU_BOX, ResourceRequest(1, 16, 2.0), 4),
        (Resources(gpus_per_worker=2.0), TWO_GPU_BOXES, ResourceRequest(1, 16, 2.0), 2),
    ],
)
def test_what_is_asked_for_is_given(
    asked: Resources, nodes: list[Node], share: ResourceRequest, runs: int
) -> None:
    assert request_of(asked, nodes) == share
    assert at_once(share, nodes) == runs


@pytest.mark.parametrize("tenths", range(1, 11))
def test_a_gpu_holds_as_many_runs_as_its_tenths_say(tenths: int) -> None:
    assert at_once(ResourceRequest(1, 1, tenths / 10), [Node(64, 1)]) == 10 // tenths


@pytest.mark.parametrize(
    ("asked", "nodes", "text"),
    [
        (
            Resources(workers=9),
            LAPTOP,
            "a Run asks for 9 workers with 1 CPUs and 0 GPUs each; the cluster has 8 CPUs, "
            "0 GPUs: ",
        ),
        (
            Resources(cpus_per_worker=9),
            LAPTOP,
            "a Run asks for 1 workers with 9 CPUs and 0 GPUs each; the cluster has 8 CPUs, "
            "0 GPUs: ",
        ),
        (
            Resources(gpus_per_worker=1.0, cpus_per_worker=2),
            LAPTOP,
            "a Run asks for 1 workers with 2 CPUs and 1 GPUs each; the cluster has 8 CPUs, "
            "0 GPUs: ",
        ),
        (
            Resources(workers=5, gpus_per_worker=1.0, cpus_per_worker=4),
            TWO_GPU_BOXES,
            "a Run asks for 5 workers with 4 CPUs and 1 GPUs each; "
            "the cluster has 16 CPUs, 2 GPUs + 32 CPUs, 2 GPUs: ",
        ),
        (
            Resources(),
            [],
            "a Run asks for 1 workers with 1 CPUs and 0 GPUs each; the cluster has nothing: ",
        ),
    ],
)
def test_what_does_not_fit_names_what_is_asked_and_what_there_is(
    asked: Resources, nodes: list[Node], text: str
) -> None:
    with pytest.raises(DoesNotFit) as error:
        request_of(asked, nodes)
    advice = "lower resources.workers, cpus_per_worker or gpus_per_worker"
    assert str(error.value) == text + advice


@pytest.mark.parametrize("gpus", [1.5, 2.01])
def test_more_than_one_gpu_is_a_whole_number_as_ray_demands(gpus: float) -> None:
    with pytest.raises(ValidationError):
        Resources(gpus_per_worker=gpus)


NODES = st.lists(
    st.builds(Node, st.integers(0, 64).map(float), st.integers(0, 8).map(float)), max_size=5
)
SHARES = st.builds(
    ResourceRequest,
    st.integers(1, 6),
    st.integers(1, 16),
    st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.3, 0.5, 0.6, 0.7, 1.0, 2.0, 3.0]),
)


class Machine:
    """A node as Ray sees it: a part of a GPU comes from one GPU, counted to four digits."""

    def __init__(self, node: Node) -> None:
        self.cpus, self.gpus = node.cpus, [10_000] * int(node.gpus)

    def place(self, share: ResourceRequest) -> bool:
        """Give a worker what it asks for, if it is there."""
        part = round(10_000 * share.gpus) if share.gpus < 1 else 10_000
        count = max(1, int(share.gpus)) if share.gpus else 0
        able = [number for number, left in enumerate(self.gpus) if left >= part]
        if self.cpus < share.cpus or len(able) < count:
            return False
        self.cpus -= share.cpus
        for number in able[:count]:
            self.gpus[number] -= part
        return True


def holds(share: ResourceRequest, nodes: list[Node], runs: int) -> bool:
    """Whether so many Runs find a place when their workers are placed one after the other."""
    machines = [Machine(node) for node in nodes]
    return all(
        any(machine.place(share) for machine in machines) for _ in range(runs * share.workers)
    )


@settings(deadline=None)
@given(SHARES, NODES)
@example(ResourceRequest(1, 1, 0.6), [Node(64, 2)])
def test_as_many_runs_go_at_once_as_the_nodes_hold_and_not_one_more(
    share: ResourceRequest, nodes: list[Node]
) -> None:
    runs = at_once(share, nodes)
    assert holds(share, nodes, runs)
    assert not holds(share, nodes, runs + 1)


@settings(deadline=None)
@given(st.integers(1, 20), NODES)
def test_auto_fits_wherever_one_cpu_a_worker_does(workers: int, nodes: list[Node]) -> None:
    gpus = 1.0 if any(node.gpus >= 1 for node in nodes) else 0.0
    if at_once(ResourceRequest(workers, 1, gpus), nodes) < 1:
        with pytest.raises(DoesNotFit):
            request_of(Resources(workers=workers), nodes)
        return
    share = request_of(Resources(workers=workers), nodes)
    assert (share.workers, share.gpus) == (workers, gpus)
    assert share.cpus == math.floor(share.cpus) >= 1
    assert at_once(share, nodes) >= 1


@settings(deadline=None)
@given(SHARES, NODES, st.integers(0, 9))
def test_what_is_left_beside_some_runs_holds_the_others(
    share: ResourceRequest, nodes: list[Node], some: int
) -> None:
    most = at_once(share, nodes)
    left = left_beside(share, nodes, some)
    assert (left is not None) == (some <= most)
    if left is not None:
        assert at_once(share, left) == most - some


A100 = ("accelerator_type:A100", 1.0)
BIG = Node(32, 4, 256e9, (A100, ("license", 2.0)), (("zone", "a"),))
OLD = Node(8, 2, 64e9, (("accelerator_type:T4", 1.0),), (("zone", "b"),))


@pytest.mark.parametrize(
    ("asked", "share", "runs"),
    [
        ({"gpu": "A100"}, (8, 1.0), 4),
        ({"gpu": "T4", "gpus_per_worker": 2.0}, (8, 2.0), 1),
        ({"labels": {"zone": "b"}}, (4, 1.0), 2),
        ({"labels": {"zone": "!a"}}, (4, 1.0), 2),
        ({"labels": {"zone": ["a", "b"]}}, (4, 1.0), 6),
        (
            {"memory_gb": 100.0},
            (8, 1.0),
            2,
        ),  # two such workers on the large node, none on the other
        ({"custom": {"license": 1.0}}, (8, 1.0), 2),
        ({"custom": {"license": 0.5}, "gpus_per_worker": 0.5}, (4, 0.5), 4),
    ],
)
def test_runs_lie_on_nodes_that_have_what_they_ask_for(
    asked: dict[str, Any], share: tuple[int, float], runs: int
) -> None:
    request = request_of(Resources(**asked), [BIG, OLD])
    assert (request.cpus, request.gpus) == share
    assert at_once(request, [BIG, OLD]) == runs


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (
            {"gpu": "H100"},
            "a Run asks for 1 workers with 1 CPUs and 1 GPUs (H100) each; the cluster has 32 CPUs, "
            "4 GPUs (A100) + 8 CPUs, 2 GPUs (T4): lower resources.workers, cpus_per_worker or "
            "gpus_per_worker, or change gpu",
        ),
        (
            {"labels": {"zone": "c"}, "memory_gb": 1.5},
            "a Run asks for 1 workers with 1 CPUs, 0 GPUs and 1.5 GB of memory each on nodes with "
            "zone=c; the cluster has 32 CPUs, 4 GPUs, 256.0 GB of memory, zone=a + 8 CPUs, 2 GPUs, "
            "64.0 GB of memory, zone=b: lower resources.workers, cpus_per_worker or "
            "gpus_per_worker, or change memory_gb, labels",
        ),
        (
            {"custom": {"license": 3.0}, "gpus_per_worker": 0.0},
            "a Run asks for 1 workers with 1 CPUs, 0 GPUs and 3 license each; the cluster has "
            "32 CPUs, 4 GPUs, 2 license + 8 CPUs, 2 GPUs, 0 license: lower resources.workers, "
            "cpus_per_worker or gpus_per_worker, or change custom",
        ),
    ],
)
def test_what_no_node_has_is_named(asked: dict[str, Any], text: str) -> None:
    with pytest.raises(DoesNotFit) as error:
        request_of(Resources(**asked), [BIG, OLD])
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("asked", "nodes", "cpus"),
    [
        (Resources(), TWO_GPU_BOXES, [16, 8]),
        (Resources(workers=2), TWO_GPU_BOXES, [16, 8]),  # two workers on the larger one
        (Resources(workers=3), TWO_GPU_BOXES, [16, 8]),  # one and two
        (Resources(workers=4), TWO_GPU_BOXES, [8]),
        (Resources(cpus_per_worker=4), TWO_GPU_BOXES, [4]),
        (Resources(gpus_per_worker=0), TWO_GPU_BOXES, [16]),  # more Runs at once, not larger ones
        (Resources(gpu="T4"), [BIG, OLD], [4]),
        (Resources(), HEAD_AND_GPUS, [16]),
    ],
)
def test_a_run_gets_the_cpus_of_the_gpu_that_it_lies_on(
    asked: Resources, nodes: list[Node], cpus: list[int]
) -> None:
    sizes = sizes_of(asked, nodes)
    assert [size.cpus for size in sizes] == cpus
    assert sizes[-1] == request_of(asked, nodes)
    assert all(at_once(size, nodes) for size in sizes)


def test_a_gpu_is_asked_for_by_its_kind_though_the_cluster_has_none() -> None:
    with pytest.raises(DoesNotFit, match=r"1 GPUs \(A100\)"):
        request_of(Resources(gpu="A100"), LAPTOP)


def test_this_machine_has_what_the_system_says() -> None:
    machine = this_machine()
    assert machine.cpus == os.cpu_count()
    assert machine.gpus == len([name for name in os.listdir("/dev") if re.match(r"nvidia\d", name)])
