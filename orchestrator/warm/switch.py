"""Decide where workers start warm: give the command that starts a node, and what a job asks for."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from orchestrator.warm.request import SOCKET, SWITCH, WANTED

# environment of drivers and their workers, and of the head: a template reads it when it loads Ray
JOB_SETTINGS = {
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # the dashboard's Train tab
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # an end is seen two of these late
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # else a trial that is slow to end is lost
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else a print is in the Run's log once more, as a record
    "PYTHONUNBUFFERED": "1",
}
ONE_MACHINE = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}  # saves a process for every Run
_GPU = Path("/dev/nvidiactl")  # with CUDA it was not tried: a context does not survive a fork


def ray_command(socket: Path) -> list[str]:
    """Return the command `ray`: with a warm template at a socket, or the plain one where warm
    workers are switched off or there is a GPU."""
    if os.environ.get(SWITCH) == "0" or not sys.platform.startswith("linux") or _GPU.exists():
        return [sys.executable, "-m", "ray.scripts.scripts"]
    return [sys.executable, "-P", str(Path(__file__).resolve().parent / "head.py"), str(socket)]


def module_command(module: str) -> list[str]:
    """Return the command that runs a module as `python -m` does, forked from the node's template
    where there is one."""
    starter = Path(__file__).resolve().parent / "start_module.py"
    return [sys.executable, "-P", str(starter), module]


def job_environment() -> Mapping[str, str]:
    """Return the variables with which a job's workers start warm; called on a node of Ray. Empty
    where that node has no template, or where the job has packages that a template lacks."""
    return {WANTED: "1"} if SOCKET in os.environ and os.environ.get(SWITCH) != "0" else {}
