"""The real command line with a home of its own, for the tests beside this file."""

import contextlib
import io
import json
import os
import signal
import subprocess
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import psutil
from mlflow import MlflowClient

from orchestrator.cli.main import main
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from tests.installed import installed_python, without_checkout

STUDY = """
study: {name}
question: Does it run?
data: {{digits: {{type: digits, limit: 60}}}}
resources: {{cpus_per_worker: 1}}
stages:
  rotation: {{trainable: rotation, config: {{dataset: digits, backbone: resnet10_slim, small_input: true, epochs: 2, batch_size: 16, lr: 0.01}}}}
  late: {{trainable: classify, after: rotation, config: {{dataset: digits, backbone: resnet10_slim, small_input: true, train: late, epochs: {epochs}, batch_size: 16, lr: {lr}}}}}
  full: {{trainable: classify, config: {{dataset: digits, backbone: resnet10_slim, small_input: true, epochs: {epochs}, batch_size: 16, lr: 0.01}}}}
reference: {{late: 0.5}}
"""  # noqa: E501

HANGS = 1800.0  # seconds that a whole study may take, on however slow a machine
CANARY = "canary-5d0c1f7a"
# what a shell may hold: secrets that must stay there, settings that would turn the token off
SHELL = {
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}-aws",
    "MLFLOW_TRACKING_USERNAME": "a-user",
    "MLFLOW_TRACKING_PASSWORD": f"{CANARY}-mlflow",
    "RAY_AUTH_MODE": "disabled",
    "RAY_AUTH_TOKEN": f"{CANARY}-ray",
}


ALONE = """
study: {name}
question: Does one Run?
data: {{digits: {{type: digits, limit: 60}}}}
resources: {{cpus_per_worker: 1}}
stages:
  full: {{trainable: classify, config: {{dataset: digits, backbone: resnet10_slim, small_input: true, epochs: {epochs}, batch_size: 16, lr: {lr}, checkpoint_every: {{epochs: 1}}}}}}
"""  # noqa: E501


class Command:
    """The command line of the installed product, with one home and one working folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.environment: dict[str, str] = {}

    def study(self, name: str, epochs: int = 1, lr: float = 0.01, form: str = STUDY) -> str:
        """A file with a study of a name: three Runs, or one if its form is ALONE."""
        path = self.folder / f"{name}.yaml"
        path.write_text(form.format(name=name, epochs=epochs, lr=lr))
        return str(path)

    def start(self, *arguments: str) -> subprocess.Popen:
        command = [installed_python(), "-m", "orchestrator", *arguments, "--home", str(self.home)]
        return subprocess.Popen(
            command, cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=without_checkout() | self.environment,
            # a shell starts background jobs with SIGINT ignored, which this would inherit
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=HANGS)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def ask(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run a command in this process: a new one takes seconds, and tests ask often."""
        out, err = io.StringIO(), io.StringIO()
        redirected = (redirect_stdout(out), redirect_stderr(err), contextlib.chdir(self.folder))
        with patch.dict(os.environ, self.environment), contextlib.ExitStack() as stack:
            for context in redirected:
                stack.enter_context(context)
            status = main([*arguments, "--home", str(self.home)])
        return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())

    def status(self) -> dict:
        """What `status` prints."""
        answer = self.ask("status", "--json")
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    def runs(self, study: str) -> dict[str, dict]:
        (found,) = [item for item in self.status()["studies"] if item["study"] == study]
        return {run["label"]: run for run in found["runs"]}

    def training(self, *study: str, epochs: int = 2) -> str:
        """Wait until a study's Run `full` has trained so many epochs; its key."""
        planned = json.loads(self.ask("plan", *study, "--json").stdout)
        (key,) = [item["key"] for item in planned if item["label"] == "full"]
        wait_for(
            lambda: (Store(self.home / "store").run(key).progress() or {}).get("done", 0) >= epochs
        )
        return key

    def driver(self) -> psutil.Process | None:
        """The process that runs a submission of this home."""
        for process in psutil.process_iter(["cmdline", "cwd"]):
            line, folder = process.info["cmdline"] or [], process.info["cwd"] or ""
            here = folder.startswith(str(Home(self.home.resolve()).ray_temp))
            if here and "-m orchestrator.driver.driver" in " ".join(line) and "python" in line[0]:
                return process
        return None

    def mlflow(self) -> MlflowClient:
        return MlflowClient(self.status()["mlflow"]["tracking_uri"])


def wait_for(condition, seconds: float = 600.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("it did not happen")
