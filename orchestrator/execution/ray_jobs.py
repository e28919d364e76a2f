"""Send a study to a cluster as a Ray job, with the code that the command runs, and follow it."""

import json
import logging
import os
import re
import secrets
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.config.errors import Refused, one_line
from orchestrator.config.mlflow_settings import trouble_at
from orchestrator.execution.memory import memory_in_words, tells_of_memory
from orchestrator.needs.environment import Environment
from orchestrator.own_code.items import items_of, ship
from orchestrator.planning.code_version import PACKAGES
from orchestrator.rest.ray_api import RayApi, RayApiError
from orchestrator.services.ray_head import login
from orchestrator.services.record import RayService, ServiceError
from orchestrator.storage.home import Home
from orchestrator.warm.request import SWITCH
from orchestrator.warm.switch import JOB_SETTINGS, ONE_MACHINE

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_STOP_SECONDS = 60.0
_AGENT_SECONDS = 300.0
_NO_AGENT = "No available agent"  # how Ray 2.60 says that it is not ready to start jobs
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(: |$)")  # as a traceback ends, and no line of a log
_START = "orchestrator/warm/start_module.py"


@dataclass(frozen=True)
class Job:
    """Holds what the command passes to the driver, as JSON."""

    job_id: str
    study: Mapping[str, Any]
    plan: str  # digest of the plan, or of the study where only the cluster has the data
    data_root: str | None
    home: str
    cluster: str  # the dashboard's address; `LOCAL` of `storage.home` for the home's own
    tracking_uri: str
    tree: str  # `tree_version` of the code that the command runs
    git_commit: str | None
    caches: Mapping[str, str] = field(default_factory=dict)  # fingerprint → build id, read whole
    page: str = ""  # address of its submissions in MLflow
    dashboard: str = ""  # address of the cluster's dashboard, as the command reaches it
    submitter: str = ""  # name of the home whose command sends it
    home_is_shared: bool = False  # whether `home` is that of the command, which the cluster shares
    price: Mapping[str, Any] = field(default_factory=dict)  # `price:` of orchestrator.yaml
    notify: Mapping[str, Any] = field(default_factory=dict)  # `notify:` of it
    gauges: bool = False  # `gauges:` of it
    secrets: str = ""  # where the values of named variables lie in the head's memory
    store: str = ""  # address of the store beyond the home; empty: the home is all


@dataclass(frozen=True)
class RunningJob:
    """A study's job on the cluster, and the digest of its plan."""

    job_id: str
    plan: str


