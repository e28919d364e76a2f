"""The real command line with a home of its own, for the tests beside this file."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from mlflow import MlflowClient

STUDY = """
study: {name}
question: Does it run?
data: {{digits: {{type: digits, limit: 60}}}}
resources: {{cpus_per_worker: 1}}
stages:
  rotation: {{trainable: rotation, config: {{dataset: digits, stem: small, epochs: 2, batch_size: 16, lr: 0.01}}}}
  late: {{trainable: classify, after: rotation, config: {{dataset: digits, stem: small, train: late, epochs: {epochs}, batch_size: 16, lr: {lr}}}}}
  full: {{trainable: classify, config: {{dataset: digits, stem: small, epochs: {epochs}, batch_size: 16, lr: 0.01}}}}
reference: {{late: 0.5}}
"""  # noqa: E501

CANARY = "canary-5d0c1f7a"
# what a user's shell may hold: secrets that are nobody's business, and words against the token
SHELL = {
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}-aws",
    "MLFLOW_TRACKING_USERNAME": "somebody",
    "MLFLOW_TRACKING_PASSWORD": f"{CANARY}-mlflow",
    "RAY_AUTH_MODE": "disabled",
    "RAY_AUTH_TOKEN": f"{CANARY}-ray",
}


class Command:
    """The command line with one home and one working folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.environment: dict[str, str] = {"PYTHONPATH": str(Path(__file__).parents[2])}

    def study(self, name: str, epochs: int = 1, lr: float = 0.01) -> str:
        path = self.folder / f"{name}.yaml"
        path.write_text(STUDY.format(name=name, epochs=epochs, lr=lr))
        return str(path)

    def start(self, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "orchestrator", *arguments, "--home", str(self.home)]
        return subprocess.Popen(
            command, cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | self.environment,
            # whoever runs the tests in the background ignores SIGINT, and so would this
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=420)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def status(self) -> dict:
        return json.loads(self.run("status", "--json").stdout)

    def runs(self, study: str) -> dict[str, dict]:
        (found,) = [item for item in self.status()["studies"] if item["study"] == study]
        return {run["label"]: run for run in found["runs"]}

    def mlflow(self) -> MlflowClient:
        return MlflowClient(self.status()["mlflow"]["tracking_uri"])


def wait_for(condition, seconds: float = 120.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(1.0)
    raise AssertionError("it did not happen")


def runs_so_far(command, study: str) -> dict[str, dict]:
    found = [item for item in command.status()["studies"] if item["study"] == study]
    return {run["label"]: run for run in found[0]["runs"]} if found else {}


def find_driver(module: str):
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if module in line and "job.json" in line and "python" in line[0]:
            return process
    return None
