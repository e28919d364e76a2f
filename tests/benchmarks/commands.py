"""How long does the command line take on warm services? From `submit` to the first line of its job
against a job that does nothing, and a study that is done already."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from orchestrator.config.mlflow_settings import MlflowSettings
from orchestrator.services.home_services import find
from orchestrator.services.ray_head import login
from orchestrator.storage.home import Home
from tests.benchmarks.turns import Line, ratio, seconds, shown
from tests.integration.command import ALONE, Command, wait_for

NOTHING = """
import json
import sys

from ray.job_submission import JobSubmissionClient

address, headers = json.loads(sys.argv[1])
JobSubmissionClient(address, headers=headers).submit_job(entrypoint="echo begun")
"""


def measure(turns: int) -> list[Line]:
    command = Command(Path(tempfile.mkdtemp(prefix="bench-")))
    try:
        assert command.run("up").returncode == 0
        return _measure(command, turns)
    finally:
        command.run("down")
        shutil.rmtree(command.folder)


def _measure(command: Command, turns: int) -> list[Line]:
    numbers = iter(range(10**6))
    done = command.study("done", form=ALONE)
    assert command.run("submit", done).returncode == 0
    logs = Home(command.home.resolve()).ray_temp
    found = find(Home(command.home.resolve()), MlflowSettings())
    assert found.ray is not None
    where = json.dumps([found.ray.dashboard_url, login(found.ray)])

    def first_line(start: subprocess.Popen[str], known: set[Path]) -> float:
        """Seconds until a new job has said something."""
        started = time.perf_counter()
        wait_for(lambda: [p for p in _job_logs(logs) - known if p.stat().st_size])
        taken = time.perf_counter() - started
        start.communicate()
        return taken

    def submit() -> float:
        study = command.study(f"bench{next(numbers)}", form=ALONE)
        return first_line(command.start("submit", study), known=_job_logs(logs))

    def nothing() -> float:
        known = _job_logs(logs)
        job = subprocess.Popen([sys.executable, "-c", NOTHING, where], text=True)
        return first_line(job, known)

    def again() -> None:
        assert command.run("submit", done).returncode == 0

    begun = seconds({"submit": submit, "nothing": nothing}, turns)
    repeated = seconds({"again": again}, turns)["again"]
    return [
        Line("`submit` to the first line of its job", shown(begun["submit"]), "", turns),
        Line("a Ray job that does nothing, to its first line", shown(begun["nothing"]), "", turns),
        Line("`submit` over the job that does nothing",
             f"{ratio(begun['submit'], begun['nothing']):.2f}", "≤ 1.3", turns),
        Line("`submit` of a study that is done", shown(repeated), "≤ 20 s", turns),
    ]  # fmt: skip


def _job_logs(temp: Path) -> set[Path]:
    return set(temp.glob("session_*/logs/job-driver-*.log"))
