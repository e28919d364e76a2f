"""Plays the shorter situations of a cluster, on hosts made of network namespaces. The others take
minutes each: `python -m tests.cluster` plays all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import NoHosts, check
from tests.cluster.services import Cluster, cluster
from tests.cluster.situations import SITUATIONS

pytestmark = pytest.mark.slow
SHORT = (
    "two_workers_on_two_nodes",
    "commands_on_another_machine",
    "a_home_that_a_node_does_not_see",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of a head and two nodes; gone at the end, with every process of its hosts."""
    try:
        check()
    except NoHosts as error:
        pytest.skip(str(error))
    work: Path = tmp_path_factory.mktemp("cluster")
    with cluster(work, late=1) as found:
        yield found
    assert [name for name, host in found.hosts.items() if host.is_up] == []


@pytest.mark.parametrize("name", SHORT)
def test_situation(made: Cluster, name: str) -> None:
    SITUATIONS[name](made)
