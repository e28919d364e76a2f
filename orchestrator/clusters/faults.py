"""Say what is wrong with the hosts of a cluster: a line a fault, with host, cause and cure."""

from collections import Counter
from collections.abc import Sequence

from orchestrator.clusters.finding import Finding, Wanted

_LEAST_BYTES = 2_000_000_000  # that a home's disk should have free
_CLOCK_SECONDS = 10.0  # that clocks may differ: signs of life are compared by them


def faults(wanted: Wanted, findings: Sequence[Finding], client_clock: float) -> list[str]:
    """Return the faults of all hosts, the driver's first. findings: the driver's host first;
    client_clock: seconds that the clock of the command's machine is ahead of the driver's host."""
    looked = [item for item in findings if not item.get("error")]
    lines = [f"host {item['host']}: {item['error']}" for item in findings if item.get("error")]
    for item in looked:
        lines += [f"host {item['host']}: {line}" for line in _own(wanted, item)]
    lines += _data(wanted, looked)
    lines += _mixed(looked)
    if abs(client_clock) > _CLOCK_SECONDS:
        where = looked[0]["host"] if looked else "the driver"
        lines.append(
            f"this machine: its clock is {client_clock:+.0f} s against host {where}: set both by "
            "NTP, since signs of life are compared by them"
        )
    return lines


def _own(wanted: Wanted, item: Finding) -> list[str]:
    lines = []
    if why := item.get("home"):
        lines.append(f"the home {wanted['home']} {why}: {_cure_of_home(wanted)}")
    elif item.get("free_bytes", 0) < _LEAST_BYTES:
        free = item.get("free_bytes", 0) / 1e9
        lines.append(f"the disk of {wanted['home']} has {free:.1f} GB free: make room for more")
    if why := item.get("store"):
        lines.append(
            f"the store {wanted.get('store')} {why}: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY belong into the environment in which Ray starts there"
        )
    if not item.get("torch"):
        lines.append("torch is not installed in Ray's Python: install this project's packages")
    if why := item.get("mlflow"):
        lines.append(
            f"MLflow at {wanted['mlflow']} {why}: give the address that this host reaches "
            "(`mlflow` in clusters.yaml, or tracking_uri in mlflow.yaml)"
        )
    if hosts := item.get("unreached"):
        lines.append(
            f"does not reach {', '.join(hosts)} on a free port: open the ports between the nodes, "
            "or workers of one Run cannot train together"
        )
    if abs(clock := item.get("clock", 0.0)) > _CLOCK_SECONDS:
        lines.append(f"its clock is {clock:+.0f} s against the driver's host: set both by NTP")
    return lines


def _cure_of_home(wanted: Wanted) -> str:
    if wanted.get("store"):
        return "name a folder that can be made on every host's own disk (`home` in clusters.yaml)"
    return (
        "mount the same folder there on every host, or name one that is (`home` in clusters.yaml, "
        "or --home)"
    )


def _data(wanted: Wanted, findings: Sequence[Finding]) -> list[str]:
    """Return what is wrong with the data on the hosts that read it."""
    lines = []
    readers = findings if wanted["everywhere"] else findings[:1]
    for path in wanted["paths"]:
        seen = {item["host"]: item.get("data", {}).get(path, "") for item in readers}
        without = [host for host, found in seen.items() if not found]
        if len(without) > 1 and len(without) == len(seen):
            without = ["every host"]
        cure = "copy the data there, or mount it under the same path"
        names = (name if name == "every host" else f"host {name}" for name in without)
        lines += [f"{name}: there is no {path}: {cure}" for name in names]
        usual = Counter(filter(None, seen.values())).most_common(1)
        lines += [
            f"host {host}: {path} holds other files than elsewhere: copy them again"
            for host, found in seen.items()
            if found and found != usual[0][0]
        ]
    return lines


def _mixed(findings: Sequence[Finding]) -> list[str]:
    """Return which versions differ between hosts: they would change figures."""
    lines = []
    for name in ("torch", "python"):
        versions: dict[str, list[str]] = {}
        for item in findings:
            versions.setdefault(str(item.get(name, "")), []).append(item["host"])
        versions.pop("", None)
        if len(versions) > 1:
            has = "; ".join(f"{version} on {', '.join(on)}" for version, on in versions.items())
            lines.append(f"versions of {name} differ ({has}): install the same everywhere")
    return lines


def host_line(item: Finding) -> str:
    """Return what a host has, in a line."""
    if item.get("error"):
        return f"{item['host']}: {item['error']}"
    free = item.get("free_bytes", 0) / 1e9
    return (
        f"{item['host']}: Python {item.get('python')}, torch {item.get('torch') or 'none'}, "
        f"{item['gpus']:g} GPUs, {free:.0f} GB free, clock {item.get('clock', 0.0):+.1f} s"
    )
