"""Check a cluster from the machine of the command: send the job that looks at its hosts, and say
what is wrong with them."""

import json
import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.clusters.faults import faults, host_line
from orchestrator.clusters.finding import Finding, Wanted
from orchestrator.config.errors import UserError
from orchestrator.execution.ray_jobs import Jobs

RESULT = "checked: "  # what the line of the result begins with
_MODULE = "orchestrator.clusters.check_job"
_SECONDS = 180.0
_POLL_SECONDS = 0.3


class CheckFailed(UserError):
    """Says why the hosts of a cluster could not be looked at."""


class NotReady(UserError):
    """Lists why hosts of a cluster cannot do what a study needs: a line for each fault."""

    status = 2

    def __init__(self, where: str, lines: Sequence[str]) -> None:
        self.lines = list(lines)
        count = f"{len(self.lines)} fault{'s' if len(self.lines) > 1 else ''}"
        super().__init__("\n".join([f"{where}: {count}", *(f"  {line}" for line in lines)]))


@dataclass(frozen=True)
class Checked:
    """Holds what the check of a cluster has found. hosts: a line each."""

    hosts: list[str]
    faults: list[str]
    seconds: float


@dataclass(frozen=True)
class Needed:
    """Says what hosts need beside a home, as in `Wanted`."""

    mlflow: str
    paths: Sequence[str]
    everywhere: bool
    store: str = ""


def check_cluster(jobs: Jobs, home: tuple[Path, bool], needed: Needed) -> Checked:
    """Look at every host of a cluster. home: folder that all shall see, and whether this machine is
    one of them; with a store each host has one of its own. Raises CheckFailed or ServiceError."""
    name, shared = f"check-{uuid.uuid4().hex[:12]}", home[1] and not needed.store
    wanted = Wanted(home=str(home[0]), sign=f".{name}", shared=shared, paths=list(needed.paths),
                    everywhere=needed.everywhere, mlflow=needed.mlflow.rstrip("/"),
                    store=needed.store)  # fmt: skip
    if not shared:
        return _checked(jobs, wanted, name)
    sign = home[0] / wanted["sign"]
    sign.mkdir()
    try:
        return _checked(jobs, wanted, name)
    finally:
        shutil.rmtree(sign, ignore_errors=True)


def _checked(jobs: Jobs, wanted: Wanted, name: str) -> Checked:
    began = time.monotonic()
    jobs.send(_MODULE, "check.json", dict(wanted), name, {"study": "check"})
    while jobs.alive(name):
        if time.monotonic() - began > _SECONDS:
            jobs.stop(name)
            raise CheckFailed(f"the check of the cluster took more than {_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)
    lines = [line for line in jobs.logs(name).splitlines() if line.startswith(RESULT)]
    if not lines:
        raise CheckFailed(f"the cluster could not be checked: {jobs.ending(name)}")
    answer = json.loads(lines[-1].removeprefix(RESULT))
    findings: list[Finding] = answer["hosts"]
    ahead = time.time() - float(answer["time"])
    # a part of it is the time that the answer took
    clock = 0.0 if 0 <= ahead < time.monotonic() - began else ahead
    seconds = time.monotonic() - began
    return Checked([host_line(item) for item in findings], faults(wanted, findings, clock), seconds)
