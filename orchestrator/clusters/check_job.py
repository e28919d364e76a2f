"""Look at every host of a cluster, as a Ray job. Prints what was found as one line of JSON.

python -m orchestrator.clusters.check_job check.json
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.clusters.check import RESULT
from orchestrator.clusters.finding import ELSEWHERE, Finding, Wanted, listen, look, unreached

_SECONDS = 60.0  # that a host may take to start a task


class Probe:
    """Looks at the host that it runs on."""

    def __init__(self) -> None:
        self._server, self._port = listen()

    def clock(self) -> float:
        """Return the Unix time in seconds."""
        return time.time()

    def port(self) -> int:
        """Return the port that it listens on."""
        return self._port

    def look(self, wanted: Wanted, sign: str) -> Finding:
        """Return what was found."""
        return look(wanted, sign)

    def unreached(self, others: list[tuple[str, str, int]]) -> list[str]:
        """Return the hosts that this one does not reach."""
        return unreached(others)


def main(path: str) -> int:
    """Look at all hosts, and print what was found. Returns 0."""
    wanted: Wanted = json.loads(Path(path).read_text(encoding="utf-8"))
    address = os.environ["RAY_ADDRESS"]  # set by Ray for every job
    ray.init(address, logging_level="WARNING")
    nodes = [node for node in ray.nodes() if node["Alive"]]
    own = ray.get_runtime_context().get_node_id()
    nodes.sort(key=lambda node: node["NodeID"] != own)
    home, made = Path(wanted["home"]), False
    try:
        made = not (home.exists() or wanted["shared"] or wanted.get("store"))
        with suppress(OSError):  # then the host says that the home is not there
            if not wanted["shared"]:
                (home / wanted["sign"]).mkdir(parents=True)
        found = find(nodes, wanted)
    finally:
        if not wanted["shared"]:
            shutil.rmtree(home / wanted["sign"], ignore_errors=True)
        if made:
            with suppress(OSError):
                home.rmdir()
    print(RESULT + json.dumps({"time": time.time(), "hosts": found}), flush=True)
    return 0


def find(nodes: list[Mapping[str, Any]], wanted: Wanted) -> list[Finding]:
    """Return what was found on each host, the driver's first. A host that leaves the cluster
    meanwhile has no part in it any more, and is left out."""
    kind = ray.remote(num_cpus=0)(Probe)
    probes: dict[str, Any] = {}
    found: dict[str, Finding] = {}
    for node in nodes:
        name = node["NodeID"]
        place = NodeAffinitySchedulingStrategy(name, soft=False)
        probes[name] = kind.options(scheduling_strategy=place).remote()
    ports: dict[str, int] = {}
    asked = {name: probe.port.remote() for name, probe in probes.items()}
    for node in nodes:
        name, host = node["NodeID"], str(node["NodeManagerHostname"])
        gpus = float(node["Resources"].get("GPU", 0.0))
        try:
            ports[name] = ray.get(asked[name], timeout=_SECONDS)
            found[name] = Finding(host=host, gpus=gpus)
        except ray.exceptions.RayError as error:
            if _has_left(name):
                continue
            why = f"starts no task ({' '.join(str(error).split())[:200]}): see its Ray logs"
            found[name] = Finding(host=host, gpus=gpus, error=why)
    looks = {name: probes[name].look.remote(wanted, name) for name in ports}
    for name, answer in looks.items():
        with _unless_it_left(name, found):
            seen: Finding = ray.get(answer)
            seen["host"], seen["gpus"] = found[name]["host"], found[name]["gpus"]
            seen["clock"] = _ahead(probes[name])
            found[name] = seen
            sign = Path(wanted["home"]) / wanted["sign"] / name
            alone = wanted.get("store")  # each host has a home of its own
            if not alone and not seen.get("home") and not sign.is_file():
                seen["home"] = ELSEWHERE
    addresses = {str(node["NodeID"]): str(node["NodeManagerAddress"]) for node in nodes}
    for name in [name for name in ports if name in found]:
        others = [(found[other]["host"], addresses[other], port)
                  for other, port in ports.items() if other != name and other in found]  # fmt: skip
        with _unless_it_left(name, found):
            found[name]["unreached"] = ray.get(probes[name].unreached.remote(others))
    return [found[node["NodeID"]] for node in nodes if node["NodeID"] in found]


@contextmanager
def _unless_it_left(name: str, found: dict[str, Finding]) -> Iterator[None]:
    """Leave a host out of what was found, where the block fails since it has left the cluster."""
    try:
        yield
    except ray.exceptions.RayError:
        if not _has_left(name):
            raise
        del found[name]


def _has_left(name: str) -> bool:
    return not any(node["NodeID"] == name and node["Alive"] for node in ray.nodes())


def _ahead(probe: Any) -> float:
    """Return the seconds that a host's clock is ahead of this one's."""
    before = time.time()
    there = float(ray.get(probe.clock.remote()))
    return there - (before + time.time()) / 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