class Jobs:
    """The jobs of one cluster. Methods raise ServiceError when the cluster does not answer."""

    def __init__(self, ray: RayService) -> None:
        self.ray = ray
        self._api = RayApi(ray.dashboard_url, partial(login, ray))
        with self._answering():
            self._api.version()

    def submit(self, job: Job) -> None:
        """Send the code and the job; return at once. Raises Refused where a variable that its study
        names is not set here."""
        environment = Environment.model_validate(job.study.get("environment") or {})
        if environment.sources:
            values = values_of(environment)
            job = replace(job, secrets=f"{job.job_id}-{secrets.token_hex(8)}")
            with self._answering():
                # spaces: Ray logs the first bytes of what it cannot keep
                self._api.keep(job.secrets, f"{'':16}{json.dumps(values)}".encode())
        metadata = {
            "study": str(job.study["study"]),
            "question": str(job.study.get("question") or "").strip(),
            "mlflow": job.page,
            "plan": job.plan,
            "home": job.home,
            "submitter": job.submitter,
        }
        self.send("orchestrator.driver.driver", "job.json", asdict(job), job.job_id, metadata)

    def send(
        self,
        module: str,
        file: str,
        content: Mapping[str, Any],
        job_id: str,
        metadata: dict[str, str],
    ) -> None:
        """Send the code and a job that runs a module of it; return at once. file: name of the JSON
        file with the content, which the module is called with. Own code of a study in the content
        (`study`) lies beside ours there."""
        wanted = Environment.model_validate(content.get("study", {}).get("environment") or {})
        # Ray installs packages into an environment of its own, whose Python stands first in PATH
        python = sys.executable if self.ray.local and not wanted.packages else "python"
        environment = wanted.plain | JOB_SETTINGS | (ONE_MACHINE if self.ray.local else {})
        if wanted.packages:  # a template was loaded without them
            environment |= {SWITCH: "0"}
        with tempfile.TemporaryDirectory() as folder:
            for package in PACKAGES:
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(package, Path(folder) / package.name, ignore=ignore)
            if items := items_of(content.get("study", {})):
                study = {**content["study"], "code": ship(items, Path(folder))}
                content = {**content, "study": study}
            (Path(folder) / file).write_text(json.dumps(content), encoding="utf-8")
            self._submit_when_ready(
                entrypoint=f"{shlex.quote(python)} -P {_START} {module} {file}",
                submission_id=job_id,
                runtime_env={"working_dir": folder, "env_vars": environment, **wanted.packages},
                metadata=metadata,
            )

    def _submit_when_ready(self, **request: Any) -> None:
        """Submit a job with Ray's own client, which packs and uploads the code; again while the
        cluster has nothing that could start it: on a busy machine that comes up later than the
        dashboard."""
        from ray.exceptions import RayError  # takes seconds
        from ray.job_submission import JobSubmissionClient

        for name in ("ray", "ray.dashboard.modules.dashboard_sdk"):
            logging.getLogger(name).setLevel(logging.WARNING)  # not on packing and uploading
        os.environ.pop("RAY_ADDRESS", None)  # an inherited one would win over the argument
        deadline = time.monotonic() + _AGENT_SECONDS
        while True:
            try:
                client = JobSubmissionClient(self.ray.dashboard_url, headers=login(self.ray))
                client.submit_job(**request)
                return
            except (OSError, RuntimeError, RayError) as error:  # OSError: those of requests too
                if _NO_AGENT not in str(error) or time.monotonic() > deadline:
                    url = f"{self.ray.dashboard_url}/api/jobs/"
                    reason = trouble_at(url, login(self.ray)) or f"refuses: {_line(error)}"
                    raise ServiceError(f"Ray at {self.ray.dashboard_url} {reason}") from error
                time.sleep(1.0)

    def running(self, study: str, home: Home) -> RunningJob | None:
        """Return the job of a home's study that has not ended; None where there is none."""
        for item in self._jobs():
            meta = item.get("metadata") or {}
            # the home of the job may lie on the cluster, and homes of two machines at one path
            owner = meta.get("submitter") or (meta.get("home") == str(home.root) and home.name)
            asked = (meta.get("study"), owner)
            if asked == (study, home.name) and item.get("status") not in ENDED:
                return RunningJob(str(item.get("submission_id")), meta.get("plan", ""))
        return None

    def _jobs(self) -> list[dict[str, Any]]:
        with self._answering():
            return self._api.jobs()

    def _job(self, job_id: str) -> dict[str, Any] | None:
        with self._answering():
            return self._api.job(job_id)

    def status(self, job_id: str) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED; MISSING when there is no such job."""
        job = self._job(job_id)
        return "MISSING" if job is None else str(job.get("status"))

    def alive(self, job_id: str) -> bool:
        """Return whether the job is pending or running."""
        return self.status(job_id) not in (*ENDED, "MISSING")

    def ending(self, job_id: str) -> str:
        """Return why a job has ended, in a few words."""
        status = self.status(job_id)
        if status == "STOPPED":
            return "it was stopped"
        if status == "MISSING":
            return "its cluster is gone"
        if errors := self.errors(job_id):
            return f"its driver ended: {errors[0].splitlines()[0]}"
        message, code = self.message(job_id), self.exit_status(job_id)
        if tells_of_memory(message):
            return f"its driver was killed: out of memory ({memory_in_words(message, 200)})"
        number = -code if code and code < 0 else code - 128 if code and code > 128 else 0
        if number in set(signal.Signals):
            return f"its driver was killed ({signal.Signals(number).name})"
        if code:
            return f"its driver ended with {code}"
        died = status == "FAILED" and message
        return f"its driver died: {one_line(message, 200)}" if died else "its driver is gone"

    def errors(self, job_id: str) -> list[str]:
        """Return the errors that the driver has printed before it ended."""
        return errors_in(self.logs(job_id))

    def exit_status(self, job_id: str) -> int | None:
        """Return the driver's exit status: 0 all Runs finished, 1 some did not, negative: by a
        signal."""
        code = (self._job(job_id) or {}).get("driver_exit_code")
        return None if code is None else int(code)

    def stop(self, job_id: str) -> None:
        """End the job's driver and its trainings; return when it has ended."""
        with self._answering():
            self._api.stop(job_id)
        deadline = time.monotonic() + _STOP_SECONDS
        while self.alive(job_id):
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"job {job_id} did not stop within {_STOP_SECONDS:.0f} s: "
                    f"see {self.ray.dashboard_url}"
                )
            time.sleep(0.3)

    def message(self, job_id: str) -> str:
        """Ray's message on the job's end; empty where there is none."""
        return str((self._job(job_id) or {}).get("message") or "")

    def logs(self, job_id: str) -> str:
        """Return the driver's output."""
        with self._answering():
            return self._api.logs(job_id)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except RayApiError as error:
            raise ServiceError(f"Ray at {self.ray.dashboard_url} {error}") from error


def values_of(environment: Environment) -> dict[str, str]:
    """Return the values of the variables that a study names, from this process's own. Raises
    Refused where one is not set."""
    unset = sorted({name for name in environment.sources.values() if name not in os.environ})
    if unset:
        names = ", ".join(unset)
        raise Refused(f"environment.env: not set where the study is submitted: {names}", 2)
    return {name: os.environ[source] for name, source in environment.sources.items()}


def _line(error: BaseException) -> str:
    return one_line(str(error), 200)


def errors_in(output: str) -> list[str]:
    """Return the errors in a driver's output: a line each, with the indented ones below it; the end
    of a traceback where the driver could not even say that."""
    found: list[str] = []
    inside, lines = False, output.rstrip().splitlines()
    for line in lines:
        if line.startswith("error: "):
            found.append(line.removeprefix("error: "))
            inside = True
        elif inside and line.startswith("  "):
            found[-1] += f"\n{line}"
        else:
            inside = False
    if not found and "Traceback (most recent call last):" in lines:
        found = [line for line in lines[-1:] if _EXCEPTION.match(line)]
    return found
