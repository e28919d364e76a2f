"""Runs lie on the nodes that their stage asks for: on a Ray cluster of three nodes, really run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import ray.tune
from ray.cluster_utils import Cluster
from ray.util import placement_group_table

from orchestrator.execution.launcher import launch
from orchestrator.execution.resources import Demand, Requests, cluster_nodes, free_nodes, has_room
from orchestrator.needs.resources import Resources
from orchestrator.planning.placement import ResourceRequest, at_once, request_of
from orchestrator.tuning.tuner import group_of_a_trial
from tests.conftest import Tasks

GB = 10**9


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, str]]:
    """A head, a node with labels and a license, and one that says that it has an A100. Its name →
    its id."""
    head = {"num_cpus": 1, "memory": GB, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        zone = {"labels": {"zone": "a"}, "resources": {"license": 1}, "memory": 3 * GB}
        cluster.add_node(num_cpus=1, **zone)
        cluster.add_node(num_cpus=1, num_gpus=1, memory=GB, resources={"accelerator_type:A100": 1})
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        cluster.wait_for_nodes()
        found = {}
        for node in ray.nodes():
            own = node["Resources"]
            found["zone" if "license" in own else "a100" if "GPU" in own else "head"] = node[
                "NodeID"
            ]
        yield found
    finally:
        ray.shutdown()
        cluster.shutdown()


def places_of_groups() -> dict[str, set[str]]:
    """Return the ids of placement groups → those of their nodes."""
    return {
        name: set(group["bundles_to_node_id"].values())
        for name, group in placement_group_table().items()
    }


def used_node(before: dict[str, set[str]]) -> str:
    (node,) = set.union(*(n for name, n in places_of_groups().items() if name not in before))
    return node


def test_a_run_trains_on_the_node_that_has_what_it_asks_for(
    nodes: dict[str, str], tasks: Tasks, tmp_path: Path
) -> None:
    asked = Resources(labels={"zone": ["a", "b"]}, custom={"license": 1}, memory_gb=2)
    request = Requests(patient=False, note=print).wait_for(asked)
    assert at_once(request, free_nodes()) == 1 and has_room(request)
    before = places_of_groups()
    outcome = launch(tasks.make(epochs=1), request, tmp_path / "ray_train")
    assert outcome.state == "finished", outcome
    assert used_node(before) == nodes["zone"]


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        (Resources(gpu="A100"), "a100"),
        (Resources(labels={"zone": "a"}), "zone"),
        (Resources(memory_gb=2.5), "zone"),
    ],
)
def test_what_a_run_waits_for_is_asked_of_its_own_nodes(
    nodes: dict[str, str], asked: Resources, where: str
) -> None:
    request, before = request_of(asked, cluster_nodes()), places_of_groups()
    demand = Demand()
    demand.set(request)
    try:
        group = demand._group
        assert group is not None and group.wait(60)
        assert used_node(before) == nodes[where]
        assert not has_room(request)
    finally:
        demand.set(None)


def test_a_trial_runs_on_the_node_that_its_stage_asks_for(
    nodes: dict[str, str], tmp_path: Path
) -> None:
    def tell(config: dict[str, int]) -> None:
        ray.tune.report({"node": ray.get_runtime_context().get_node_id()})

    request = ResourceRequest(1, 1, 0.0, labels=(("zone", "a"),), memory=2.0 * GB)
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(tell, group_of_a_trial(request)),
        run_config=ray.tune.RunConfig(name="placed", storage_path=str(tmp_path), verbose=0),
    )
    (result,) = tuner.fit()
    assert result.error is None and result.metrics["node"] == nodes["zone"]
