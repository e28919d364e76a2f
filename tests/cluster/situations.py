"""What happens to studies on a cluster of several hosts, and what must be true then."""

import json
import time
from collections.abc import Callable

from tests.cluster.services import Cluster

_ENDS_SECONDS = 300.0


def shared(cluster: Cluster) -> tuple[str, ...]:
    """Return the options of a person whose home lies on a folder that all hosts see."""
    return ("--home", str(cluster.work / "home"))


def figures(cluster: Cluster, study: str, *options: str) -> dict[str, float]:
    """Return label → mean test figure of a study that has ended."""
    answer = cluster.person("compare", study, "--json", *options)
    assert answer.returncode == 0, answer.stderr
    return {row["label"]: row["mean"] for row in json.loads(answer.stdout)["rows"]}


def wait_for(condition: Callable[[], object], seconds: float = _ENDS_SECONDS) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.5)


def two_workers_on_two_nodes(cluster: Cluster) -> None:
    """A person who has only the network trains on two hosts, and gets the figures of one."""
    study = str(cluster.study("two"))
    address = ("--address", cluster.ray_url)
    both = cluster.person("submit", study, *shared(cluster), *address)
    assert both.returncode == 0, both.stdout + both.stderr
    said = cluster.person("logs", "two/full/0", *shared(cluster)).stdout
    assert "rank 0 of 2" in said and "rank 1 of 2" in said
    home = ("--home", str(cluster.work / "alone"))
    one = cluster.person("submit", study, "--set", "resources.workers=1", *home, *address)
    assert one.returncode == 0, one.stdout + one.stderr
    assert abs(_tested(cluster, "home") - _tested(cluster, "alone")) < 1e-4


def _tested(cluster: Cluster, home: str) -> float:
    (file,) = (cluster.work / home / "store").glob("*/done.json")
    return float(json.loads(file.read_text())["test"]["test/loss"])


SITUATIONS: dict[str, Callable[[Cluster], None]] = {
    "two_workers_on_two_nodes": two_workers_on_two_nodes,
}
